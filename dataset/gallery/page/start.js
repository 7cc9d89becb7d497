// What all other files use: elements, and where data comes in. Texts of users become text nodes, never HTML.

const $ = (id) => document.getElementById(id);

/** An element with attributes and children; a string among the children is text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A user's text, which keeps its direction to itself. */
const text = (value) => element("bdi", {}, value);

const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

/** The function, called once after calls have stopped for so many milliseconds. */
function settled(milliseconds, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}

/** The function, called once before the next frame. */
function framed(call) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      call();
    });
  };
}

/** Run a script; rejects where it is not there. Its data comes in through `promptmill`, below. */
function runScript(source, told) {
  return new Promise((done, failed) => {
    const script = element("script", { src: source });
    Object.assign(script.dataset, told);
    script.onload = () => (script.remove(), done());
    script.onerror = () => (script.remove(), failed(new Error(`${source} cannot be read`)));
    document.head.append(script);
  });
}
