// Runs, and their rows as they come in. dataset/gallery/rows.py says what a chunk holds.

const STATES = { d: "done", f: "failed", b: "broken", m: "missing" };
const OWN = ["prompt", "seed", "state", "index", "id"];

class Run {
  /** `at` is the gallery's folder, relative to this page: "" is this page's own. */
  constructor(at) {
    this.at = at;
    this.about = null;
    this.chunks = [];
    this.asked = new Map();
    this.fields = new Map(OWN.map((name) => [name, { name, of: "own" }]));
  }

  get rowsThere() {
    return this.chunks.reduce((sum, chunk) => sum + chunk.size, 0);
  }

  get whole() {
    return this.about !== null && this.rowsThere === this.about.jobs;
  }

  numberOf(index) {
    return Math.floor(index / this.about.chunk_rows);
  }

  get numbers() {
    return Math.ceil(this.about.jobs / this.about.chunk_rows);
  }

  /** Ask for a range of rows, once. */
  need(number) {
    if (!this.asked.has(number)) {
      const name = String(number).padStart(5, "0");
      this.asked.set(number, runScript(`${this.at}data/${name}.js`, { run: this.at, number }));
    }
    return this.asked.get(number);
  }

  take(number, digest, chunk) {
    chunk.digest = digest;
    chunk.size = chunk.ids.length;
    chunk.kinds = chunk.kinds.map((json) => ({ json, values: new Map(Object.entries(JSON.parse(json))) }));
    chunk.labels = chunk.labels.map((labels) => labels && new Map(Object.entries(labels)));
    chunk.scores = new Map(Object.entries(chunk.scores));
    this.chunks[number] = chunk;
    for (const kind of chunk.kinds) this.know(kind.values.keys(), "parameter");
    for (const labels of new Set(chunk.labels)) if (labels) this.know(labels.keys(), "label");
    this.know(chunk.scores.keys(), "score");
  }

  /** Fields by what a search calls them: a label that has a parameter's name is label.NAME. */
  know(names, of) {
    for (const name of names) {
      const full = of === "parameter" ? name : `${of}.${name}`;
      if (this.fields.has(full)) continue;
      this.fields.set(full, { name, of });
      if (of !== "parameter" && !this.fields.has(name)) this.fields.set(name, { name, of, also: full });
      if (of === "parameter" && this.fields.get(name).also) this.fields.set(name, { name, of });
    }
  }

  row(index) {
    const chunk = this.about && this.chunks[this.numberOf(index)];
    return chunk && new Row(chunk, index - chunk.first);
  }
}

class Row {
  constructor(chunk, at) {
    this.chunk = chunk;
    this.at = at;
  }

  get index() {
    return this.chunk.first + this.at;
  }
  get id() {
    return this.chunk.ids[this.at];
  }
  get prompt() {
    return this.chunk.prompts[this.at];
  }
  get seed() {
    return this.chunk.seeds[this.at];
  }
  get kind() {
    return this.chunk.kinds[this.chunk.kind[this.at]];
  }
  get labels() {
    return this.chunk.labels[this.at] ?? new Map();
  }
  get state() {
    return STATES[this.chunk.states[this.at]];
  }
  get more() {
    return this.chunk.more[this.at] ?? {};
  }
  /** The image's file, relative to the gallery's folder. Its parts are checked: they become an address. */
  get file() {
    const extension = /^[a-z]+$/.test(this.chunk.extension) ? this.chunk.extension : "png";
    return /^[0-9a-f]{32}$/.test(this.id) ? `../images/${this.id.slice(0, 2)}/${this.id}.${extension}` : "";
  }
}

/** A field of a row; undefined where the row has none. */
function valueOf(chunk, at, field) {
  if (field.of === "parameter") return chunk.kinds[chunk.kind[at]].values.get(field.name);
  if (field.of === "label") return chunk.labels[at]?.get(field.name);
  if (field.of === "score") return chunk.scores.get(field.name)?.[at] ?? undefined;
  return new Row(chunk, at)[field.name];
}

/** A value as people read it, and as searches compare it. */
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

const own = new Run("");
const runs = new Map([["", own]]);
const arrived = new Set(); // calls for whoever waits for rows

window.promptmill = {
  run(json) {
    const at = document.currentScript?.dataset.run ?? "";
    const run = runs.get(at);
    run.about = JSON.parse(json);
    run.aliases = new Map(Object.entries(run.about.aliases));
    if (at === "") start();
  },
  chunk(digest, json) {
    const { run, number } = document.currentScript.dataset;
    runs.get(run).take(Number(number), JSON.parse(digest), JSON.parse(json));
    for (const call of arrived) call(runs.get(run), Number(number));
  },
};
