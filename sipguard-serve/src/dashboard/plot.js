// The plot: a line for each cause, whole where packets were stopped, dashed where they would have been.
import { $, element, rate } from "./table.js";

// The order of the legend. Their colours are in the style sheet: `--malformed` and so on.
export const CAUSES = ["malformed", "blocked", "limited", "denied", "transport"];
const HEIGHT = 240;
const DASH = [6, 4];
const hidden = new Set();
let drawn = null;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const two = (value) => String(value).padStart(2, "0");
const hour = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
const day = (date) => date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" });

// Sums of the interfaces by cause. Null where nobody watched.
function sums(history) {
  const lines = new Map();
  for (const one of history.series) {
    if (one.kind !== "interface" || one.what === "received") continue;
    const key = `${one.what} ${one.cause ?? "transport"}`;
    const line = lines.get(key);
    lines.set(key, one.packets_per_second.map((value, at) => (line && value !== null ? (line[at] ?? 0) + value : value)));
  }
  return lines;
}

// Columns of uPlot, from where data starts, and what each of them is.
function columns(history, mode) {
  const watched = history.watched_ms;
  const first = watched.findIndex((ms) => ms > 0);
  if (first < 0) return null;
  const last = watched.findLastIndex((ms) => ms > 0);
  const lines = sums(history);
  const usual = mode === "monitor" ? "would-drop" : "dropped";
  const begin = Date.parse(history.begins_at) / 1000;
  const times = [];
  for (let at = first; at <= last + 1; at++) times.push(begin + at * history.step_seconds);
  const shown = [];
  for (const what of ["dropped", "would-drop"]) {
    for (const cause of CAUSES) {
      const rates = lines.get(`${what} ${cause}`);
      // The four of the mode are always there, so that the legend stands still; the rest where there is any.
      if (!rates && (what !== usual || cause === "transport")) continue;
      const values = (rates ?? watched.map((ms) => (ms > 0 ? 0 : null))).slice(first, last + 1);
      // A step ends where the next one begins.
      shown.push({ what, cause, values: [...values, values.at(-1)] });
    }
  }
  return { times, shown, step: history.step_seconds };
}

const name = ({ what, cause }, mode) => (what === "would-drop" && mode !== "monitor" ? `${cause}, let pass` : cause);

// Whole numbers and their tenths; no more than a few.
const values = (_, splits) => splits.map((value) => (value >= 1000 ? `${value / 1000} k` : String(Number(value.toPrecision(6)))));

// The hour; the day where it changes, or where hours do not matter.
function times(_, splits, __, ___, step) {
  const time = (date) => (step < 60 ? `${hour(date)}:${two(date.getSeconds())}` : hour(date));
  let before = "";
  return splits.map((seconds) => {
    const date = new Date(seconds * 1000);
    const own = day(date);
    const text = step >= 86400 ? own : own === before || before === "" ? time(date) : `${time(date)}\n${own}`;
    before = own;
    return text;
  });
}

function zone() {
  const minutes = -new Date().getTimezoneOffset();
  const part = Math.abs(minutes);
  return minutes === 0 ? "UTC" : `UTC${minutes < 0 ? "−" : "+"}${Math.floor(part / 60)}${part % 60 ? `:${two(part % 60)}` : ""}`;
}

// The time, and a button for each cause that shows or hides its lines.
function legend(data) {
  const causes = [...new Set(data.shown.map((one) => one.cause))].sort((one, other) => CAUSES.indexOf(one) - CAUSES.indexOf(other));
  const entries = causes.map((cause) => {
    const dashed = data.shown.every((one) => one.cause !== cause || one.what !== "dropped");
    const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(cause)), "data-cause": cause },
      element("i", { class: `swatch ${cause}${dashed ? " dashed" : ""}` }), `${cause} `, element("b"));
    button.addEventListener("click", () => {
      hidden.has(cause) ? hidden.delete(cause) : hidden.add(cause);
      button.setAttribute("aria-pressed", String(!hidden.has(cause)));
      data.shown.forEach((one, index) => { if (one.cause === cause) drawn.chart.setSeries(index + 1, { show: !hidden.has(cause) }); });
    });
    return button;
  });
  return element("figcaption", {}, element("b", { class: "time" }), ...entries);
}

