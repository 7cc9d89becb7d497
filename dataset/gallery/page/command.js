// The command that renders an image again: its job as a line of JSON, for a shell.

// Controls, and marks that turn text round: a shell would take some, a reader be deceived by others.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

const escaped = (json) => json.replace(UNSEEN, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);

/** A job's fields as JSON. The seed is put in as text, since JavaScript's numbers end at 2^53. */
function jobJson(row) {
  const rest = row.kind.json.slice(1);
  return escaped(`{"prompt":${JSON.stringify(row.prompt)},"seed":${row.seed}${rest === "}" ? "" : ","}${rest}`);
}

const forShell = (word) => `'${word.replaceAll("'", "'\\''")}'`;

const commandFor = (row) =>
  `printf '%s\\n' ${forShell(jobJson(row))} | promptmill render - --format jsonl --plain-prompts --output again`;
