// The page reads the API every five seconds and shows it.
import { $, clock, command, element, number, rate, table, whole } from "./table.js";
import { plot } from "./plot.js";

const REFRESH_MS = 5000;
// Over how long rates are taken.
const SPAN_MS = 10_000;
// And over how long at the least.
const SHORT_SECONDS = 4;
// What is tallied of senders, by the words of the API.
const TALLIED = { messages: "messages", register: "REGISTER", invite: "INVITE", connections: "connections" };
const COUNTED = ["received", "dropped", "would_drop"];
let hours = 1;
let tallied = "messages";
let readings = [];
let overview = null;

const ends = (address, port) => (!address ? "?" : port ? (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`) : address);
const stops = (action) => action === "drop" || action === "reset";
const swatch = (cause) => element("i", { class: `swatch ${cause ?? "transport"}` });
const badge = (text, kind) => element("span", { class: `badge ${kind}` }, text);
const marked = (value, cell) => {
  if (value > 0) cell.classList.add("bad");
  return value;
};
const span = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`);

// Verdict, its class, and what to do about it.
function verdict({ attached, guard, unfiltered, interface: own }) {
  const name = own ?? "eth0";
  if (!guard) return ["NOT FILTERING", "bad", null];
  if (!attached) return [unfiltered.length < guard.status.interfaces.length ? "PARTLY FILTERING" : "NOT FILTERING", "bad", [`Nothing is filtered on ${unfiltered.join(", ")}. Attach again:`, `sipguard attach ${unfiltered[0] ?? name}`]];
  if (guard.status.mode === "monitor") return ["MONITOR", "warn", ["Nothing is dropped: what would be is only counted. To drop it:", "sipguard mode enforce"]];
  return ["ENFORCING", "good", null];
}

function showBar(read) {
  const [word, kind, advice] = verdict(read);
  const status = read.guard?.status;
  $("bar").className = kind;
  $("verdict").textContent = word;
  $("host").textContent = read.host;
  document.title = `${read.host} ${word} – sipguard`;
  const there = (status?.interfaces ?? []).filter((one) => !["gone", "absent"].includes(one.mode)).map((one) => one.interface);
  const since = status ? `attached since ${clock(status.attached_at)}` : "no interface is attached";
  $("where").textContent = [there.length ? `${read.attached ? "on" : "only on"} ${there.join(", ")}` : "", since].filter(Boolean).join(", ");
  $("advice").hidden = !advice;
  const text = advice?.join(" ") ?? "";
  if ($("advice").dataset.text !== text) {
    $("advice").dataset.text = text;
    $("advice").replaceChildren(...(advice ? [`${advice[0]} `, command(advice[1])] : []));
  }
}

// What the store has for the next attach.
function kept(stored) {
  if (!stored) return "There are no rules yet.";
  const { blocks, allowances, trunks } = stored;
  const parts = [several(blocks, "block"), several(allowances, "allowance"), trunks.length ? `${trunks.length === 1 ? "the trunk" : "the trunks"} ${trunks.join(", ")}` : ""].filter(Boolean);
  return `${parts.length ? `Kept: ${parts.join(", ")}. They` : "Limits and checks are kept. They"} hold with the next attach; sipguard list and trunk list show them.`;
}

// What to do where nothing is attached.
function showSteps({ guard, interface: own, stored }) {
  $("begin").hidden = Boolean(guard);
  if (!guard) $("stored").textContent = kept(stored);
  for (const section of document.querySelectorAll(".live")) section.hidden = !guard;
  const name = own ?? "eth0";
  if (guard || $("steps").dataset.name === name) return;
  $("steps").dataset.name = name;
  const steps = [
    ["See what would be stopped of a capture; touches no interface:", "sipguard replay capture.pcap"],
    ["Count what would be dropped, and drop nothing:", `sipguard attach ${name} --monitor`],
    ["When this page shows nobody who should not be there, drop it:", "sipguard mode enforce"],
  ];
  $("steps").replaceChildren(...steps.map(([text, words]) => element("li", {}, `${text} `, command(words))));
}

// Packets a second since a reading about ten seconds ago; null before there are some seconds, and where the counters began anew.
function rates(read) {
  const status = read.guard?.status;
  if (!status) { readings = []; return {}; }
  const now = { at: Date.parse(read.read_at), since: status.attached_at };
  for (const name of COUNTED) now[name] = status[`${name}_packets`];
  readings = readings.filter((one) => one.since === now.since && one.received <= now.received && now.at - one.at < 3 * SPAN_MS);
  readings.push(now);
  const before = readings.findLast((one) => now.at - one.at >= SPAN_MS) ?? readings[0];
  const seconds = (now.at - before.at) / 1000;
  return Object.fromEntries(COUNTED.map((name) => [name, seconds >= SHORT_SECONDS ? (now[name] - before[name]) / seconds : null]));
}

function showOverview(read) {
  overview = read;
  showBar(read);
  showSteps(read);
  $("version").textContent = `sipguard ${read.version}`;
  const lately = rates(read);
  if (!read.guard) return;
  const { status, reasons, trunks } = read.guard;
  for (const name of COUNTED) {
    number($(name), status[`${name}_packets`]);
    $(`${name}_rate`).textContent = lately[name] === null ? "" : `${rate(lately[name])} now`;
  }
  $("dropped").classList.toggle("bad", status.dropped_packets > 0);
  $("would_drop").classList.toggle("warn", status.would_drop_packets > 0);
  number($("connections"), status.connections);
  const full = status.flows / status.flows_max;
  $("flows").textContent = `flow table ${full < 0.01 ? "below 1" : Math.round(full * 100)} % full`;
  $("flows").className = full > 0.9 ? "bad" : "";
  table("interfaces", [
    ["interface", "a name", (row) => row.interface],
    ["driver", "", (row) => row.driver],
    ["XDP", "c", (row, cell) => { if (["gone", "absent"].includes(row.mode)) cell.classList.add("bad"); return row.mode + (row.why ? ` (${row.why})` : ""); }],
    ["attached", "time", (row) => clock(row.attached_at)],
    ["received", "b number", (row) => row.received_packets],
    ["dropped", "d number", (row, cell) => marked(row.dropped_packets, cell)],
    ["would drop", "number", (row) => row.would_drop_packets],
  ], status.interfaces, "None.", { key: (row) => row.interface });
  table("reasons", [
    ["reason", "a name", (row, cell) => { cell.title = row.text; return [swatch(row.cause), row.reason]; }],
    ["cause", "c", (row) => row.cause],
    ["what became of it", "d", (row) => row.action],
    ["packets", "b number", (row) => row.packets],
  ], reasons, ["Nothing was stopped."], { key: (row) => `${row.reason} ${row.action}`, more: aboutReason });
  table("trunks", [
    ["trunk", "a name", (row, cell) => { cell.title = `${row.comment} ${row.peers.join(", ")}`; return row.trunk; }],
    ["mode", "c", (row) => (row.effective === "monitor" ? badge("monitor", "warn") : row.effective)],
    ["received", "b number", (row) => row.received_packets],
    ["dropped", "d number", (row, cell) => marked(row.dropped_packets, cell)],
    ["would drop", "number", (row) => row.would_drop_packets],
  ], (trunks ?? []).map((row) => ({ ...row, effective: row.mode === "inherit" ? status.mode : row.mode })), trunks ? ["There are no trunks. A carrier with rules of its own: ", command("sipguard trunk add NAME --peer ADDRESS")] : "The store can't be read, so trunks have no names.", { key: (row) => row.trunk, more: aboutTrunk });
}

const facts = (pairs) => element("dl", {}, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));

