// The page reads the API every five seconds and shows it. Whatever came over the network is put in as text, never as markup.
const REFRESH_MS = 5000;
const SLICES = 7;
const OTHERS = "#a0a4ab";
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
// What is tallied of senders, by the words of the API.
const TALLIED = { messages: "messages", register: "REGISTER", invite: "INVITE", connections: "connections" };
let hours = 1;
let tallied = "messages";

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(tag, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3, notation: "compact" });
const ends = (address, port) => (address === null ? "?" : port ? (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`) : address);

function clock(text) {
  if (!text) return "";
  const time = new Date(text);
  const day = time.toDateString() === new Date().toDateString() ? "" : `${time.toLocaleDateString("en-CA")} `;
  return day + time.toLocaleTimeString("en-GB");
}

// A number keeps its exact value in `data-value`.
function number(target, value) {
  target.textContent = whole.format(value);
  target.dataset.value = value;
}

// `columns`: head, class, and what a row has there: text, a number, or nodes.
function table(id, columns, rows, empty) {
  const target = $(id);
  target.className = "stack";
  const head = element("tr");
  for (const [name, kind] of columns) head.append(element("th", { class: kind, scope: "col" }, name));
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    for (const [name, kind, value] of columns) {
      const cell = element("td", { class: kind, "data-head": name });
      const shown = value(row, cell);
      if (typeof shown === "number") number(cell, shown);
      else if (shown !== undefined && shown !== null) cell.append(shown);
      line.append(cell);
    }
    body.append(line);
  }
  if (rows.length === 0) body.append(element("tr", {}, element("td", { class: "empty", colspan: columns.length }, empty)));
  target.replaceChildren(element("thead", {}, head), body);
}

const stops = (row) => row.action !== "pass";
const marked = (value, cell) => {
  if (value > 0) cell.classList.add("bad");
  return value;
};

function showStatus(status) {
  const mode = $("mode");
  const attached = status.attached;
  mode.textContent = attached ? status.mode : "not attached";
  mode.className = `badge ${attached ? (status.mode === "enforce" ? "good" : "warn") : "bad"}`;
  for (const id of ["received", "dropped", "would_drop"]) number($(id), status[`${id}_packets`] ?? 0);
  // Null where the connections are not this host's own: their sockets are elsewhere.
  if (attached && status.connections === null) $("connections").textContent = "unknown";
  else number($("connections"), status.connections ?? 0);
  $("connections").title = attached ? `flow table: ${whole.format(status.flows)} of ${whole.format(status.flows_max)}` : "";
  $("dropped").classList.toggle("bad", (status.dropped_packets ?? 0) > 0);
  $("version").textContent = status.version ? `sipguard ${status.version}` : "";
  table("interfaces", [
    ["interface", "name", (row) => row.interface],
    ["driver", "", (row) => row.driver],
    ["XDP", "", (row) => row.mode + (row.why ? ` (${row.why})` : "")],
    ["attached", "time", (row) => clock(row.attached_at)],
    ["received", "number", (row) => row.received_packets],
    ["dropped", "number", (row, cell) => marked(row.dropped_packets, cell)],
    ["would drop", "number", (row) => row.would_drop_packets],
  ], status.interfaces ?? [], "The guard is attached to no interface: nothing is filtered.");
}

function showCounters(counters) {
  const rows = new Map();
  for (const row of (counters.rows ?? []).filter(stops)) {
    const key = `${row.reason} ${row.action}`;
    const sum = rows.get(key) ?? { ...row, packets: 0 };
    sum.packets += row.packets;
    rows.set(key, sum);
  }
  const sorted = [...rows.values()].sort((a, b) => b.packets - a.packets);
  table("reasons", [
    ["reason", "name", (row, cell) => { cell.title = row.text; return row.reason; }],
    ["what became of it", "", (row) => row.action],
    ["packets", "number", (row) => row.packets],
  ], sorted, "Nothing was stopped.");
}

function showTrunks(trunks) {
  table("trunks", [
    ["trunk", "name", (row, cell) => { cell.title = `${row.comment} ${row.peers.join(", ")}`; return row.trunk; }],
    ["may use", "", (row) => row.transports],
    ["received", "number", (row) => row.received_packets],
    ["dropped", "number", (row, cell) => marked(row.dropped_packets, cell)],
    ["would drop", "number", (row) => row.would_drop_packets],
    ["why", "", (row) => [...row.stopped, ...row.would_stop].map((one) => `${one.reason} ${whole.format(one.packets)} (${one.action})`).join(", ")],
  ], trunks.rows ?? [], "There are no trunks.");
}

// `kind`: by what the rows are sorted.
function showSenders(senders, kind) {
  // Another one was chosen meanwhile.
  if (kind !== tallied) return;
  const lately = Object.entries(TALLIED).map(([key, name]) => [`${name}, 10 s`, key === kind ? "number chosen" : "number", (row) => row.last_10_seconds[key]]);
  table("senders", [
    ["sender", "name", (row) => row.source ?? `trunk ${row.trunk}`],
    ...lately,
    [`${TALLIED[kind]} since the attach`, "number", (row) => row.total[kind]],
  ], senders.rows ?? [], senders.rows ? "Nobody has sent anything that is tallied." : "The guard is not attached: nothing is tallied.");
}

function showOffenders(offenders) {
  table("offenders", [
    ["address", "name", (row) => row.src_ip],
    ["reason", "name", (row) => row.reasons.map((one) => one.reason).join(", ")],
    ["packets", "number", (row) => row.packets],
    ["ports", "number", (row) => row.ports_seen],
    ["last seen", "time", (row) => clock(row.last_seen_at)],
    ["user agent", "name", (row) => row.user_agent ?? row.from ?? ""],
    ["line at fault", "bytes", (row) => row.fault?.line ?? ""],
  ], (offenders.rows ?? []).slice(0, 20), "Nobody.");
}

function showEvents(events) {
  table("events", [
    ["time", "time", (row) => clock(row.seen_at)],
    ["source", "name", (row) => ends(row.src_ip, row.src_port)],
    ["trunk", "", (row) => row.trunk ?? ""],
    ["reason", "name", (row, cell) => { cell.title = row.text; return row.reason; }],
    ["action", "", (row) => row.action],
    ["packets", "number", (row) => row.packets],
    ["bytes", "bytes", (row) => row.sample],
  ], (events.rows ?? []).slice(0, 30), "None yet.");
}

function showBlocks(blocks) {
  number($("blocked"), blocks.total ?? 0);
  table("blocks", [
    ["who", "name", (row) => row.target],
    ["how", "", (row) => (row.rule === "ban" ? "ban" : row.mode)],
    ["why", "", (row) => row.comment],
    ["by", "", (row) => (row.author ? `${row.origin} (${row.author})` : row.origin)],
    ["until", "time", (row) => (row.expires_at ? clock(row.expires_at) : "permanent")],
  ], (blocks.rows ?? []).slice(0, 50), "Nobody is blocked.");
}

// One line for each name; null where nobody watched, in any of what is added up.
function sums(history, kind, wanted) {
  const lines = new Map();
  for (const one of history.series) {
    if (one.kind !== kind || !wanted(one)) continue;
    const name = one.what === "received" ? one.name : one.reason;
    const line = lines.get(name);
    lines.set(name, one.packets_per_second.map((rate, at) => (line ? (rate === null ? null : (line[at] ?? 0) + rate) : rate)));
  }
  return [...lines].map(([name, rates]) => ({ name, rates, total: rates.reduce((sum, rate) => sum + (rate ?? 0), 0) })).sort((a, b) => b.total - a.total);
}

function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

// A colour belongs to a name, so that it stays when the order changes: the place of a reason among all of them, or a sum over the letters.
function colour(name, reasons) {
  const place = reasons.indexOf(name);
  const number = place >= 0 ? place : [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 997, 0);
  // Steps of the golden angle keep neighbours apart.
  return `hsl(${Math.round(number * 137.508) % 360} 55% ${[44, 58, 34][number % 3]}%)`;
}

// Areas one upon the other. What was not watched is hatched out, not drawn as zero.
function plot(id, history, lines, reasons) {
  const [width, height] = [600, 180];
  const points = history.watched_ms.length;
  const watched = history.watched_ms.map((ms) => ms > 0);
  const shown = lines.slice(0, SLICES);
  if (lines.length > SLICES) {
    const rest = lines.slice(SLICES);
    shown.push({ name: "others", rates: watched.map((_, at) => rest.reduce((sum, line) => sum + (line.rates[at] ?? 0), 0)) });
  }
  const fills = shown.map((line, index) => (index < SLICES ? colour(line.name, reasons) : OTHERS));
  const base = new Array(points).fill(0);
  const highest = Math.max(...base.map((_, at) => shown.reduce((sum, line) => sum + (line.rates[at] ?? 0), 0)), 0);
  const top = highest > 0 ? round(highest) : 1;
  const x = (at) => (width * at) / points;
  const y = (rate) => height * (1 - rate / top);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
  svg.append(shape("title", {}, shown.length ? shown.map((line) => line.name).join(", ") : "nothing"));
  for (const part of [0, 0.5, 1]) {
    svg.append(shape("line", { class: "grid", x1: 0, x2: width, y1: y(top * part), y2: y(top * part) }));
  }
  for (const [from, to] of runs(watched, false)) {
    svg.append(shape("rect", { class: "gap", x: x(from), width: x(to) - x(from), y: 0, height }));
  }
  shown.forEach((line, index) => {
    const upper = base.map((low, at) => low + (line.rates[at] ?? 0));
    for (const [from, to] of runs(watched, true)) {
      const path = [];
      for (let at = from; at < to; at++) path.push(`${x(at)},${y(upper[at])}`, `${x(at + 1)},${y(upper[at])}`);
      for (let at = to - 1; at >= from; at--) path.push(`${x(at + 1)},${y(base[at])}`, `${x(at)},${y(base[at])}`);
      svg.append(shape("polygon", { points: path.join(" "), fill: fills[index], "fill-opacity": 0.85 }));
    }
    upper.forEach((rate, at) => { base[at] = rate; });
  });
  const axis = element("div", { class: "axis" });
  const caption = element("figcaption");
  const time = (at) => new Date(Date.parse(history.begins_at) + at * history.step_seconds * 1000);
  const label = (at) => (hours > 24 ? time(at).toLocaleDateString("en-CA") : time(at).toLocaleTimeString("en-GB").slice(0, 5));
  const scale = element("div", { class: "scale" }, ...[top, top / 2, 0].map((rate) => element("span", {}, short.format(rate))));
  const times = element("div", { class: "times" }, ...[0, points / 2, points].map((at) => element("span", {}, label(at))));
  shown.forEach((line, index) => {
    const swatch = element("i", { class: "swatch" });
    swatch.style.background = fills[index];
    caption.append(element("span", {}, swatch, line.name));
  });
  if (watched.includes(false)) {
    const swatch = element("i", { class: "swatch" });
    swatch.style.background = "var(--line)";
    caption.append(element("span", {}, swatch, "not watched"));
  }
  axis.append(scale, svg);
  $(id).replaceChildren(axis, times, caption);
}

// Ranges of positions at which `list` has `value`.
function runs(list, value) {
  const found = [];
  for (let at = 0; at < list.length; at++) {
    if (list[at] !== value) continue;
    if (found.length && found.at(-1)[1] === at) found.at(-1)[1] = at + 1;
    else found.push([at, at + 1]);
  }
  return found;
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `${path}: ${answer.status}`);
  return value;
}

const parts = (kind) => [
  ["api/status", showStatus], ["api/counters", showCounters], ["api/trunks", showTrunks],
  [`api/senders?of=${kind}`, (senders) => showSenders(senders, kind)], ["api/offenders", showOffenders],
  ["api/events", showEvents], ["api/blocks", showBlocks],
];

async function refresh() {
  const errors = [];
  const asked = parts(tallied);
  const attempt = async (path, show) => {
    try {
      show(await get(path));
    } catch (error) {
      errors.push(error instanceof TypeError ? "sipguard serve does not answer; the guard filters all the same." : error.message);
    }
  };
  for (const [path, show] of asked) await attempt(path, show);
  await attempt(`api/history?hours=${hours}`, (history) => {
    const of = (what) => sums(history, "interface", (one) => one.what === what);
    plot("traffic", history, of("received"), []);
    plot("stopped", history, of("dropped"), history.reasons);
    const monitored = of("would-drop");
    $("monitored-plot").hidden = monitored.length === 0;
    plot("monitored", history, monitored, history.reasons);
  });
  $("error").hidden = errors.length === 0;
  $("error").textContent = [...new Set(errors)].join(" ");
  if (errors.length < asked.length) $("age").textContent = `as of ${new Date().toLocaleTimeString("en-GB")}`;
  document.body.dataset.ready = String(Number(document.body.dataset.ready ?? 0) + 1);
}

// One button of several is pressed: the first one at the beginning. `choose` takes what its attribute `data-` and `name` says.
function choice(name, choose) {
  const buttons = document.querySelectorAll(`button[data-${name}]`);
  const press = (button) => {
    choose(button.dataset[name]);
    for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
  };
  press(buttons[0]);
  for (const button of buttons) button.addEventListener("click", () => { press(button); refresh(); });
}
choice("hours", (said) => { hours = Number(said); });
choice("of", (said) => { tallied = said; });
// One after the other, so that a slow answer is not asked for twice.
for (;;) {
  await refresh();
  await new Promise((wake) => setTimeout(wake, document.hidden ? REFRESH_MS * 6 : REFRESH_MS));
}
