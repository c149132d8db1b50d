//! What is counted, as text for Prometheus, in either of its forms (`form.rs`). No address is a label.

mod form;
#[cfg(test)]
mod page;
mod process;

use std::path::Path;

use anyhow::Result;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sipguard_common::abi::ABI_VERSION;
use sipguard_core::bans::Bans;
use sipguard_core::clock::Clock;
use sipguard_core::connections::Connections;
use sipguard_core::counters::{self, Action, CounterRow};
use sipguard_core::fill::{self, TableFill};
use sipguard_core::maps;
use sipguard_core::pins::Pins;
use sipguard_core::rule::RuleMode;
use sipguard_core::status::{self, InterfaceStatus, Weakness};
use sipguard_core::store::{self, GUARD};
use sipguard_core::trunk::TrunkRow;

pub use self::form::Form;
pub use self::process::ProcessUsage;
use crate::tap;

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;

/// How full maps are. With a million rules it takes seconds to count them.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Active blocks.
    pub blocks: usize,
    /// Connections that are followed.
    pub connections: Connections,
    /// The other tables.
    pub tables: Vec<TableFill>,
}

impl Sizes {
    /// As they are now.
    pub fn read(pins: &Pins, store: &Path) -> Result<Sizes> {
        Ok(Sizes {
            blocks: status::blocks(pins, store)?,
            connections: Connections::read(pins)?,
            tables: fill::read(pins)?,
        })
    }
}

/// What only the store knows.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The trunks.
    pub trunks: Vec<TrunkRow>,
    /// How many blocks of each origin are active.
    pub blocks: Vec<(String, i64)>,
}

impl Stored {
    /// As it is now.
    pub fn read(path: &Path) -> Result<Stored> {
        let now_ms = Clock::now()?.wall_ms();
        let read = store::read(path, |rows| Ok((rows.trunks()?, rows.blocks_by_origin(now_ms)?)))?;
        let (trunks, blocks) = read.unwrap_or_default();
        Ok(Stored { trunks, blocks })
    }
}

/// An attached guard, as the kernel has it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its mode: `enforce` or `monitor`.
    pub mode: &'static str,
    /// By interface, zeros included.
    pub rows: Vec<CounterRow>,
    /// Its interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Packets that no event tells of.
    pub lost: u64,
    /// What the guard can't do on this kernel.
    pub weaknesses: Vec<Weakness>,
    sizes: Sizes,
    stored: Option<OfStored>,
}

#[derive(Clone, Debug)]
struct OfStored {
    trunks: Vec<(TrunkRow, Vec<CounterRow>)>,
    blocks: Vec<(String, i64)>,
}

impl Kernel {
    /// As it is now. Without `stored` nothing is said of trunks and sources of blocks.
    pub fn read(pins: &Pins, sizes: &Sizes, stored: Option<&Stored>) -> Result<Kernel> {
        let clock = Clock::now()?;
        let of_stored = |stored: &Stored| {
            let trunks = stored.trunks.iter();
            let trunks = trunks.map(|trunk| Ok((trunk.clone(), counters::of_trunk(pins, trunk)?)));
            // Bans are the guard's own blocks.
            let bans = Bans::open(pins)?.list(clock.boot_ns)?.len() as i64;
            let blocks = stored.blocks.iter().cloned().chain([(GUARD.to_owned(), bans)]).collect();
            anyhow::Ok(OfStored { trunks: trunks.collect::<Result<_>>()?, blocks })
        };
        Ok(Kernel {
            mode: status::mode(&maps::settings(pins)?),
            rows: counters::read(pins, true)?,
            interfaces: status::interfaces(pins, &clock)?,
            lost: tap::lost(pins)?,
            weaknesses: status::weaknesses(pins),
            sizes: sizes.clone(),
            stored: stored.map(of_stored).transpose()?,
        })
    }

