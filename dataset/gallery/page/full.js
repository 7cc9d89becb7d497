// One image as it is, with all that is known of it; with a second run, both side by side.

const SMALLEST = 512; // pixels, to which small images grow

const full = { indexes: { length: 0, at: () => 0 }, position: 0 };

function openFull(indexes, position) {
  full.indexes = indexes;
  full.position = position;
  showFull();
}

function stepFull(by) {
  const next = full.position + by;
  if (next < 0 || next >= full.indexes.length) return;
  full.position = next;
  if (full.indexes === grid.indexes) select(next);
  showFull();
}

async function showFull() {
  const index = full.indexes.at(full.position);
  if (view.compare) await rival.ready;
  const asked = shownRuns().map((run) => run.need(run.numberOf(index)).catch(tellProblem));
  if (!shownRuns().every((run) => run.row(index))) await Promise.all(asked);
  if (index !== full.indexes.at(full.position)) return; // the user went on meanwhile
  const rows = shownRuns().map((run) => [run, run.row(index)]).filter(([, row]) => row);
  if (!rows.length) return;
  $("full").replaceChildren(headOf(index), element("div", { class: "images" }, ...rows.map(bigImage)), detailsOf(rows));
  if (!$("full").open) $("full").showModal();
  $("full").scrollTop = 0;
  remember({ i: String(index) });
}

/** This run, and the one beside it where it has the index. */
const shownRuns = () => {
  const index = full.indexes.at(full.position);
  return [own, ...(view.compare && rival?.about && index < rival.about.jobs ? [rival] : [])];
};

function headOf(index) {
  const button = (label, title, onclick) => element("button", { title, "aria-label": title, onclick }, label);
  return element(
    "div",
    { class: "head" },
    button("\u2039", "Previous", () => stepFull(-1)),
    element("b", {}, `${index}`),
    element("span", {}, `${(full.position + 1).toLocaleString("en")} of ${full.indexes.length.toLocaleString("en")}`),
    button("\u203a", "Next", () => stepFull(1)),
    button("\u00d7", "Close", () => $("full").close()),
  );
}

function bigImage([run, row]) {
  const caption = element("figcaption", {}, view.compare ? text(run.about.run) : "");
  if (row.state !== "done") {
    const reason = element("p", { class: "reason", dir: "auto" }, `${row.state}${row.more.reason ? `: ${row.more.reason}` : ""}`);
    return element("figure", {}, reason, caption);
  }
  const source = `${run.at}${row.file}?${row.chunk.digest}`; // another address where the image is another one
  const image = element("img", { src: source, alt: row.prompt });
  image.style.maxWidth = `${Math.max(row.kind.values.get("width"), SMALLEST)}px`;
  image.addEventListener("error", () => image.replaceWith(element("p", { class: "reason" }, ...unreadable(row, source))));
  return element("figure", {}, element("a", { href: source, target: "_blank", rel: "noopener" }, image), caption);
}

/** Why an image is not to be seen, as children of an element. */
function unreadable(row, source) {
  if (row.chunk.extension !== "jxl") return [`${row.file} cannot be read`];
  const link = element("a", { href: source, download: "" }, row.file);
  return [link, " cannot be shown: it is damaged, or this browser shows no JPEG XL, of which `promptmill gallery --serve` gives it a WebP."];
}

/** A line per thing that is known, with a value per run; what differs is marked. */
function detailsOf(rows) {
  const known = rows.map(([, row]) => allOf(row));
  const names = [...new Set(known.flatMap((one) => [...one.keys()]))];
  const lines = names.map((name) => {
    const values = known.map((one) => one.get(name));
    const differs = values.some((value) => value !== values[0]);
    const cells = values.map((value) => element("td", {}, value === undefined ? "" : text(value)));
    return element("tr", { class: differs ? "differs" : null }, element("th", { scope: "row" }, text(name)), ...cells);
  });
  const commands = rows.map(([, row]) => commandBox(row));
  return element("div", { class: "details" }, element("table", {}, element("tbody", {}, ...lines)), ...commands);
}

/** All that is known of a row, as texts by name. */
function allOf(row) {
  const parts = [["prompt", row.prompt], ["seed", row.seed], ...row.kind.values, ["state", row.state], ["id", row.id]];
  for (const [name, value] of row.labels) parts.push([`label.${name}`, value]);
  for (const [name, column] of row.chunk.scores) parts.push([`score.${name}`, column[row.at] ?? "none"]);
  for (const [name, value] of Object.entries(row.more)) parts.push([name, value]);
  return new Map(parts.map(([name, value]) => [name, shown(value)]));
}

function commandBox(row) {
  const command = commandFor(row);
  const box = element("pre", { tabindex: "0" }, command);
  const copy = element("button", { onclick: () => copyText(command, box, copy) }, "Copy");
  return element("div", { class: "command" }, element("h3", {}, "Render it again"), copy, box);
}

async function copyText(command, box, button) {
  try {
    await navigator.clipboard.writeText(command);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(box); // where a page may not write there: Ctrl-C does
    button.textContent = "Press Ctrl-C";
  }
}
