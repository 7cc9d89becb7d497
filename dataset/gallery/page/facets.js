// Filters: what the fields are among the images that were found, to click instead of to type.

const MOST_VALUES = 60;

function showFacets() {
  if ($("facets").hidden) return;
  const open = new Set([...$("facets").querySelectorAll("details[open]")].map((one) => one.dataset.field));
  const boxes = fieldsOf(own).map(([name, field]) => facet(name, field, open.has(name))).filter(Boolean);
  $("facets").replaceChildren(...boxes);
}

function facet(name, field, open) {
  const counts = valuesOf(own, field, grid.indexes, MOST_VALUES);
  const chosen = view.q.includes(quoted(name));
  if (counts && counts.size < 2 && !chosen) return null;
  const body = counts ? valueButtons(name, counts) : rangeInputs(name, field);
  if (!body) return null;
  const head = element("summary", {}, text(name));
  return element("details", { open: open || chosen || name === "state", "data-field": name }, head, ...body);
}

function valueButtons(name, counts) {
  return inOrder(counts.keys()).map((value) => {
    const term = condition(name, "=", value);
    const pressed = hasTerm(view.q, term);
    const label = [text(value === "" ? "(none)" : value), element("small", {}, counts.get(value).toLocaleString("en"))];
    return element("button", { "aria-pressed": String(pressed), onclick: () => search(toggled(view.q, term)) }, ...label);
  });
}

function rangeInputs(name, field) {
  const range = field.of === "own" && field.name === "prompt" ? null : rangeOf(own, field, grid.indexes);
  if (!range) return null;
  return [[">=", range[0]], ["<=", range[1]]].map(([operator, end]) => {
    const input = element("input", { type: "number", step: "any", placeholder: String(end), "aria-label": `${name} ${operator}` });
    input.addEventListener("change", () => input.value && search(`${view.q} ${condition(name, operator, input.value)}`.trim()));
    return element("label", {}, operator, input);
  });
}

const termTexts = (query) => [...query.matchAll(TERM)].map(([all]) => all);
const hasTerm = (query, term) => termTexts(query).includes(term);
const toggled = (query, term) =>
  (hasTerm(query, term) ? termTexts(query).filter((one) => one !== term) : [...termTexts(query), term]).join(" ");
