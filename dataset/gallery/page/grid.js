// The grid: as many cells as are seen, moved and filled anew while it scrolls.

const GAP = 8;
const CAPTION = 36;
const MOST_PIXELS = 8_000_000; // an element that is higher than some ten million is cut by browsers
const FAST = 4000; // pixels per second, beyond which sprites that pass are not asked for

const grid = {
  indexes: { length: 0, at: () => 0 },
  selected: 0,
  columns: 1,
  cells: [],
  fast: false,
  last: [0, 0],
};

/** All indexes of a run, without a list of them. */
const everyIndex = (jobs) => ({ length: jobs, at: (position) => position });

function showGrid(indexes) {
  grid.indexes = indexes;
  grid.selected = Math.max(0, Math.min(grid.selected, indexes.length - 1));
  layOut();
}

/** Where everything lies, after the window, the size or the images have changed. */
function layOut() {
  const box = $("grid");
  const first = grid.rowHeight ? Math.floor(top() / grid.rowHeight) * grid.columns : 0;
  const width = box.clientWidth - 2 * GAP;
  const images = view.compare ? 2 : 1;
  const asked = view.size * images;
  grid.columns = Math.max(1, Math.floor((width + GAP) / (asked + GAP)));
  grid.cellWidth = Math.floor((width + GAP) / grid.columns) - GAP;
  grid.side = Math.floor((grid.cellWidth - (images - 1) * 4) / images);
  grid.rowHeight = grid.side + CAPTION + GAP;
  grid.rows = Math.ceil(grid.indexes.length / grid.columns);
  grid.total = grid.rows * grid.rowHeight + GAP;
  $("height").style.height = `${Math.min(grid.total, MOST_PIXELS)}px`;
  scrollTo(Math.floor(first / grid.columns) * grid.rowHeight);
  for (const cell of grid.cells) cell.remove();
  grid.cells = [];
  draw();
}

/** How far the grid is scrolled, of its true height, and the other way round. */
const stretch = () => {
  const box = $("grid");
  const real = Math.min(grid.total, MOST_PIXELS) - box.clientHeight;
  return real > 0 ? Math.max(1, (grid.total - box.clientHeight) / real) : 1;
};
const top = () => $("grid").scrollTop * stretch();
const scrollTo = (pixels) => ($("grid").scrollTop = pixels / stretch());

function draw() {
  const box = $("grid");
  const from = top();
  const begin = Math.max(0, Math.floor(from / grid.rowHeight) - 1) * grid.columns;
  const rows = Math.ceil(box.clientHeight / grid.rowHeight) + 3;
  const slots = Math.min(rows * grid.columns, grid.indexes.length);
  while (grid.cells.length < slots) grid.cells.push(newCell());
  while (grid.cells.length > slots) grid.cells.pop().remove();
  const shift = box.scrollTop - from; // where the true height is more than a browser has
  for (let position = begin; position < begin + slots; position++) {
    const cell = grid.cells[position % slots];
    const row = Math.floor(position / grid.columns);
    const left = GAP + (position % grid.columns) * (grid.cellWidth + GAP);
    cell.style.transform = `translate(${left}px, ${GAP + row * grid.rowHeight + shift}px)`;
    fill(cell, position);
  }
}

function newCell() {
  const thumbs = view.compare ? [newThumb(), newThumb()] : [newThumb()];
  const caption = element("div", { class: "caption", dir: "auto" });
  const cell = element("div", { class: "cell", role: "option" }, element("div", { class: "pair" }, ...thumbs), caption);
  cell.style.width = `${grid.cellWidth}px`;
  cell.style.height = `${grid.rowHeight - GAP}px`;
  cell.thumbs = thumbs;
  cell.caption = caption;
  $("grid").append(cell);
  return cell;
}

function newThumb() {
  const image = element("div", { class: "image" });
  const thumb = element("div", { class: "thumb" }, image);
  thumb.style.width = thumb.style.height = `${grid.side}px`;
  thumb.image = image;
  return thumb;
}

/** Fill a cell, unless it shows just this already. */
function fill(cell, position) {
  const there = position < grid.indexes.length;
  const index = there ? grid.indexes.at(position) : -1;
  const [mine, other] = [there && own.row(index), there && view.compare && rival?.row(index)];
  const selected = there && position === grid.selected;
  const key = `${index} ${selected} ${Boolean(mine)} ${Boolean(other)} ${grid.fast}`;
  if (cell.key === key) return;
  cell.key = key;
  cell.hidden = !there;
  if (!there) return;
  cell.position = position;
  cell.id = `image-${index}`;
  cell.setAttribute("aria-selected", String(selected));
  if (selected) $("grid").setAttribute("aria-activedescendant", cell.id);
  cell.caption.textContent = mine ? `${index} ${mine.prompt.slice(0, 200)}` : String(index);
  cell.setAttribute("aria-label", cell.caption.textContent);
  cell.classList.toggle("differs", Boolean(mine && other && mine.prompt !== other.prompt));
  fillThumb(cell.thumbs[0], own, index);
  if (view.compare) fillThumb(cell.thumbs[1], rival, index);
}

function fillThumb(thumb, run, index) {
  const row = run?.about && index < run.about.jobs ? run.row(index) : undefined;
  if (run?.about && index < run.about.jobs && !row && !grid.fast) run.need(run.numberOf(index)).catch(tellProblem);
  thumb.className = `thumb ${row ? row.state : "unknown"}`;
  thumb.title = row?.more.reason ?? "";
  if (row?.state === "done" && !(grid.fast && !thumb.image.sprite?.ready)) paint(thumb.image, run, row, grid.side);
  else unpaint(thumb.image);
  thumb.dataset.state = row && row.state !== "done" ? row.state : "";
}

/** Move the selection to a position and bring it into view. */
function select(position) {
  if (!grid.indexes.length) return;
  grid.selected = Math.max(0, Math.min(position, grid.indexes.length - 1));
  const box = $("grid");
  const begin = Math.floor(grid.selected / grid.columns) * grid.rowHeight;
  if (begin < top()) scrollTo(begin);
  else if (begin + grid.rowHeight + GAP > top() + box.clientHeight) scrollTo(begin + grid.rowHeight + GAP - box.clientHeight);
  draw();
}

const drawSoon = framed(draw);

const scrollEnded = settled(90, () => {
  grid.fast = false;
  draw();
});

function scrolled() {
  const [time, from] = [performance.now(), top()];
  const [before, was] = grid.last;
  grid.last = [time, from];
  grid.fast = Math.abs(from - was) / Math.max(time - before, 1) > FAST / 1000;
  drawSoon();
  scrollEnded();
}

/** Keys that move the selection, by what they add. */
const MOVES = {
  ArrowLeft: () => -1,
  ArrowRight: () => 1,
  ArrowUp: () => -grid.columns,
  ArrowDown: () => grid.columns,
  PageUp: () => -grid.columns * Math.max(1, Math.floor($("grid").clientHeight / grid.rowHeight)),
  PageDown: () => grid.columns * Math.max(1, Math.floor($("grid").clientHeight / grid.rowHeight)),
  Home: () => -Infinity,
  End: () => Infinity,
};
