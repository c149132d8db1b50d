// Tables whose rows stay while nothing in them changes, so that a selection, a focus and an open row survive a reading.
// Whatever came over the network is put in as text, never as markup.
export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const whole = new Intl.NumberFormat("en-US");
const exact = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });
export const rate = (value) => (value === null || value === undefined ? "" : `${exact.format(value)}/s`);

// A number keeps its exact value in `data-value`.
export function number(target, value) {
  target.textContent = whole.format(value);
  target.dataset.value = value;
}

// A time of today without its day.
export function clock(text) {
  if (!text) return "";
  const time = new Date(text);
  const day = time.toDateString() === new Date().toDateString() ? "" : `${time.toLocaleDateString("en-CA")} `;
  return day + time.toLocaleTimeString("en-GB");
}

// The clipboard is not there for a page that is neither of this host nor encrypted; a selection can be copied anywhere.
async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}

// A command with a button that copies it.
export function command(text) {
  const code = element("code", {}, text);
  const button = element("button", { class: "copy", type: "button", "aria-label": `copy: ${text}` }, "copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text, code)) ? "copied" : "selected";
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
  return element("span", { class: "command" }, code, button);
}

const opened = new Map();

// `columns`: head, class, and what a row has there: text, a number, or nodes. On a phone a row has two lines: the classes `a` and `b`
// are left and right in the first, `c` and `d` in the second, and a column without one is left out.
// `key`: what tells a row from the others. `more`: what is below a row that was opened.
export function table(id, columns, rows, empty, { key = JSON.stringify, more } = {}) {
  const target = $(id);
  const open = opened.get(id) ?? opened.set(id, new Set()).get(id);
  const kept = new Map([...target.querySelectorAll("tbody[data-key]")].map((body) => [body.dataset.key, body]));
  const heads = columns.map(([name]) => name).join("|");
  const focus = focused(target);
  const bodies = rows.map((row) => {
    const name = key(row);
    const signature = JSON.stringify([heads, open.has(name), new Date().toDateString(), row]);
    const old = kept.get(name);
    if (old?.signature === signature) return old;
    const body = element("tbody", { "data-key": name }, line(columns, row));
    body.signature = signature;
    if (more) unfold(body, open, name, () => detail(columns, more(row)));
    return body;
  });
  if (rows.length === 0) {
    const cell = element("td", { class: "empty", colspan: columns.length });
    cell.append(...(Array.isArray(empty) ? empty : [empty]));
    bodies.push(element("tbody", {}, element("tr", {}, cell)));
  }
  const head = element("tr");
  for (const [name, kind] of columns) head.append(element("th", { class: kind, scope: "col" }, name));
  target.className = "stack";
  const same = target.heads === heads && target.tHead;
  target.heads = heads;
  target.classList.toggle("none", rows.length === 0);
  replace(target, [same || element("thead", {}, head), ...bodies]);
  focus?.();
}

// Only what differs is moved: a node that is put where it is loses its selection.
function replace(target, wanted) {
  const kept = new Set(wanted);
  for (const child of [...target.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((node, at) => {
    if (target.children[at] !== node) target.insertBefore(node, target.children[at] ?? null);
  });
}

// Puts the focus back on the same control of the same row.
function focused(target) {
  const active = document.activeElement;
  const body = target.contains(active) ? active.closest("tbody[data-key]") : null;
  if (!body) return null;
  const at = [...body.querySelectorAll("button")].indexOf(active);
  return () => {
    if (document.activeElement === active) return;
    const same = [...target.querySelectorAll("tbody[data-key]")].find((one) => one.dataset.key === body.dataset.key);
    same?.querySelectorAll("button")[at]?.focus({ preventScroll: true });
  };
}

function line(columns, row) {
  const made = element("tr");
  for (const [name, kind, value] of columns) {
    const cell = element("td", { class: kind, "data-head": name });
    const shown = value(row, cell);
    if (typeof shown === "number") number(cell, shown);
    else if (Array.isArray(shown)) cell.append(...shown);
    else if (shown !== undefined && shown !== null) cell.append(shown);
    made.append(cell);
  }
  return made;
}

function detail(columns, content) {
  return element("tr", { class: "detail" }, element("td", { colspan: columns.length }, content));
}

// The first cell of a row opens what is below it; so does a click anywhere in the row that selects nothing.
function unfold(body, open, name, make) {
  const first = body.rows[0].cells[0];
  const button = element("button", { class: "open", type: "button", "aria-expanded": "false" }, ...first.childNodes);
  first.replaceChildren(button);
  const show = (is) => {
    button.setAttribute("aria-expanded", String(is));
    body.classList.toggle("opened", is);
    if (is) { body.append(make()); open.add(name); } else { body.rows[1]?.remove(); open.delete(name); }
  };
  body.rows[0].addEventListener("click", (event) => {
    if (event.target.closest(".copy") || (getSelection().toString() && event.target !== button)) return;
    show(button.getAttribute("aria-expanded") === "false");
  });
  if (open.has(name)) show(true);
}
