//! `counters`.

use anyhow::Result;
use sipguard_core::escape::escaped;
use sipguard_core::ops::counters::{CounterRow, Offender, Rates, SenderRow, per_sec};
use sipguard_core::view::{CounterView, RateView, SenderView, schema};
use sipguard_observe::view::OffenderView;

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
        each_once(&head, counted, line, |packets| format!("{:.1} packets a second", per_sec(packets, *span)))
    })
}

/// Counters of trunks, for people.
pub fn trunk_table(counted: &[CounterRow]) -> String {
    let head = ["TRUNK", "REASON", "ACTION", "PACKETS", "BYTES"];
    each_once(&head, counted, line, |packets| plural_of(packets, "packet"))
}

/// A table in which each packet is once, with their sum. What is counted again is behind it.
fn each_once(
    head: &[&str],
    counted: &[CounterRow],
    line: impl Fn(&CounterRow) -> Vec<String>,
    sum: impl Fn(u64) -> String,
) -> String {
    let (again, once): (Vec<&CounterRow>, Vec<&CounterRow>) =
        counted.iter().partition(|row| row.counted_again);
    let mut text = table(head, once.iter().map(|row| line(row)));
    text += &format!("received: {}\n", sum(once.iter().map(|row| row.packets).sum()));
    if !again.is_empty() {
        text += "\nWould have been stopped by what only counts; of those above:\n";
        text += &table(head, again.iter().map(|row| line(row)));
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

pub fn by_sender(format: Format, offenders: &[Offender]) -> Result<()> {
    rows(format, schema::OFFENDERS, offenders.iter().map(OffenderView::of_row).collect(), || {
        let head = ["ADDRESS", "PORT", "REASON", "PACKETS", "LAST SEEN", "FIRST BYTES"];
        let line = |row: &Offender| {
            let last = row.last_seen.map(|seen| seen.to_string()).unwrap_or_default();
            let (address, port) = (row.address.to_string(), row.port.to_string());
            let (reason, packets) = (row.reason.name().to_owned(), row.packets.to_string());
            vec![address, port, reason, packets, last, escaped(&row.sample)]
        };
        table(&head, offenders.iter().map(line))
    })
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
