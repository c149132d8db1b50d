//! One reading, as JSON and as tables.

use serde_json::{Value, json};

use super::model::{MetricKey, Model};
use super::pane::Pane;
use super::reading::TopEvent;
use super::rows::{CellContent, rows};
use crate::offenders::printable;
use crate::output::table;

/// Events that are told, the latest.
const EVENTS: usize = 20;

/// The JSON form, `sipguard.top/1` without its name. Rates are packets a second between two readings, `seconds` apart.
#[must_use]
pub fn json(model: &Model) -> Value {
    let Some(reading) = &model.reading else { return json!({}) };
    let numbers = |key: &MetricKey| (model.value(key), per_sec(model, key));
    let interfaces = reading.interfaces.iter().map(|one| {
        let [(received, received_per_sec), (dropped, dropped_per_sec)] =
            [false, true].map(|stopped| numbers(&MetricKey::Interface(one.name.clone(), stopped)));
        json!({
            "interface": one.name, "driver": one.driver, "mode": one.mode,
            "received_packets": received, "received_packets_per_second": received_per_sec,
            "dropped_packets": dropped, "dropped_packets_per_second": dropped_per_sec,
        })
    });
    let totals = [
        ("received", MetricKey::Received),
        ("dropped", MetricKey::Dropped),
        ("would_drop", MetricKey::WouldDrop),
    ];
    let mut sums = serde_json::Map::new();
    for (name, key) in totals {
        let (packets, per_sec) = numbers(&key);
        sums.insert(format!("{name}_packets"), json!(packets));
        sums.insert(format!("{name}_packets_per_second"), json!(per_sec));
    }
    let reasons = reading.counters.iter().map(|row| {
        let key = MetricKey::Counter(row.interface.clone(), row.reason, row.action);
        json!({
            "interface": row.interface, "reason": row.reason.name(), "action": row.action.name(),
            "packets": row.packets, "bytes": row.bytes, "packets_per_second": per_sec(model, &key),
        })
    });
    let sources = reading.sources.iter().map(|row| {
        json!({
            "address": row.address.to_string(), "port": row.port, "reason": row.reason.name(), "packets": row.packets,
            "packets_per_second": per_sec(model, &MetricKey::Source(row.address, row.port, row.reason)),
            "first_seen": row.first_seen.map(|seen| seen.to_string()),
            "last_seen": row.last_seen.map(|seen| seen.to_string()),
            "sample": printable(&row.sample),
        })
    });
    let trunks = reading.trunks.iter().map(|row| {
        let [received, dropped] =
            [false, true].map(|stopped| per_sec(model, &MetricKey::Trunk(row.name.clone(), stopped)));
        json!({
            "trunk": row.name, "received_packets": row.received, "received_packets_per_second": received,
            "dropped_packets": row.dropped, "dropped_packets_per_second": dropped,
            "would_drop_packets": row.would_drop,
        })
    });
    json!({
        "time": second(reading.time), "seconds": rounded(model.seconds), "mode": reading.mode,
        "interfaces": interfaces.collect::<Vec<_>>(), "totals": sums, "reasons": reasons.collect::<Vec<_>>(),
        "sources": sources.collect::<Vec<_>>(), "trunks": trunks.collect::<Vec<_>>(),
        "events": model.events.iter().rev().take(EVENTS).map(event).collect::<Vec<_>>(),
        "events_lost": reading.events_lost, "blocks": model.rules.blocks, "bans": model.rules.bans,
    })
}

fn event(event: &TopEvent) -> Value {
    let end =
        |end: Option<std::net::SocketAddr>| (end.map(|end| end.ip().to_string()), end.map(|end| end.port()));
    let ((address, port), (destination, destination_port)) = (end(event.source), end(event.destination));
    json!({
        "time": second(event.time), "interface": event.interface, "trunk": event.trunk, "address": address, "port": port,
        "destination": destination, "destination_port": destination_port, "reason": event.reason.name(),
        "action": event.action.name(), "count": event.count, "sample": printable(&event.sample),
    })
}

fn second(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn per_sec(model: &Model, key: &MetricKey) -> f64 {
    rounded(model.per_sec(key))
}

/// To thousandths.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
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
        let mut rows = rows(model, pane, "", column, descending);
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
    use crate::top::reading::fixed;

    #[test]
    fn one_reading() {
        let mut model = Model::default();
        model.take(fixed(10));
        model.take(fixed(12));
        insta::assert_snapshot!(format!("{:#}\n\n{}", json(&model), text(&model)));
    }
}
