const report = JSON.parse(document.getElementById("suspects").textContent);
const [pair, least, search, order, list, count, more] =
  ["pair", "least", "search", "order", "cards", "count", "more"].map((id) => document.getElementById(id));
const STEP = 60;
let shown = STEP;
const nameOf = (item) => `${report.classes[item.label]} → ${report.classes[item.suggested]}`;
const keyOf = (item) => `${item.label},${item.suggested}`;
const pairs = new Map();
for (const item of report.items) pairs.set(keyOf(item), [nameOf(item), (pairs.get(keyOf(item))?.[1] ?? 0) + 1]);
for (const [key, [name, size]] of [...pairs].sort((a, b) => b[1][1] - a[1][1])) {
  pair.add(new Option(`${name} (${size})`, key));
}
function element(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}
function card(item) {
  const made = document.createElement("li");
  if (item.image) {
    const image = document.createElement("img");
    image.alt = item.name;
    image.src = item.image;
    image.loading = "lazy";
    if (item.image.startsWith("data:image/png")) image.className = "tiny";
    made.append(image);
  }
  const labels = document.createElement("div");
  labels.append(element("span", "given", report.classes[item.label]), " → ",
    element("span", "suggested", report.classes[item.suggested]));
  made.append(labels, element("div", "", `wrong ${item.p_wrong.toFixed(3)}, suggested ${item.p_suggested.toFixed(3)}`),
    element("div", "name", `${item.rank}. ${item.name} (score ${item.score.toFixed(2)})`));
  return made;
}
const orders = {
  score: (a, b) => a.rank - b.rank,
  pair: (a, b) => pairs.get(keyOf(b))[1] - pairs.get(keyOf(a))[1] || keyOf(a).localeCompare(keyOf(b)) || a.rank - b.rank,
  suggested: (a, b) => b.p_suggested - a.p_suggested,
  name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
};
function draw() {
  document.getElementById("least-is").textContent = Number(least.value).toFixed(2);
  const wanted = search.value.trim().toLowerCase();
  const found = report.items.filter((item) => (!pair.value || keyOf(item) === pair.value) &&
    item.p_wrong >= Number(least.value) &&
    (!wanted || `${item.name} ${nameOf(item)}`.toLowerCase().includes(wanted))).sort(orders[order.value]);
  const cards = [];
  let before = null;
  for (const item of found.slice(0, shown)) {
    if (order.value === "pair" && keyOf(item) !== before) cards.push(element("li", "pair", nameOf(item)));
    before = keyOf(item);
    cards.push(card(item));
  }
  list.replaceChildren(...cards);
  const wrong = found.reduce((sum, item) => sum + item.p_wrong, 0);
  const first = report.items.length < report.total ? "first " : "";
  count.textContent = `${found.length} of the ${first}${report.items.length} suspects, of which ${wrong.toFixed(0)} are ` +
    "expected to be wrong";
  more.hidden = found.length <= shown;
}
function again() {
  shown = STEP;
  draw();
}
for (const control of [pair, least, search, order]) control.addEventListener("input", again);
document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
more.onclick = () => {
  const first = list.children.length;
  shown += STEP;
  draw();
  list.children[first]?.scrollIntoView({ block: "nearest" });
};
for (const cell of document.querySelectorAll(".matrix button")) {
  cell.onclick = () => {
    const known = pairs.has(cell.dataset.pair);
    pair.value = known ? cell.dataset.pair : "";
    again();
    document.getElementById("filter").scrollIntoView();
    pair.focus();
  };
}
draw();
