//! The counters as OpenMetrics text (`application/openmetrics-text; version=1.0.0`).

use std::path::Path;

use anyhow::Result;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::bans::Bans;
use crate::clock::Clock;
use crate::counters::{self, Action};
use crate::pins::Pins;
use crate::status;
use crate::store::{self, GUARD};

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;

pub fn text(pins: &Pins, path: &Path) -> Result<String> {
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
    // What the kernel counts is told also when the store can't be read.
    if let Err(error) = stored(pins, path, &mut registry) {
        eprintln!("sipguard: the counters of trunks and the number of blocks are left out: {error:#}");
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What takes the names in the store: trunks, and who blocks how many. Bans are the guard's own blocks.
fn stored(pins: &Pins, path: &Path, registry: &mut Registry) -> Result<()> {
    let clock = Clock::now()?;
    let read = store::read(path, |rows| Ok((rows.trunks()?, rows.blocks_by_origin(clock.wall_ms())?)))?;
    let (trunks, blocked) = read.unwrap_or_default();
    let (received, dropped) = (Counts::default(), Counts::default());
    for trunk in trunks {
        let labels = vec![("trunk", trunk.name.clone())];
        let (received, dropped) =
            (received.get_or_create_owned(&labels), dropped.get_or_create_owned(&labels));
        for row in counters::of_trunk(pins, &trunk)? {
            received.inc_by(row.packets);
            if matches!(row.action, Action::Drop | Action::Reset) {
                dropped.inc_by(row.packets);
            }
        }
    }
    let blocks = Family::<Labels, Gauge>::default();
    let bans = Bans::open(pins)?.list(clock.boot_ns)?.len() as i64;
    for (source, count) in blocked.into_iter().chain([(GUARD.to_owned(), bans)]) {
        blocks.get_or_create(&vec![("source", source)]).inc_by(count);
    }
    registry.register("trunk_received_packets", "Packets of a trunk that the guard looked at", received);
    let text = "Packets of a trunk dropped or turned into a reset";
    registry.register("trunk_dropped_packets", text, dropped);
    let text = "Blocks that hold, by who set them; those of the source guard are bans";
    registry.register("blocks", text, blocks);
    Ok(())
}
