// What the values of a field are, among images that were found: for filters and for the axes of X/Y grids.

/** The fields of a run, each once: [name in a search, field]. */
function fieldsOf(run) {
  const names = [...run.fields].filter(([name, field]) => name !== "index" && name !== "id" && !(field.of !== "parameter" && field.of !== "own" && run.fields.get(field.name)?.also === name));
  return names.sort(([, a], [, b]) => ORDER.indexOf(a.of) - ORDER.indexOf(b.of));
}

const ORDER = ["own", "label", "score", "parameter"];

/** How often a field has each value among these indexes; null where there are more than `most` of them. */
function valuesOf(run, field, indexes, most) {
  const counts = new Map();
  for (let position = 0; position < indexes.length; position++) {
    const index = indexes.at(position);
    const chunk = run.chunks[run.numberOf(index)];
    if (!chunk) continue;
    const value = valueOf(chunk, index - chunk.first, field);
    const key = value === undefined ? "" : shown(value);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    if (counts.size > most) return null;
  }
  return counts;
}

/** Values in the order that people expect: numbers by size, then texts. */
function inOrder(values) {
  const number = (value) => (value.trim() === "" ? NaN : Number(value));
  return [...values].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x === x && y === y) return x - y;
    return x === x ? -1 : y === y ? 1 : a < b ? -1 : a > b ? 1 : 0;
  });
}

/** The least and the greatest number of a field; null where it has none. */
function rangeOf(run, field, indexes) {
  let [least, greatest] = [Infinity, -Infinity];
  for (let position = 0; position < indexes.length; position++) {
    const index = indexes.at(position);
    const chunk = run.chunks[run.numberOf(index)];
    const value = chunk ? numberOf(valueOf(chunk, index - chunk.first, field)) : NaN;
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return least <= greatest ? [least, greatest] : null;
}