const aboutReason = (row) => facts([["what it is", row.text], ["more", command(`sipguard explain ${row.reason}`)]]);

const aboutTrunk = (row) => facts([
  ["peers", row.peers.join(", ")], ["may use", row.transports], ["may send", row.methods], ["comment", row.comment],
  ["why", [...row.stopped, ...row.would_stop].map((one) => `${one.reason} ${whole.format(one.packets)} (${one.action})`).join(", ")],
  ["more", command(`sipguard trunk show ${row.trunk}`)],
]);

const small = (...parts) => element("small", {}, parts.filter(Boolean).join(" · "));
const counted = (value) => { const made = element("span"); number(made, value); return made; };
const several = (count, one) => (count ? `${whole.format(count)} ${one}${count === 1 ? "" : "s"}` : "");
// A share that is not nothing is never shown as nothing, nor one that is not all as all.
const percent = (share) => (share > 0 && share < 0.01 ? "below 1" : share < 1 && share > 0.99 ? "above 99" : String(Math.round(share * 100)));
const good = (row) => (row.good_share === null ? "" : row.good_share === 0 ? "nothing good" : `${percent(row.good_share)} % good`);
const reasonsOf = (row) => row.reasons.slice(0, 2).map((one) => `${one.reason} ${whole.format(one.packets)}`).join(", ") + (row.reasons.length > 2 ? ` and ${row.reasons.length - 2} more` : "");
const place = (fault) => (fault.offset === null ? "place not known" : `at byte ${whole.format(fault.offset)}`);

