// The search: words that prompts contain, and conditions on fields. index.html lists the forms.

const TERM = /(-?)(?:("(?:[^"\\]|\\.)*"|[^\s":<>=!]+)(>=|<=|!=|[:=<>]))?("(?:[^"\\]|\\.)*"?|[^\s"]+)/gsu;

const unquoted = (word) => (word.startsWith('"') ? word.slice(1).replace(/"$/u, "").replace(/\\(.)/gsu, "$1") : word);

/** A word as it may stand in a search. */
const quoted = (word) => (/^[^\s":<>=!\-\\][^\s":<>=!\\]*$/u.test(word) ? word : `"${word.replace(/[\\"]/gu, "\\$&")}"`);

/** A condition as it may stand in a search. */
const condition = (name, operator, value) => `${quoted(name)}${operator}${/^[^\s"\\]+$/u.test(value) ? value : quoted(value)}`;

/** The terms of a search. What looks like a condition on a field that there is not, is text: `http://...`. */
function termsOf(search, fields, aliases) {
  return [...search.matchAll(TERM)].map(([all, minus, name, operator, value]) => {
    const field = name === undefined ? undefined : (fields.get(unquoted(name)) ?? fields.get(aliases.get(unquoted(name))));
    if (field) return { not: minus !== "", field, operator, value: unquoted(value) };
    return { not: minus !== "", word: unquoted(all.slice(minus.length)).toLowerCase() };
  });
}

const OPERATORS = {
  ":": (value, wanted) => typeof value === "string" ? value.toLowerCase().includes(wanted.toLowerCase()) : is(value, wanted),
  "=": is,
  "!=": (value, wanted) => !is(value, wanted),
  ">": (value, wanted) => numberOf(value) > Number(wanted),
  "<": (value, wanted) => numberOf(value) < Number(wanted),
  ">=": (value, wanted) => numberOf(value) >= Number(wanted),
  "<=": (value, wanted) => numberOf(value) <= Number(wanted),
};

const numberOf = (value) => (typeof value === "number" || (typeof value === "string" && value.trim()) ? Number(value) : NaN);

function is(value, wanted) {
  if (value === undefined) return wanted === "";
  return shown(value) === wanted || (typeof value === "number" && wanted.trim() !== "" && value === Number(wanted));
}

/** A function of (chunk, place in it) that says whether all terms hold. */
function matcher(terms) {
  const tests = terms.map((term) => {
    const test = term.field ? fieldTest(term) : (chunk, at) => lowered(chunk)[at].includes(term.word);
    return term.not ? (chunk, at) => !test(chunk, at) : test;
  });
  return (chunk, at) => tests.every((test) => test(chunk, at));
}

function fieldTest({ field, operator, value: wanted }) {
  const holds = OPERATORS[operator];
  return (chunk, at) => {
    const value = valueOf(chunk, at, field);
    return (value !== undefined || operator === "=" || operator === "!=") && holds(value, wanted);
  };
}

/** The chunk's prompts in small letters, made at the first search. */
function lowered(chunk) {
  chunk.lowered ??= chunk.prompts.map((prompt) => prompt.toLowerCase());
  return chunk.lowered;
}

/** The indexes of a run's rows for which a search holds, among those that are there. */
function found(run, search) {
  const holds = matcher(termsOf(search, run.fields, run.aliases));
  const indexes = [];
  for (const chunk of run.chunks) {
    if (!chunk) continue;
    for (let at = 0; at < chunk.size; at++) if (holds(chunk, at)) indexes.push(chunk.first + at);
  }
  return indexes;
}