function options(data, mode, width) {
  const [ink, line] = [style("--soft"), style("--line")];
  const axis = { stroke: ink, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  return {
    width, height: HEIGHT, legend: { show: false }, padding: [10, 26, 0, 0],
    cursor: { drag: { x: false, y: false, setScale: false }, y: false, points: { size: 7 } },
    scales: { x: { time: true, range: (_, low, high) => [low, Math.max(high, low + data.step)] }, y: { range: (_, __, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [
      { ...axis, label: `time (${zone()})`, values: times, space: 70, size: (_, marks) => ((marks ?? []).some((text) => text.includes("\n")) ? 50 : 34) },
      { ...axis, label: "packets a second", values, size: (_, marks) => 16 + 7.5 * Math.max(3, ...(marks ?? []).map((text) => text.length)) },
    ],
    series: [{}, ...data.shown.map((one) => ({
      show: !hidden.has(one.cause), stroke: style(`--${one.cause}`), width: 2, dash: one.what === "dropped" ? undefined : DASH,
      fill: one.what === "dropped" ? `${style(`--${one.cause}`)}22` : undefined, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false },
    }))],
    hooks: { setCursor: [(chart) => note(chart.cursor.idx ?? null)] },
  };
}

// What a line has at a time; what passed says so, unless everything does.
function valueOf({ what, values }, at, mode) {
  const value = values[at];
  if (value === null) return "not watched";
  return `${rate(value)}${what === "would-drop" && mode !== "monitor" ? " let pass" : ""}`;
}

// The values at the cursor, or the latest ones.
function note(at) {
  if (!drawn) return;
  drawn.at = at;
  const { data, caption } = drawn;
  const chosen = Math.min(at ?? Infinity, data.times.length - 2);
  const date = new Date(data.times[chosen] * 1000);
  const far = data.times.at(-1) - data.times[0] > 86400;
  caption.firstChild.textContent = `${far ? `${day(date)} ` : ""}${hour(date)}:${two(date.getSeconds())}`;
  for (const button of caption.querySelectorAll("button")) {
    const lines = data.shown.filter((one) => one.cause === button.dataset.cause);
    button.lastChild.textContent = lines.map((one) => valueOf(one, chosen, drawn.mode)).join(", ");
  }
}

// `empty`: what is shown where there is nothing yet.
export function plot(history, mode, empty) {
  const figure = $("plot");
  const data = history && columns(history, mode);
  if (!data) {
    drawn?.chart.destroy();
    drawn = null;
    figure.replaceChildren(element("p", { class: "empty" }, ...empty));
    return;
  }
  const shape = JSON.stringify([mode, data.step, data.shown.map(({ what, cause }) => [what, cause]), style("--ground")]);
  const table = [data.times, ...data.shown.map((one) => one.values)];
  if (drawn?.shape === shape) {
    drawn.data = data;
    drawn.chart.setData(table);
    note(drawn.chart.cursor.idx ?? null);
  } else {
    drawn?.chart.destroy();
    drawn = null;
    const [box, caption] = [element("div", { class: "plot" }), legend(data)];
    figure.replaceChildren(box, caption);
    const chart = new uPlot(options(data, mode, box.clientWidth), table, box);
    drawn = { shape, data, mode, caption, at: null, chart };
    note(null);
  }
  figure.dataset.from = data.times[0];
  const highest = data.shown.map((one) => `${name(one, mode)} ${rate(Math.max(0, ...one.values))}`).join(", ");
  figure.setAttribute("aria-label", `Highest: ${highest}. Arrow keys show single values.`);
}

new ResizeObserver(([entry]) => {
  if (drawn) drawn.chart.setSize({ width: entry.contentRect.width, height: HEIGHT });
}).observe($("plot"));
$("plot").addEventListener("keydown", (event) => {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!drawn || !way) return;
  event.preventDefault();
  const last = drawn.data.times.length - 2;
  const at = Math.min(last, Math.max(0, (drawn.at ?? last) + way));
  drawn.chart.setCursor({ left: drawn.chart.valToPos(drawn.data.times[at], "x") + 0.5, top: 10 });
});
