//! One reading, as JSON and as tables.

use std::collections::BTreeSet;

use serde::Serialize;
use sipguard_core::counters::CounterRow;
use sipguard_core::escape::escaped;
use sipguard_core::status::InterfaceStatus;
use sipguard_core::view::{CounterView, SenderView, Totals, thousandths};
use sipguard_observe::ops::reading::{TopEvent, TrunkReading};
use sipguard_observe::view::{AddressView, EventView};

use super::model::{MetricKey, Model};
use super::pane::Pane;
use super::rows::{CellContent, rows};
use crate::table::table;

/// Events that are told, the latest.
const EVENTS: usize = 20;

/// The document `sipguard.top/3`, without its name. Rates are packets a second between two readings, `span_seconds` apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopView {
    /// When the second reading was taken.
    read_at: String,
    span_seconds: f64,
    /// `enforce` or `monitor`.
    mode: &'static str,
    interfaces: Vec<InterfaceRates>,
    totals: TotalRates,
    /// Who sends how much, the most messages in the last 10 s first: those that are among the first 20 of any kind.
    senders: Vec<SenderView>,
    reasons: Vec<ReasonRates>,
    /// By address; their rates are of the last 10 s.
    offenders: Vec<AddressView>,
    trunks: Vec<TrunkRates>,
    /// The latest first.
    events: Vec<EventView>,
    events_lost: u64,
    blocks: u64,
    bans: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct InterfaceRates {
    interface: String,
    driver: String,
    mode: &'static str,
    received_packets: u64,
    received_packets_per_second: f64,
    dropped_packets: u64,
    dropped_packets_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct TotalRates {
    #[serde(flatten)]
    totals: Totals,
    received_packets_per_second: f64,
    dropped_packets_per_second: f64,
    would_drop_packets_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ReasonRates {
    #[serde(flatten)]
    counter: CounterView,
    packets_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct TrunkRates {
    trunk: String,
    #[serde(flatten)]
    totals: Totals,
    received_packets_per_second: f64,
    dropped_packets_per_second: f64,
}

/// The document; `None` before the first reading.
#[must_use]
pub fn view(model: &Model) -> Option<TopView> {
    let reading = model.reading.as_ref()?;
    Some(TopView {
        read_at: second(reading.time),
        span_seconds: thousandths(model.seconds),
        mode: reading.mode,
        interfaces: reading.interfaces.iter().map(|one| interface(model, one)).collect(),
        totals: totals(model),
        senders: reading.senders.iter().map(SenderView::of_row).collect(),
        reasons: reading.counters.iter().map(|row| reason(model, row)).collect(),
        offenders: reading.sources.iter().map(AddressView::of_row).collect(),
        trunks: reading.trunks.iter().map(|row| trunk(model, row)).collect(),
        events: model.events.iter().rev().take(EVENTS).map(event).collect(),
        events_lost: reading.events_lost,
        blocks: model.rules.blocks,
        bans: model.rules.bans,
    })
}

fn interface(model: &Model, one: &InterfaceStatus) -> InterfaceRates {
    let [received, dropped] = [false, true].map(|stopped| MetricKey::Interface(one.name.clone(), stopped));
    InterfaceRates {
        interface: one.name.clone(),
        driver: one.driver.clone(),
        mode: one.mode,
        received_packets: model.value(&received),
        received_packets_per_second: per_sec(model, &received),
        dropped_packets: model.value(&dropped),
        dropped_packets_per_second: per_sec(model, &dropped),
    }
}

fn totals(model: &Model) -> TotalRates {
    let [received_packets, dropped_packets, would_drop_packets] =
        [MetricKey::Received, MetricKey::Dropped, MetricKey::WouldDrop].map(|key| model.value(&key));
    TotalRates {
        totals: Totals { received_packets, dropped_packets, would_drop_packets },
        received_packets_per_second: per_sec(model, &MetricKey::Received),
        dropped_packets_per_second: per_sec(model, &MetricKey::Dropped),
        would_drop_packets_per_second: per_sec(model, &MetricKey::WouldDrop),
    }
}

fn reason(model: &Model, row: &CounterRow) -> ReasonRates {
    let key = MetricKey::Counter(row.interface.clone(), row.reason, row.action);
    ReasonRates { counter: CounterView::of_interface(row), packets_per_second: per_sec(model, &key) }
}

fn trunk(model: &Model, row: &TrunkReading) -> TrunkRates {
    let [received, dropped] =
        [false, true].map(|stopped| per_sec(model, &MetricKey::Trunk(row.name.clone(), stopped)));
    TrunkRates {
        trunk: row.name.clone(),
        totals: Totals {
            received_packets: row.received,
            dropped_packets: row.dropped,
            would_drop_packets: row.would_drop,
        },
        received_packets_per_second: received,
        dropped_packets_per_second: dropped,
    }
}

fn event(event: &TopEvent) -> EventView {
    EventView {
        number: None,
        seen_at: second(event.time),
        packets: event.count,
        interface: Some(event.interface.clone()),
        trunk: event.trunk.clone(),
        rule: None,
        evidence: None,
        reason: event.reason.name().to_owned(),
        class: event.reason.class().name().to_owned(),
        text: event.reason.text().to_owned(),
        action: event.action.name().to_owned(),
        src_ip: event.source.map(|end| end.ip().to_string()),
        src_port: event.source.map(|end| end.port()),
        dst_ip: event.destination.map(|end| end.ip().to_string()),
        dst_port: event.destination.map(|end| end.port()),
        frame_bytes: event.frame_bytes,
        sample: escaped(&event.sample),
    }
}

fn second(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn per_sec(model: &Model, key: &MetricKey) -> f64 {
    thousandths(model.per_sec(key))
}

/// The same as the panes show, one below the other.
#[must_use]
pub fn text(model: &Model) -> String {
    let Some(reading) = &model.reading else { return String::new() };
    let interfaces: Vec<String> =
        reading.interfaces.iter().map(|one| format!("{} {} ({})", one.name, one.mode, one.driver)).collect();
    let [received, dropped, would] = [MetricKey::Received, MetricKey::Dropped, MetricKey::WouldDrop]
        .map(|key| format!("{} ({}/s)", model.value(&key), super::theme::rate(model.per_sec(&key))));
    let mut text = format!(
        "mode {}, interfaces: {}\npackets {received}, dropped {dropped}, would have dropped {would}\n\
         blocks {}, bans {}, events lost {}\n",
        reading.mode,
        interfaces.join(", "),
        model.rules.blocks,
        model.rules.bans,
        reading.events_lost,
    );
    for pane in Pane::ALL {
        let (column, descending) = pane.order();
        let mut rows = rows(model, pane, "", (column, descending), &BTreeSet::new());
        if pane == Pane::Events {
            rows.truncate(EVENTS);
        }
        // A table for people of what is not there says nothing.
        if rows.is_empty() {
            continue;
        }
        let head: Vec<&str> = pane.columns().iter().map(|column| column.head).collect();
        let cells = |row: super::rows::TopRow| {
            row.cells
                .iter()
                .map(|cell| match &cell.content {
                    CellContent::Text(text) => text.clone(),
                    CellContent::Past(_) => String::new(),
                })
                .collect()
        };
        text += &format!("\n{}\n{}", pane.name(), table(&head, rows.into_iter().map(cells)));
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::top::fixture::fixed;

    #[test]
    fn one_reading() {
        let mut model = Model::default();
        model.take(fixed(10));
        model.take(fixed(12));
        insta::assert_snapshot!(format!(
            "{:#}\n\n{}",
            sipguard_core::view::json(&view(&model)),
            text(&model)
        ));
    }
}
