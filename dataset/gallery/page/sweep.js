// X/Y grids: a column per value of one field, a row per value of another, and what was rendered with both.

const MOST_COLUMNS = 60;
const MOST_ROWS = 200;

function showSweep() {
  if (!view.sweep || !own.whole) return; // axes that are not read yet would be taken for unknown ones
  const varying = fieldsOf(own).map(([name, field]) => [name, field, valuesOf(own, field, grid.indexes, MOST_ROWS)]).filter(([, , values]) => values && values.size > 1);
  const numeric = varying.map(([name]) => name).filter((name) => !["prompt", "state"].includes(name));
  const names = varying.map(([name]) => name);
  const pick = (asked, other) => (names.includes(asked) ? asked : [...numeric, ...names].find((name) => name !== other) ?? "");
  view.x = pick(view.x, view.y);
  view.y = pick(view.y, view.x);
  const chooser = (axis) => {
    const options = names.map((name) => element("option", { value: name, selected: view[axis] === name }, name));
    const onchange = (event) => (remember({ [axis]: (view[axis] = event.target.value) }), showSweep());
    return element("label", {}, axis.toUpperCase(), element("select", { "aria-label": `${axis.toUpperCase()} axis`, onchange }, ...options));
  };
  const table = view.x && view.y ? sweepTable(varying) : element("p", {}, "Nothing varies among these images.");
  $("sweep").replaceChildren(element("div", { class: "axes" }, chooser("x"), chooser("y")), table);
}

function sweepTable(varying) {
  const [x, y] = [view.x, view.y].map((wanted) => varying.find(([name]) => name === wanted));
  const [columns, rows] = [inOrder(x[2].keys()).slice(0, MOST_COLUMNS), inOrder(y[2].keys())];
  const cells = imagesBy(x[1], y[1]);
  const head = element("tr", {}, element("th", {}, text(`${y[0]} \\ ${x[0]}`)), ...columns.map((value) => element("th", { scope: "col" }, text(value || "(none)"))));
  const body = rows.map((row) => {
    const boxes = columns.map((column) => element("td", {}, sweepCell(cells.get(JSON.stringify([column, row])) ?? [])));
    return element("tr", {}, element("th", { scope: "row" }, text(row || "(none)")), ...boxes);
  });
  const left = x[2].size - columns.length;
  const note = left > 0 ? [element("p", {}, `${count(left, "more value")} of ${x[0]}: filter to see them`)] : [];
  return element("div", { class: "table" }, ...note, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

/** Indexes by their values of two fields. */
function imagesBy(x, y) {
  const cells = new Map();
  for (let position = 0; position < grid.indexes.length; position++) {
    const index = grid.indexes.at(position);
    const chunk = own.chunks[own.numberOf(index)];
    if (!chunk) continue;
    const [column, row] = [x, y].map((field) => valueOf(chunk, index - chunk.first, field)).map((value) => (value === undefined ? "" : shown(value)));
    const key = JSON.stringify([column, row]);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(index);
  }
  return cells;
}

function sweepCell(indexes) {
  if (!indexes.length) return "";
  const image = element("div", { class: "image" });
  const number = indexes.length > 1 ? [element("small", {}, String(indexes.length))] : [];
  const cell = element("button", { class: "sweep-cell", onclick: () => openFull(indexes, 0) }, image, ...number);
  const row = own.row(indexes[0]);
  cell.setAttribute("aria-label", `Index ${indexes[0]}`);
  cell.style.width = cell.style.height = `${view.size}px`;
  if (row.state === "done") {
    cell.show = () => paint(image, own, row, view.size);
    whenSeen.observe(cell);
  } else cell.dataset.state = row.state;
  return cell;
}

const whenSeen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      target.show();
      whenSeen.unobserve(target);
    }
  },
  { rootMargin: "300px" },
);
