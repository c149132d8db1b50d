//! The counters as OpenMetrics text (`application/openmetrics-text; version=1.0.0`).

use anyhow::Result;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::counters::{self, Action};
use crate::pins::Pins;
use crate::status;

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;

pub fn text(pins: &Pins) -> Result<String> {
    let (received, received_bytes) = (Counts::default(), Counts::default());
    let (dropped, dropped_bytes) = (Counts::default(), Counts::default());
    let (would, would_bytes) = (Counts::default(), Counts::default());
    for row in counters::read(pins, true)? {
        let interface = vec![("interface", row.interface.clone())];
        received.get_or_create(&interface).inc_by(row.packets);
        received_bytes.get_or_create(&interface).inc_by(row.bytes);
        let labels = vec![("interface", row.interface), ("reason", row.reason.word().to_owned())];
        let (packets, bytes) = match row.action {
            Action::Pass => continue,
            Action::Drop | Action::Reset => (&dropped, &dropped_bytes),
            Action::WouldDrop | Action::WouldReset => (&would, &would_bytes),
        };
        packets.get_or_create(&labels).inc_by(row.packets);
        bytes.get_or_create(&labels).inc_by(row.bytes);
    }
    let report = status::read(pins)?;
    let entries = Family::<Labels, Gauge>::default();
    entries.get_or_create(&vec![("map", "blocks".to_owned())]).set(report.blocks as i64);
    entries.get_or_create(&vec![("map", "flows".to_owned())]).set(report.connections as i64);
    let interfaces = Family::<Labels, Gauge>::default();
    for one in report.interfaces {
        let labels = vec![("interface", one.name), ("driver", one.driver), ("mode", one.mode.to_owned())];
        interfaces.get_or_create(&labels).set(1);
    }

    let mut registry = Registry::with_prefix("sipguard");
    registry.register("received_packets", "Packets that the guard looked at", received);
    registry.register_with_unit("received", "Bytes that the guard looked at", Unit::Bytes, received_bytes);
    registry.register("dropped_packets", "Packets dropped or turned into a reset", dropped);
    registry.register_with_unit(
        "dropped",
        "Bytes dropped or turned into a reset",
        Unit::Bytes,
        dropped_bytes,
    );
    registry.register("would_drop_packets", "Packets that monitor mode let pass", would);
    registry.register_with_unit("would_drop", "Bytes that monitor mode let pass", Unit::Bytes, would_bytes);
    registry.register("map_entries", "Entries of a map", entries);
    registry.register("interface_info", "Attached interfaces", interfaces);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