function showOffenders(offenders) {
  const rows = offenders.rows ?? [];
  $("offenders_note").textContent = offenders.total > rows.length ? `the first ${rows.length} of ${whole.format(offenders.total)} addresses` : "who sends what is malformed or over a limit; a row opens to its ports";
  const received = overview?.guard?.status.received_packets ?? 0;
  const ports = [...overview?.guard?.status.ports ?? [], ...overview?.guard?.status.tls_ports ?? []].join(", ");
  const empty = received ? `Nobody: of ${several(received, "packet")} none was malformed or over a limit.`
    : [`No packet came yet. Ports ${ports} are guarded; where the PBX listens on others: `, command(`sipguard attach ${overview?.interface ?? "eth0"} --port 5060,5080`)];
  table("offenders", [
    ["address", "a name", (row) => row.src_ip],
    ["packets", "b", (row) => [counted(row.packets), small(rate(row.packets_per_second), several(row.ports_seen, "port"))]],
    ["reasons", "", (row) => [reasonsOf(row), small(good(row))]],
    ["who", "", (row) => [row.user_agent ?? "", small(row.from)]],
    ["line at fault", "line", (row) => (row.fault ? [element("span", { class: "bytes" }, row.fault.line || row.fault.text), small(row.fault.reason, place(row.fault))] : "")],
    ["to block it", "", (row) => (row.block ? [command(row.block), small(row.block_caution)] : row.standing_text)],
    ["", "c phone-only", (row) => [row.user_agent ?? row.from, reasonsOf(row)].filter(Boolean).join(" · ")],
    ["", "d phone-only", (row) => rate(row.packets_per_second)],
  ], rows, empty, { key: (row) => row.src_ip, more: aboutOffender });
}

function aboutOffender(row) {
  const line = (text, at) => element("li", at === row.fault.message_line ? { class: "fault" } : {}, text || " ");
  const port = (one) => element("tr", {}, ...[[one.src_port || "any", "number"], [one.reason, "name"], [whole.format(one.packets), "number"], [rate(one.packets_per_second), "number"], [clock(one.last_seen_at), "time"]]
    .map(([text, kind]) => element("td", { class: kind }, String(text))));
  const head = element("tr", {}, ...["port", "reason", "packets", "10 s", "last seen"].map((name, at) => element("th", { scope: "col", class: [0, 2, 3].includes(at) ? "number" : "" }, name)));
  const shown = row.ports.length < row.ports_seen ? `the latest ${row.ports.length} rows of ${whole.format(row.ports_seen)} ports` : "";
  return element("div", {}, facts([
    ["to block it", row.block ? command(row.block) : ""],
    ["careful", row.block_caution],
    ["what it is", row.standing_text],
    ["User-Agent", row.user_agent], ["From", row.from],
    ["reasons", row.reasons.map((one) => `${one.reason} ${whole.format(one.packets)}`).join(", ")],
    ["well-formed", row.good_messages === null ? "not counted" : `${several(row.good_messages, "message") || "no message"}, ${good(row)}`],
    ["seen", `${clock(row.first_seen_at)} to ${clock(row.last_seen_at)}`],
    ["at fault", row.fault ? `${row.fault.reason} ${place(row.fault)}` : ""],
    ["message", row.fault?.message.length ? element("ol", { class: "message" }, ...row.fault.message.map(line)) : ""],
    ["more", element("span", { class: "several" }, command(`sipguard lookup ${row.src_ip}`), ...row.fault ? [command(`sipguard explain ${row.fault.reason}`)] : [])],
  ]), element("div", { class: "ports" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...row.ports.map(port)))), small(shown));
}