    /// With `all` also the reasons that did not occur.
    fn register(&self, registry: &mut Registry, all: bool) {
        let (received, received_bytes) = (Counts::default(), Counts::default());
        let (dropped, dropped_bytes) = (Counts::default(), Counts::default());
        let (would, would_bytes) = (Counts::default(), Counts::default());
        let unjudged = Counts::default();
        for row in &self.rows {
            let interface = vec![("interface", row.interface.clone())];
            let once = u64::from(row.is_received());
            received.get_or_create(&interface).inc_by(row.packets * once);
            received_bytes.get_or_create(&interface).inc_by(row.bytes * once);
            if row.packets == 0 && !all {
                continue;
            }
            let labels = vec![
                ("interface", row.interface.clone()),
                ("reason", row.reason.name().to_owned()),
                ("class", row.reason.class().name().to_owned()),
            ];
            if status::UNJUDGED.contains(&row.reason) && row.action == Action::Pass {
                let reason = ("reason", row.reason.name().to_owned());
                unjudged.get_or_create(&vec![interface[0].clone(), reason]).inc_by(row.packets);
            }
            let (packets, bytes) = match row.action {
                Action::Pass => continue,
                Action::Drop | Action::Reset => (&dropped, &dropped_bytes),
                Action::WouldDrop | Action::WouldReset => (&would, &would_bytes),
            };
            packets.get_or_create(&labels).inc_by(row.packets);
            bytes.get_or_create(&labels).inc_by(row.bytes);
        }
        self.register_state(registry);
        let weak = Family::<Labels, Gauge>::default();
        for one in &self.weaknesses {
            weak.get_or_create(&vec![("what", one.what.to_owned())]).set(1);
        }
        registry.register("weakness", "What the guard can't do on this kernel", weak);
        let bytes = Unit::Bytes;
        registry.register(
            "received_packets",
            "Packets that the guard looked at, each once; what a block let pass is in would_drop alone",
            received,
        );
        registry.register_with_unit(
            "received",
            "Bytes that the guard looked at, each once; what a block let pass is in would_drop alone",
            bytes.clone(),
            received_bytes,
        );
        let text = "Packets of guarded traffic that passed unjudged";
        registry.register("unjudged_packets", text, unjudged);
        registry.register("dropped_packets", "Packets dropped or turned into a reset", dropped);
        let text = "Bytes dropped or turned into a reset";
        registry.register_with_unit("dropped", text, bytes.clone(), dropped_bytes);
        registry.register(
            "would_drop_packets",
            "Packets that monitor mode let pass, or a check, limit or block that only counts",
            would,
        );
        registry.register_with_unit(
            "would_drop",
            "Bytes that monitor mode let pass, or a check, limit or block that only counts",
            bytes,
            would_bytes,
        );
        self.register_sizes(registry);
        if let Some(stored) = &self.stored {
            stored.register(registry);
        }
    }

    /// Mode and interfaces.
    fn register_state(&self, registry: &mut Registry) {
        let modes = Family::<Labels, Gauge>::default();
        for mode in RuleMode::ALL.iter().map(|mode| mode.name()) {
            modes.get_or_create(&vec![("mode", mode.to_owned())]).set(i64::from(mode == self.mode));
        }
        registry.register("mode", "1 for the mode of the guard that is in force", modes);
        let interfaces = Family::<Labels, Gauge>::default();
        let guarded = Family::<Labels, Gauge>::default();
        let attached = Family::<Labels, Gauge>::default();
        for one in &self.interfaces {
            let labels = vec![
                ("interface", one.name.clone()),
                ("driver", one.driver.clone()),
                ("mode", one.mode.to_owned()),
            ];
            interfaces.get_or_create(&labels).set(1);
            let interface = vec![("interface", one.name.clone())];
            if !one.is_absent() {
                guarded.get_or_create(&interface).set(i64::from(!one.is_gone()));
            }
            if let Some(since) = one.since {
                attached.get_or_create(&interface).set(since.as_second());
            }
        }
        let text =
            "Attached interfaces; mode is native or generic where it filters, else gone, absent or elsewhere";
        registry.register("interface_info", text, interfaces);
        let text = "Whether packets are filtered on an interface that was attached and is there";
        registry.register("interface_guarded", text, guarded);
        let text = "When an interface was attached, in seconds since 1970";
        registry.register_with_unit("interface_attached_timestamp", text, Unit::Seconds, attached);
    }

    /// How full maps are.
    fn register_sizes(&self, registry: &mut Registry) {
        let Sizes { blocks: _, connections, tables } = &self.sizes;
        let flows = TableFill { name: "flows", entries: connections.flows, capacity: connections.flows_max };
        let entries = Family::<Labels, Gauge>::default();
        let capacity = Family::<Labels, Gauge>::default();
        for table in tables.iter().chain([&flows]) {
            let labels = vec![("map", table.name.to_owned())];
            entries.get_or_create(&labels).set(table.entries as i64);
            capacity.get_or_create(&labels).set(i64::from(table.capacity));
        }
        let text = "Entries of a map, ended ones among them, and in bans senders that are not banned yet; flows and offenders give way when it is full";
        registry.register("map_entries", text, entries);
        registry.register("map_capacity", "Entries that a map has room for", capacity);
        let gauge = Gauge::<i64>::default();
        gauge.set(connections.live() as i64);
        registry.register("connections", "Established connections that are followed", gauge);
        let lost = connections.known.iter().map(|known| known.lost).sum::<usize>();
        let gauge = Gauge::<i64>::default();
        gauge.set(lost as i64);
        let text = "Established connections that pass unjudged until a message begins";
        registry.register("connections_lost", text, gauge);
    }
}

