// What the user sees and asked for, in the address behind #, so that it can be sent to others and gone back to.

const READ_AHEAD = 4; // files at once
const READ_ALL = 300_000; // images, up to which all rows are read without being asked for

const view = { q: "", x: "", y: "", sweep: false, compare: false, size: 144 };
let rival = null; // the run to compare with

function start() {
  const { run, compare } = own.about;
  document.title = `${run} - promptmill`;
  $("run").replaceChildren(text(run));
  if (compare.length) {
    rival = new Run(compare[0].at);
    runs.set(rival.at, rival);
    $("compare").hidden = false;
    $("compare").title = `Compare with ${compare[0].run} (c)`;
  }
  view.size = innerWidth < 600 ? 104 : 144;
  listen();
  arrived.add(rowsArrived);
  readAddress();
  if (own.about.jobs <= READ_ALL || view.q) readAll(own);
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const was = $("full").open;
  Object.assign(view, { q: asked.get("q") ?? "", x: asked.get("x") ?? view.x, y: asked.get("y") ?? view.y });
  $("query").value = view.q;
  setCompare(asked.get("compare") === "1");
  setSweep(asked.get("sweep") === "1");
  searchNow();
  const index = Number(asked.get("i") ?? NaN);
  if (index >= 0 && index < own.about.jobs) openAt(index);
  else if (was) $("full").close();
}

function openAt(index) {
  if ($("full").open && full.indexes.at(full.position) === index) return;
  if (view.q === "") {
    select(index);
    openFull(grid.indexes, index);
  } else openFull({ length: 1, at: () => index }, 0);
}

/** Keep what was asked for in the address. */
function remember(changes) {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) value ? asked.set(name, value) : asked.delete(name);
  history.replaceState(null, "", `#${asked}`);
}

function search(query) {
  view.q = query.trim();
  if ($("query").value.trim() !== view.q) $("query").value = view.q;
  remember({ q: view.q });
  if (view.q) readAll(own);
  $("grid").scrollTop = 0;
  grid.selected = 0;
  searchNow();
}

function searchNow() {
  showGrid(view.q === "" ? everyIndex(own.about.jobs) : found(own, view.q));
  tell();
  showFacets();
  showSweep();
}

/** Words above the grid: how many images, and how much is read. */
function tell() {
  const all = count(own.about.jobs, "image");
  const read = own.whole || (view.q === "" && own.about.jobs > READ_ALL) ? "" : `, ${own.rowsThere.toLocaleString("en")} read`;
  $("told").textContent = view.q === "" ? all + read : `${grid.indexes.length.toLocaleString("en")} of ${all}${read}`;
}

function tellProblem(error) {
  $("told").textContent = String(error.message);
}

/** Read all rows of a run, a few files at a time. */
async function readAll(run) {
  if (run.reading) return;
  run.reading = true;
  let next = 0;
  const reader = async () => {
    while (next < run.numbers) await run.need(next++).catch(tellProblem);
  };
  await Promise.all(Array.from({ length: READ_AHEAD }, reader));
}

const searchSoon = settled(200, searchNow);

function rowsArrived(run) {
  drawSoon();
  if (run !== own) return;
  if (own.whole) searchNow();
  else if (view.q !== "") searchSoon();
  else tell();
}

function setSweep(on) {
  if (on) readAll(own);
  view.sweep = on;
  $("sweep-button").setAttribute("aria-pressed", String(on));
  $("grid").hidden = on;
  $("sweep").hidden = !on;
  remember({ sweep: on ? "1" : "" });
}

function setCompare(on) {
  view.compare = on && rival !== null;
  $("compare").setAttribute("aria-pressed", String(view.compare));
  remember({ compare: view.compare ? "1" : "" });
  if (view.compare) rival.ready ??= runScript(`${rival.at}run.js`, { run: rival.at }).then(layOut, tellProblem);
}

function setFacets(on) {
  if (on) readAll(own);
  $("facets").hidden = !on;
  $("filters").setAttribute("aria-expanded", String(on));
  showFacets();
  layOut();
}

function setSize(size) {
  view.size = Math.max(72, Math.min(320, size));
  $("size").value = view.size;
  layOut();
  showSweep();
}

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const root = document.documentElement;
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
}

const ACTIONS = {
  "/": () => ($("query").focus(), $("query").select()),
  f: () => setFacets($("facets").hidden),
  x: () => (setSweep(!view.sweep), searchNow()),
  c: () => (setCompare(!view.compare), searchNow()),
  t: toggleTheme,
  "+": () => setSize(view.size + 24),
  "=": () => setSize(view.size + 24),
  "-": () => setSize(view.size - 24),
  "?": () => $("keys").showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if ($("full").open) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by && !event.target.closest("pre")) (event.preventDefault(), stepFull(by));
    return;
  }
  if (event.target.closest("input, select")) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target === $("query"))) $("grid").focus();
    return;
  }
  if (ACTIONS[event.key]) (event.preventDefault(), ACTIONS[event.key]());
  else if (view.sweep || event.target.closest("button, summary")) return;
  else if (MOVES[event.key]) (event.preventDefault(), select(grid.selected + MOVES[event.key]()));
  else if (event.key === "Enter" && grid.indexes.length) (event.preventDefault(), openFull(grid.indexes, grid.selected));
}

function listen() {
  $("grid").addEventListener("scroll", scrolled, { passive: true });
  $("grid").addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    select(cell.position);
    openFull(grid.indexes, cell.position);
  });
  $("query").addEventListener("input", settled(150, () => search($("query").value)));
  $("size").addEventListener("input", () => setSize(Number($("size").value)));
  for (const [id, key] of [["filters", "f"], ["sweep-button", "x"], ["compare", "c"], ["theme", "t"], ["help", "?"]]) {
    $(id).addEventListener("click", ACTIONS[key]);
  }
  $("full").addEventListener("close", () => (remember({ i: "" }), $("grid").focus()));
  $("full").addEventListener("click", (event) => event.target === $("full") && $("full").close());
  swipes($("full"));
  document.addEventListener("keydown", pressed);
  addEventListener("hashchange", readAddress);
  new ResizeObserver(framed(layOut)).observe($("grid"));
}

/** A finger that moves sideways goes to the next image. */
function swipes(box) {
  let begin = null;
  box.addEventListener("touchstart", ({ touches: [touch, second] }) => (begin = second ? null : touch), { passive: true });
  box.addEventListener("touchend", ({ changedTouches: [touch] }) => {
    if (!begin) return;
    const [x, y] = [touch.clientX - begin.clientX, touch.clientY - begin.clientY];
    if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) stepFull(x < 0 ? 1 : -1);
  });
}