// `kind`: by what the rows are sorted.
function showSenders(senders, kind) {
  // Another one was chosen meanwhile.
  if (kind !== tallied) return;
  const lately = Object.entries(TALLIED).map(([key, name]) => [`${name}, 10 s`, key === kind ? "b number chosen" : "number", (row) => row.last_10_seconds[key]]);
  table("senders", [
    ["sender", "a name", (row) => row.source ?? `trunk ${row.trunk}`],
    ...lately,
    [`${TALLIED[kind]} since the attach`, "d number", (row) => row.total[kind]],
  ], senders.rows ?? [], senders.rows ? "Nobody has sent anything that is tallied." : "The guard is not attached: nothing is tallied.", { key: (row) => row.source ?? `trunk ${row.trunk}` });
}

// One row for what came from an address for one reason, the latest first: a device that connects again and again is one.
function byAddress(events) {
  const rows = new Map();
  for (const one of events) {
    const key = [one.src_ip, one.reason, one.action, one.trunk, one.number === null ? one.seen_at : ""].join(" ");
    const row = rows.get(key) ?? rows.set(key, { ...one, key, packets: 0, each: [] }).get(key);
    row.packets += one.packets;
    row.each.push(one);
  }
  return [...rows.values()];
}

function showEvents(events) {
  table("events", [
    ["source", "a name", (row) => (row.each.length > 1 ? ends(row.src_ip, 0) : ends(row.src_ip, row.src_port))],
    ["latest", "b time", (row) => clock(row.seen_at)],
    ["events", "number", (row) => row.each.length],
    ["packets", "d number", (row) => row.packets],
    ["reason", "c name", (row, cell) => { cell.title = row.text; return row.reason; }],
    ["action", "name", (row) => row.action],
    ["trunk", "name", (row) => row.trunk ?? ""],
    ["bytes of the latest", "bytes", (row) => row.sample],
  ], byAddress(events.rows ?? []).slice(0, 30), ["None yet. Live in a terminal: ", command("sipguard events --follow")], { key: (row) => row.key, more: aboutEvents });
}

const aboutEvents = (row) => facts([
  ["what it is", row.text], ["rule", row.rule], ["evidence", row.evidence],
  ["the latest", element("ol", { class: "message" }, ...row.each.slice(0, 10).map((one) => element("li", {}, `${clock(one.seen_at)} ${ends(one.src_ip, one.src_port)} ${one.sample}`)))],
]);