impl OfStored {
    fn register(&self, registry: &mut Registry) {
        let (received, dropped) = (Counts::default(), Counts::default());
        let modes = Family::<Labels, Gauge>::default();
        for (trunk, rows) in &self.trunks {
            let labels = vec![("trunk", trunk.name.clone())];
            let mode = trunk.policy.mode.name().to_owned();
            modes.get_or_create(&vec![labels[0].clone(), ("mode", mode)]).set(1);
            let (received, dropped) =
                (received.get_or_create_owned(&labels), dropped.get_or_create_owned(&labels));
            for row in rows {
                received.inc_by(if row.is_received() { row.packets } else { 0 });
                if matches!(row.action, Action::Drop | Action::Reset) {
                    dropped.inc_by(row.packets);
                }
            }
        }
        let blocks = Family::<Labels, Gauge>::default();
        for (origin, count) in &self.blocks {
            blocks.get_or_create(&vec![("origin", origin.clone())]).inc_by(*count);
        }
        let text = "The mode of a trunk: enforce, monitor, or inherit for that of the guard";
        registry.register("trunk_mode", text, modes);
        registry.register(
            "trunk_received_packets",
            "Packets of a trunk that the guard looked at, each once",
            received,
        );
        let text = "Packets of a trunk dropped or turned into a reset";
        registry.register("trunk_dropped_packets", text, dropped);
        let text = "Active blocks, by who set them; those of the origin guard are bans";
        registry.register("blocks", text, blocks);
    }
}

/// What `sipguard serve` tells of itself; the default is no `serve`.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Whether a guard filters on all interfaces that it was attached to and that are there; `None` where that is no question.
    pub attached: Option<bool>,
    /// Events that were written over before they were read.
    pub missed: u64,
    /// What takes the events or keeps the history, and whether it fails.
    pub parts: Vec<(&'static str, bool)>,
    /// Crashes of the PBX.
    pub crashes: u64,
    /// What was done to core dumps.
    pub core_actions: u64,
    /// What the process uses.
    pub process: Option<ProcessUsage>,
}

/// How the metrics are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The form of the text.
    pub form: Form,
    /// Whether the reasons are told, too, that did not occur.
    pub all: bool,
}

impl Own {
    fn register(&self, registry: &mut Registry) {
        let Some(attached) = self.attached else { return };
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::from(attached));
        registry.register(
            "attached",
            "Whether a guard filters on all interfaces that it was attached to and that are there",
            gauge,
        );
        let failing = Family::<Labels, Gauge>::default();
        for (part, fails) in &self.parts {
            failing.get_or_create(&vec![("part", (*part).to_owned())]).set(i64::from(*fails));
        }
        registry.register("serve_failing", "Whether a part of sipguard serve fails", failing);
        for (name, help, count) in [
            ("pbx_crashes", "Crashes of the PBX that sipguard serve saw", self.crashes),
            ("core_actions", "Core dumps that sipguard serve moved, deleted or cut off", self.core_actions),
        ] {
            let counter = Counter::<u64>::default();
            counter.inc_by(count);
            registry.register(name, help, counter);
        }
    }
}

/// The text: of an attached guard, or without one.
pub fn text(kernel: Option<&Kernel>, own: &Own, request: Request) -> Result<String> {
    let mut registry = Registry::with_prefix("sipguard");
    let build = Family::<Labels, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    build.get_or_create(&vec![("version", version), ("abi", ABI_VERSION.to_string())]).set(1);
    registry.register("build_info", "The version of sipguard, and of the layout of its maps", build);
    if let Some(kernel) = kernel {
        kernel.register(&mut registry, request.all);
    }
    let lost = Counter::<u64>::default();
    lost.inc_by(kernel.map_or(0, |kernel| kernel.lost) + own.missed);
    registry.register("events_lost", "Stopped packets without an event, and events not read in time", lost);
    own.register(&mut registry);
    let mut of_process = Registry::default();
    if let Some(process) = &own.process {
        process.register(&mut of_process);
    }
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &of_process)?;
    encode_eof(&mut text)?;
    Ok(request.form.of(ordered(&text)))
}

/// The samples of each metric in the order of their labels: the library keeps them in a hash table.
fn ordered(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for samples in lines.chunk_by_mut(|one, other| one.starts_with('#') == other.starts_with('#')) {
        if !samples[0].starts_with('#') {
            samples.sort_unstable();
        }
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_in_the_order_of_their_labels() {
        let parts = ["log", "evidence", "the history", "Homer", "journal"].map(|part| (part, part == "log"));
        let own = Own { attached: Some(true), missed: 3, parts: parts.to_vec(), ..Own::default() };
        let request = Request { form: Form::OpenMetrics, all: false };
        let text = text(None, &own, request).unwrap();
        let failing: Vec<&str> =
            text.lines().filter(|line| line.starts_with("sipguard_serve_failing{")).collect();
        assert_eq!(
            failing,
            [
                "sipguard_serve_failing{part=\"Homer\"} 0",
                "sipguard_serve_failing{part=\"evidence\"} 0",
                "sipguard_serve_failing{part=\"journal\"} 0",
                "sipguard_serve_failing{part=\"log\"} 1",
                "sipguard_serve_failing{part=\"the history\"} 0",
            ]
        );
        assert!(text.ends_with("# EOF\n") && text.starts_with("# HELP sipguard_build_info "), "{text}");
    }
}
