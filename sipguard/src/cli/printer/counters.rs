//! `counters`.

use anyhow::Result;
use sipguard_core::ops::counters::{AddressRow, CounterRow, Offender, Rates, SenderRow, per_sec};
use sipguard_core::view::{CounterView, RateView, SenderView, SourceView, schema};
use sipguard_observe::view::{AddressView, OffenderView, ReasonCountView};

use super::{Format, rows};
use crate::table::table;

pub fn by_reason(format: Format, counted: &[CounterRow]) -> Result<()> {
    let head = ["INTERFACE", "REASON", "ACTION", "PACKETS", "BYTES"];
    let values = counted.iter().map(CounterView::of_interface).collect();
    rows(format, schema::COUNTERS, values, || {
        each_once(&head, counted, line, |packets| plural_of(packets, "packet"))
    })
}

pub fn by_trunk(format: Format, counted: &[CounterRow]) -> Result<()> {
    let values = counted.iter().map(CounterView::of_trunk).collect();
    rows(format, schema::TRUNK_COUNTERS, values, || trunk_table(counted))
}

/// What is counted in about a second, divided by the time that it really was.
pub fn rates(format: Format, rates: &Rates) -> Result<()> {
    let Rates { span, rows: counted } = rates;
    let value = |row: &CounterRow| RateView::of_interface(row, *span);
    rows(format, schema::RATES, counted.iter().map(value).collect(), || {
        let head = ["INTERFACE", "REASON", "ACTION", "PACKETS/S", "BYTES/S"];
        let rates =
            |row: &CounterRow| [row.packets, row.bytes].map(|count| format!("{:.1}", per_sec(count, *span)));
        let line = |row: &CounterRow| line(row).into_iter().take(3).chain(rates(row)).collect();
        each_once(&head, counted, line, |packets| {
            format!(
                "{:.1} packets a second, measured over {:.1} s",
                per_sec(packets, *span),
                span.as_secs_f64()
            )
        })
    })
}

/// Counters of trunks, for people.
pub fn trunk_table(counted: &[CounterRow]) -> String {
    let head = ["TRUNK", "REASON", "ACTION", "PACKETS", "BYTES"];
    each_once(&head, counted, line, |packets| plural_of(packets, "packet"))
}

/// A table in which each packet is once, with their sum. What a limit or a block let pass is behind it.
fn each_once(
    head: &[&str],
    counted: &[CounterRow],
    line: impl Fn(&CounterRow) -> Vec<String>,
    sum: impl Fn(u64) -> String,
) -> String {
    let (once, apart): (Vec<&CounterRow>, Vec<&CounterRow>) =
        counted.iter().partition(|row| row.is_received());
    let mut text = table(head, once.iter().map(|row| line(row)));
    text += &format!("received: {}\n", sum(once.iter().map(|row| row.packets).sum()));
    let (blocks, limits): (Vec<&CounterRow>, Vec<&CounterRow>) =
        apart.into_iter().partition(|row| row.is_of_block());
    for (rows, title) in [
        (limits, "Over a limit that only counts; they are among those above:"),
        (
            blocks,
            "Let pass by a block; where the block itself only counts they are among those above,\nin monitor mode they are not:",
        ),
    ] {
        if !rows.is_empty() {
            text += &format!("\n{title}\n{}", table(head, rows.iter().map(|row| line(row))));
        }
    }
    text
}

fn plural_of(count: u64, thing: &str) -> String {
    super::plural(usize::try_from(count).unwrap_or(usize::MAX), thing)
}

fn line(row: &CounterRow) -> Vec<String> {
    let (reason, action) = (row.reason.name().to_owned(), row.action.name().to_owned());
    vec![row.interface.clone(), reason, action, row.packets.to_string(), row.bytes.to_string()]
}

/// Who, first: a row for each address, with what there is to know of it below, and the command that would block it.
pub fn by_address(format: Format, addresses: &[AddressRow]) -> Result<()> {
    let views: Vec<AddressView> = addresses.iter().map(AddressView::of_row).collect();
    let text = addresses_text(&views);
    rows(format, schema::ADDRESSES, views, || text)
}

