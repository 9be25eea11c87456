const start = JSON.parse(document.getElementById("start").textContent);
const at = (id) => document.getElementById(id);
let item = null;
let busy = Promise.resolve(); // keys that come faster than the disk wait for their turn, none is lost
async function ask(path, body) {
  const answer = await fetch(path, body && { method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()) || `${path}: ${answer.status}`);
  return answer.json();
}
async function show(position) {
  item = await ask(`item/${position}`);
  const { counts } = item;
  const done = counts.keep + counts.relabel + counts.drop;
  at("count").textContent = `${item.position + 1} of ${item.total}; ${counts.left} left; kept ${counts.keep}, ` +
    `relabelled ${counts.relabel}, dropped ${counts.drop}`;
  at("bar").firstChild.style.width = `${100 * (1 - counts.left / item.total)}%`;
  at("picture").classList.toggle("none", !item.image);
  at("image").alt = item.name;
  if (item.image) at("image").src = `image/${item.position}`;
  if (item.image && item.position + 1 < item.total) new Image().src = `image/${item.position + 1}`;
  at("name").textContent = item.name;
  at("label").textContent = start.classes[item.label];
  at("suggested").textContent = start.classes[item.choices[0]];
  at("scores").textContent = `wrong ${item.p_wrong.toFixed(3)}, suggested ${item.p_suggested.toFixed(3)}`;
  const said = item.decision;
  at("decided").textContent = !said ? (counts.left || !done ? "" : "All are decided.")
    : said.action === "relabel" ? `Relabelled: ${start.classes[said.label]}`
    : said.action === "keep" ? "Kept" : "Dropped";
  at("choices").replaceChildren(...item.choices.map((label, i) => {
    const entry = document.createElement("li"), button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    key.textContent = i + 1;
    button.append(`${start.classes[label]} `, key);
    button.onclick = () => press(String(i + 1));
    entry.append(button);
    return entry;
  }));
  at("any").value = "";
}
async function decide(action, label) {
  await show((await ask("decide", { position: item.position, action, label })).position);
}
async function act(key) {
  if (key === "k") return decide("keep");
  if (key === "d") return decide("drop");
  if (key === "r" || key === "Enter") return decide("relabel", item.choices[0]);
  if (/^[1-9]$/.test(key) && item.choices[key - 1] !== undefined) return decide("relabel", item.choices[key - 1]);
  if (key === "u" || key === "Backspace") {
    const { position } = await ask("undo", {});
    if (position !== null) await show(position);
  }
  if (key === "ArrowLeft" && item.position) await show(item.position - 1);
  if (key === "ArrowRight" && item.position + 1 < item.total) await show(item.position + 1);
}
function press(key) {
  busy = busy.then(() => act(key)).then(() => { at("error").textContent = ""; }, (error) => {
    at("error").textContent = `Not saved: ${error.message}. Is imae review still running?`;
  });
}
const KEYS = new Set(["k", "d", "r", "u", "Enter", "Backspace", "ArrowLeft", "ArrowRight", ..."123456789"]);
document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const inControl = event.target.closest("select") || (key === "Enter" && event.target.closest("button"));
  if (!KEYS.has(key) || event.ctrlKey || event.metaKey || event.altKey || event.repeat || inControl) return;
  event.preventDefault();
  press(key);
});
for (const button of document.querySelectorAll("#actions button")) button.onclick = () => press(button.dataset.key);
for (const [i, name] of start.classes.entries()) at("any").add(new Option(name, i));
at("any").onchange = () => {
  const label = Number(at("any").value);
  if (at("any").value) busy = busy.then(() => decide("relabel", label)).catch((error) => { at("error").textContent = error; });
  at("any").blur();
};
at("image").onload = () => at("picture").classList.toggle("tiny", at("image").naturalWidth < 128);
at("image").onerror = () => { at("image").alt = `${item.name}: cannot be read`; };
busy = show(start.position);
