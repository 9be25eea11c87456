for (const button of document.querySelectorAll(".code button")) {
  button.onclick = async () => {
    const code = button.nextElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // where a browser does not let pages write to the clipboard
      button.textContent = "Press Ctrl-C";
    }
  };
}
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("scrolls", target.scrollWidth > target.clientWidth);
});
for (const table of document.querySelectorAll(".wide")) sizes.observe(table);