// As a shell takes it for one word.
function quoted(word) {
  return /^[\w.:/@[\]-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function showBlocks(blocks) {
  const rows = blocks.rows ?? [];
  const bans = rows.filter((row) => row.rule === "ban").length;
  number($("blocked"), blocks.total ?? 0);
  $("bans").textContent = several(bans, "ban") || "no bans";
  table("blocks", [
    ["who", "a name", (row) => row.target],
    ["how", "d", (row) => (row.rule === "ban" ? "ban" : row.mode)],
    ["why", "c", (row) => row.comment || (row.rule === "ban" ? "several malformed streams" : "")],
    ["by", "", (row) => (row.author ? `${row.origin} (${row.author})` : row.origin)],
    ["until", "b time", (row) => (row.expires_at ? clock(row.expires_at) : "permanent")],
    ["to lift it", "wide-only", (row) => command(`sipguard unblock ${quoted(row.target)}`)],
  ], rows.slice(0, 50), "Nobody is blocked or banned.", { key: (row) => `${row.rule} ${row.target} ${row.origin}` });
}

function showCrashes({ watched, cores, rows, notices }) {
  const config = (text, lines) => [`${text} in `, element("code", {}, "/etc/sipguard/sipguard.toml"), ": ", element("code", {}, lines)];
  const off = config("No PBX is watched. To have each crash explained,", "[crash] unit = \"asterisk.service\"");
  table("crashes", [
    ["when", "a time", (row) => clock(row.crashed_at)],
    ["how", "b", (row) => row.how],
    ["likely cause", "c", (row) => [row.suspect ?? "nobody sent anything", row.user_agent ? ` (${row.user_agent})` : "", row.suspect && !row.clear ? ", not clear" : ""].join("")],
    ["blocked", "d", (row) => row.quarantine ?? ""],
  ], rows, watched ? ["None. The PBX is watched."] : off, { key: (row) => row.name, more: aboutCrash });
  const none = cores ? [`Nothing happened. Cores are looked after in ${cores}.`] : config("Core dumps may fill the disk. To have them looked after,", "[cores] directory = \"/var/cores\"");
  table("cores", [
    ["when", "b time", (row) => clock(row.seen_at)],
    ["what", "a name", (row) => row.reason],
    ["text", "c long", (row) => row.text],
  ], notices.filter((row) => row.reason !== "crash"), none, { key: (row) => `${row.seen_at} ${row.text}` });
}

const aboutCrash = (row) => facts([["identity", row.identity], ["core", row.core], ["more", command(`sipguard crash show ${row.name}`)]]);

const SILENT = "sipguard serve does not answer; the guard filters all the same.";

async function get(path) {
  const answer = await fetch(path, { cache: "no-store" }).catch(() => { throw new Error(SILENT); });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `${path}: ${answer.status}`);
  return value;
}

// Why there is no plot: nothing was kept yet, or nothing is.
async function showPlot() {
  const mode = overview?.guard?.status.mode ?? "enforce";
  let history = null;
  let empty = ["Nothing was kept of this time. ", "While the guard is attached, serve writes a value every ten seconds."];
  try {
    history = await get(`api/history?hours=${hours}`);
  } catch (error) {
    if (error.message === SILENT) throw error;
    empty = [error.message];
  }
  $("plot_title").textContent = mode === "monitor" ? "Would be stopped" : "Stopped";
  plot(history, mode, empty);
}

// Readings are one after the other: what is asked for while one is under way comes behind it. `data-began` and `data-ready` on the body are
// the number of the reading that began last, and of the one that was shown last.
let turn = Promise.resolve();
const refresh = () => { turn = turn.then(read); return turn; };

async function read() {
  const began = String(Number(document.body.dataset.began ?? 0) + 1);
  document.body.dataset.began = began;
  const errors = [];
  const kind = tallied;
  const ask = async (path, show) => show(await get(path));
  const parts = [
    () => ask("api/overview", showOverview), () => ask("api/offenders", showOffenders), () => ask("api/blocks", showBlocks), showPlot, () => ask("api/crashes", showCrashes),
    () => ask(`api/senders?of=${kind}`, (senders) => showSenders(senders, kind)), () => ask("api/events", showEvents),
  ];
  for (const part of parts) {
    try {
      await part();
    } catch (error) {
      errors.push(error.message);
    }
  }
  $("error").hidden = errors.length === 0;
  $("error").textContent = [...new Set(errors)].join(" ");
  if (errors.length < parts.length) $("age").textContent = `as of ${new Date().toLocaleTimeString("en-GB")}`;
  $("bar").classList.toggle("stale", errors.length === parts.length);
  document.body.dataset.ready = began;
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
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showPlot().catch(() => {}));
// One after the other, so that a slow answer is not asked for twice.
for (;;) {
  await refresh();
  await new Promise((wake) => setTimeout(wake, document.hidden ? REFRESH_MS * 6 : REFRESH_MS));
}
