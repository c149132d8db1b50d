//! Counters by interface and reason, summed over the CPUs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::maps::PerCpuValues;
use aya::util::nr_cpus;
use sipguard_common::abi::{ACTION_DROP, Counter, counter_index, names, trunk_counter_index};
use sipguard_common::{Class, Reason};

use crate::attach::{iface_name, own_slots};
use crate::maps::{self, Counters, Plain};
use crate::pins::Pins;
use crate::store::TrunkRow;

/// What became of the packets of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Passed.
    Pass,
    /// Dropped.
    Drop,
    /// The connection was reset; a malformed datagram, which has none, was dropped.
    Reset,
    /// `monitor` mode let pass what would have been dropped.
    WouldDrop,
    /// `monitor` mode let pass what would have reset the connection.
    WouldReset,
}

impl Action {
    /// The word of tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Action::Pass => "pass",
            Action::Drop => "drop",
            Action::Reset => "reset",
            Action::WouldDrop => "would-drop",
            Action::WouldReset => "would-reset",
        }
    }

    /// What becomes of a packet; `drops_malformed` where malformed streams are dropped and not reset.
    #[must_use]
    pub fn of(reason: Reason, let_pass: bool, drops_malformed: bool) -> Action {
        let ends = matches!(reason.class(), Class::Malformed | Class::Reset);
        let resets = ends && !reason.is_of_datagrams() && !drops_malformed;
        match (reason.class(), let_pass) {
            (Class::Pass, _) => Action::Pass,
            (_, false) if resets => Action::Reset,
            (_, true) if resets => Action::WouldReset,
            (_, false) => Action::Drop,
            (_, true) => Action::WouldDrop,
        }
    }
}

/// One row of the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Interface.
    pub interface: String,
    /// Reason.
    pub reason: Reason,
    /// What became of the packets.
    pub action: Action,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// Every counter of the attached interfaces, zeros left out unless `zeros`.
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins, zeros: bool) -> Result<Vec<Row>> {
    let map: Counters = maps::open(pins, names::COUNTERS)?;
    let drops_malformed = maps::settings(pins)?.action == ACTION_DROP;
    let mut rows = Vec::new();
    for (slot, iface) in own_slots(pins)? {
        let interface = iface_name(&iface);
        for let_pass in [false, true] {
            for reason in Reason::ALL.iter().copied() {
                let sum = sum(&map, counter_index(slot, let_pass, reason.number()))?;
                let possible = !let_pass || reason.class() != Class::Pass;
                if sum.packets > 0 || (zeros && possible) {
                    let action = Action::of(reason, let_pass, drops_malformed);
                    let interface = interface.clone();
                    rows.push(Row { interface, reason, action, packets: sum.packets, bytes: sum.bytes });
                }
            }
        }
    }
    Ok(rows)
}

/// What was counted of a trunk, over all interfaces; `interface` is its name.
///
/// # Errors
/// When a map can't be read.
pub fn of_trunk(pins: &Pins, trunk: &TrunkRow) -> Result<Vec<Row>> {
    let map: Counters = maps::open(pins, names::TRUNK_COUNTERS)?;
    let drops_malformed = maps::settings(pins)?.action == ACTION_DROP;
    let mut rows = Vec::new();
    for let_pass in [false, true] {
        for reason in Reason::ALL.iter().copied() {
            let index = trunk_counter_index(u32::from(trunk.number), let_pass, reason.number());
            let Counter { packets, bytes } = sum(&map, index)?;
            if packets > 0 {
                let action = Action::of(reason, let_pass, drops_malformed);
                rows.push(Row { interface: trunk.name.clone(), reason, action, packets, bytes });
            }
        }
    }
    Ok(rows)
}

/// Begins anew for a trunk that takes the index of one that is gone.
///
/// # Errors
/// When the map can't be written.
pub fn clear_trunk(pins: &Pins, number: u16) -> Result<()> {
    let mut map: Counters = maps::open(pins, names::TRUNK_COUNTERS)?;
    let first = trunk_counter_index(u32::from(number), false, 0);
    for index in first..trunk_counter_index(u32::from(number) + 1, false, 0) {
        let zeros = vec![Plain(Counter::default()); nr_cpus().map_err(|(_, error)| error)?];
        map.set(index, PerCpuValues::try_from(zeros)?, 0).context("clearing the counters of a trunk")?;
    }
    Ok(())
}

fn sum(map: &Counters, index: u32) -> Result<Counter> {
    let values = map.get(&index, 0).context("reading the counters")?;
    Ok(values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets + value.0.packets,
        bytes: sum.bytes + value.0.bytes,
    }))
}

/// What was counted between two readings.
#[must_use]
pub fn since(before: &[Row], after: &[Row]) -> Vec<Row> {
    let key = |row: &Row| (row.interface.clone(), row.reason.number(), row.action);
    let old: BTreeMap<_, _> = before.iter().map(|row| (key(row), (row.packets, row.bytes))).collect();
    let mut rows = Vec::new();
    for row in after {
        let (packets, bytes) = old.get(&key(row)).copied().unwrap_or_default();
        let row = Row {
            packets: row.packets.saturating_sub(packets),
            bytes: row.bytes.saturating_sub(bytes),
            ..row.clone()
        };
        if row.packets > 0 {
            rows.push(row);
        }
    }
    rows
}