fn addresses_text(views: &[AddressView]) -> String {
    if views.is_empty() {
        return "nobody has sent anything malformed, or more than a limit\n".to_owned();
    }
    let head = ["ADDRESS", "ACTION", "PACKETS", "RATE/S", "PORTS", "GOOD"];
    let line = |view: &AddressView| {
        let good = view.good_share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
        let (packets, ports) = (view.packets.to_string(), view.ports_seen.to_string());
        let action = action(view.packets, view.passed_packets).to_owned();
        vec![view.src_ip.clone(), action, packets, format!("{:.1}", view.packets_per_second), ports, good]
    };
    let rows = table(&head, views.iter().map(line));
    let mut lines = rows.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    for (line, view) in lines.zip(views) {
        text += &format!("{line}\n");
        for (label, said) in details(view) {
            text += &format!("    {label:<10}  {said}\n");
        }
    }
    text + "PORTS: those that are remembered. GOOD: well-formed messages among all that were judged.\n"
}

/// What became of packets of which so many passed.
fn action(packets: u64, passed: u64) -> &'static str {
    match passed {
        0 => "stopped",
        _ if passed >= packets => "only counted",
        _ => "some stopped",
    }
}

/// What there is to know of an address, in lines with their labels.
pub fn details(view: &AddressView) -> Vec<(&'static str, String)> {
    let count = |one: &ReasonCountView| format!("{} {}", one.reason, one.packets);
    let mut lines = vec![("reasons", view.reasons.iter().map(count).collect::<Vec<_>>().join(", "))];
    let seen = [&view.first_seen_at, &view.last_seen_at].map(|seen| seen.as_deref().unwrap_or("?"));
    lines.push(("seen", seen.join(" to ")));
    lines.extend(view.from.clone().map(|from| ("From", from)));
    lines.extend(view.user_agent.clone().map(|agent| ("User-Agent", agent)));
    lines.extend(view.fault.as_ref().map(|fault| ("fault", fault.text.clone())));
    lines.extend(to_block(view).into_iter().zip(["block", ""]).map(|(said, label)| (label, said)));
    lines
}

/// The command and what speaks against it, or why there is none.
pub fn to_block(view: &AddressView) -> Vec<String> {
    let Some(block) = &view.block else { return vec![format!("not proposed: {}", view.standing_text)] };
    let caution = Some(&view.block_caution).filter(|caution| !caution.is_empty());
    [block.clone()].into_iter().chain(caution.map(|caution| format!("careful: {caution}"))).collect()
}

/// A row for each port and reason.
pub fn by_port(format: Format, offenders: &[Offender]) -> Result<()> {
    let views: Vec<OffenderView> = offenders.iter().map(OffenderView::of_row).collect();
    let head = ["ADDRESS", "PORT", "REASON", "ACTION", "PACKETS", "LAST SEEN", "USER-AGENT", "FAULT"];
    let line = |view: &OffenderView| {
        let SourceView { src_ip, src_port, reason, packets, .. } = &view.source;
        let last = view.last_seen_at.clone().unwrap_or_default();
        let fault = if *src_port == 0 { String::new() } else { view.fault_text.clone() };
        let action = action(*packets, view.passed_packets).to_owned();
        let agent = view.user_agent.clone().unwrap_or_default();
        let (port, packets) = (src_port.to_string(), packets.to_string());
        vec![src_ip.clone(), port, reason.clone(), action, packets, last, agent, fault]
    };
    let text = table(&head, views.iter().map(line));
    rows(format, schema::OFFENDERS, views, || text)
}

/// Who sends how much: in the last 10 s and in all.
pub fn of_senders(format: Format, senders: &[SenderRow]) -> Result<()> {
    let values = senders.iter().map(SenderView::of_row).collect();
    rows(format, schema::SENDERS, values, || senders_table(senders))
}

/// The same, for people.
pub fn senders_table(senders: &[SenderRow]) -> String {
    let head = ["SENDER", "IN", "MESSAGES", "REGISTER", "INVITE", "CONNECTIONS"];
    let line = |row: &SenderRow, span: &str, counts: [u64; 4]| -> Vec<String> {
        let trunk = || row.trunk.as_ref().map(|name| format!("trunk {name}"));
        let sender = row.source.map(|source| source.to_string()).or_else(trunk).unwrap_or_default();
        [sender, span.to_owned()].into_iter().chain(counts.map(|count| count.to_string())).collect()
    };
    let lines = senders.iter().flat_map(|row| [line(row, "10s", row.lately), line(row, "all", row.totals)]);
    table(&head, lines)
}
