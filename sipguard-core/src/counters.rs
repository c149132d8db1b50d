//! Counters by interface and reason, summed over the CPUs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::PerCpuValues;
use aya::util::nr_cpus;
use sipguard_common::abi::{Counter, Outcome, counter_index, names, trunk_counter_index};
use sipguard_common::{Class, Reason};

use crate::maps::{self, Counters, Plain};
use crate::named::named;
use crate::pins::Pins;
use crate::presence::{iface_name, own_slots};
use crate::trunk::TrunkRow;

/// What became of the packets of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Passed.
    Pass,
    /// Dropped.
    Drop,
    /// Turned into a reset of its connection.
    Reset,
    /// `monitor` mode let pass what would have been dropped.
    WouldDrop,
    /// `monitor` mode let pass what would have reset the connection.
    WouldReset,
}

named!(Action {
    Pass = "pass",
    Drop = "drop",
    Reset = "reset",
    WouldDrop = "would-drop",
    WouldReset = "would-reset",
});

impl Action {
    /// Whether the packet was stopped. In monitor mode none is.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Action::Drop | Action::Reset)
    }

    /// Whether the packet passed only because the guard, or its trunk, or the rule, monitors.
    #[must_use]
    pub fn would_stop(self) -> bool {
        matches!(self, Action::WouldDrop | Action::WouldReset)
    }

    /// What became of a packet, by the word of the kernel side.
    #[must_use]
    pub fn of_outcome(reason: Reason, outcome: Outcome) -> Action {
        match (reason.class(), outcome) {
            (Class::Pass, _) => Action::Pass,
            (Class::Drop | Class::Reset | Class::Malformed, Outcome::Plain) => Action::Drop,
            (Class::Drop | Class::Reset | Class::Malformed, Outcome::Reset) => Action::Reset,
            (Class::Drop | Class::Reset | Class::Malformed, Outcome::WouldDrop) => Action::WouldDrop,
            (Class::Drop | Class::Reset | Class::Malformed, Outcome::WouldReset) => Action::WouldReset,
        }
    }

    /// Whether that can become of a packet: what only passes is never stopped, a datagram has no connection to reset, and a rule about a
    /// sender resets the connection of a client behind a balancer.
    #[must_use]
    fn is_possible(reason: Reason, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Plain => true,
            Outcome::WouldDrop => reason.class() != Class::Pass,
            Outcome::Reset if reason.is_of_sender() => true,
            Outcome::Reset | Outcome::WouldReset => {
                matches!(reason.class(), Class::Malformed | Class::Reset) && !reason.is_of_datagrams()
            }
        }
    }
}

/// One row of the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
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

impl CounterRow {
    /// Whether the packets belong to those that were received, of which each is counted once. What a limit or a block let pass does not: a limit
    /// only notes it, and the packet goes on to its verdict. So does a block that only counts; one in monitor mode ends the packet's way, and the
    /// kernel has one number for both. What is received must neither differ between two views nor go back when the mode changes, so that number is
    /// never part of it.
    #[must_use]
    pub fn is_received(&self) -> bool {
        !(self.action.would_stop() && (self.reason.is_limit() || self.is_of_block()))
    }

    /// Whether a block is the reason.
    #[must_use]
    pub fn is_of_block(&self) -> bool {
        is_block(self.reason)
    }
}

/// Whether it is the reason of a block, which may be one that only counts.
fn is_block(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BlockedHost
            | Reason::BlockedPrefix
            | Reason::BlockedDevice
            | Reason::BlockedIdentity
            | Reason::BlockedUserAgent
    )
}

fn row(interface: &str, reason: Reason, outcome: Outcome, counted: Counter) -> CounterRow {
    let Counter { packets, bytes } = counted;
    let action = Action::of_outcome(reason, outcome);
    CounterRow { interface: interface.to_owned(), reason, action, packets, bytes }
}

/// Every counter of the attached interfaces, zeros left out unless `zeros`.
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins, zeros: bool) -> Result<Vec<CounterRow>> {
    let map: Counters = maps::open(pins, names::COUNTERS)?;
    let mut rows = Vec::new();
    for (slot, iface) in own_slots(pins)? {
        let interface = iface_name(&iface);
        for (reason, outcome) in kinds() {
            let counted = sum(&map, counter_index(slot, outcome, reason.number()))?;
            if counted.packets > 0 || zeros {
                rows.push(row(&interface, reason, outcome, counted));
            }
        }
    }
    Ok(rows)
}

/// What was counted of a trunk, over all interfaces; `interface` is its name.
///
/// # Errors
/// When a map can't be read.
pub fn of_trunk(pins: &Pins, trunk: &TrunkRow) -> Result<Vec<CounterRow>> {
    let map: Counters = maps::open(pins, names::TRUNK_COUNTERS)?;
    let mut rows = Vec::new();
    for (reason, outcome) in kinds() {
        let index = trunk_counter_index(u32::from(trunk.number), outcome, reason.number());
        let counted = sum(&map, index)?;
        if counted.packets > 0 {
            rows.push(row(&trunk.name, reason, outcome, counted));
        }
    }
    Ok(rows)
}

/// Begins anew for a trunk that takes the index of one that is gone.
///
/// # Errors
/// When the map can't be written.
pub(crate) fn clear_trunk(pins: &Pins, number: u16) -> Result<()> {
    let mut map: Counters = maps::open(pins, names::TRUNK_COUNTERS)?;
    let first = trunk_counter_index(u32::from(number), Outcome::Plain, 0);
    for index in first..trunk_counter_index(u32::from(number) + 1, Outcome::Plain, 0) {
        let zeros = vec![Plain(Counter::default()); nr_cpus().map_err(|(_, error)| error)?];
        map.set(index, PerCpuValues::try_from(zeros)?, 0).context("clearing the counters of a trunk")?;
    }
    Ok(())
}

/// What is counted apart.
fn kinds() -> impl Iterator<Item = (Reason, Outcome)> {
    let reasons = |outcome| Reason::ALL.iter().map(move |reason| (*reason, outcome));
    let possible = |(reason, outcome): &(Reason, Outcome)| Action::is_possible(*reason, *outcome);
    Outcome::ALL.into_iter().flat_map(reasons).filter(possible)
}

fn sum(map: &Counters, index: u32) -> Result<Counter> {
    let values = map.get(&index, 0).context("reading the counters")?;
    Ok(values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets + value.0.packets,
        bytes: sum.bytes + value.0.bytes,
    }))
}

/// The counters of the attached interfaces at one moment.
#[derive(Clone, Debug)]
pub struct CounterReading {
    /// When: in the middle of the time that it took to read them.
    pub at: Instant,
    /// Rows that are not zero.
    pub rows: Vec<CounterRow>,
}

impl CounterReading {
    /// As it is now.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn now(pins: &Pins) -> Result<CounterReading> {
        let begin = Instant::now();
        let rows = read(pins, false)?;
        Ok(CounterReading { at: begin + begin.elapsed() / 2, rows })
    }

    /// What was counted since an earlier reading, and the time that really passed in between.
    #[must_use]
    pub fn since(&self, before: &CounterReading) -> (Duration, Vec<CounterRow>) {
        (self.at.saturating_duration_since(before.at), since(&before.rows, &self.rows))
    }
}

/// So many a second, when they were counted within `span`; 0 where no time passed.
#[must_use]
pub fn per_sec(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

/// What was counted between two readings.
fn since(before: &[CounterRow], after: &[CounterRow]) -> Vec<CounterRow> {
    let key = |row: &CounterRow| (row.interface.clone(), row.reason.number(), row.action);
    let old: BTreeMap<_, _> = before.iter().map(|row| (key(row), (row.packets, row.bytes))).collect();
    let mut rows = Vec::new();
    for row in after {
        let (packets, bytes) = old.get(&key(row)).copied().unwrap_or_default();
        // A counter that went back began anew: all that it has came since.
        let row = CounterRow {
            packets: row.packets.checked_sub(packets).unwrap_or(row.packets),
            bytes: row.bytes.checked_sub(bytes).unwrap_or(row.bytes),
            ..row.clone()
        };
        if row.packets > 0 {
            rows.push(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(reason: Reason, action: Action, packets: u64) -> CounterRow {
        let (interface, bytes) = ("eth0".to_owned(), packets * 500);
        CounterRow { interface, reason, action, packets, bytes }
    }

    #[test]
    fn what_is_counted_apart_is_not_received() {
        let counted = Counter { packets: 7, bytes: 700 };
        for (reason, outcome, received) in [
            (Reason::RateRegister, Outcome::WouldDrop, false),
            (Reason::OpenConnections, Outcome::WouldDrop, false),
            (Reason::RateRegister, Outcome::Plain, true),
            (Reason::BlockedUserAgent, Outcome::WouldDrop, false),
            (Reason::BlockedHost, Outcome::Plain, true),
            (Reason::BareLf, Outcome::WouldReset, true),
            (Reason::BannedDevice, Outcome::WouldDrop, true),
            (Reason::Valid, Outcome::Plain, true),
        ] {
            assert_eq!(row("eth0", reason, outcome, counted).is_received(), received, "{}", reason.name());
        }
    }

    #[test]
    fn a_rate_is_over_the_time_that_passed() {
        let at = Instant::now();
        let before = CounterReading { at, rows: vec![counter(Reason::BareLf, Action::Drop, 100)] };
        let rows = vec![
            counter(Reason::Valid, Action::Pass, 0),
            counter(Reason::BareLf, Action::Drop, 400),
            counter(Reason::BareLf, Action::Reset, 8),
        ];
        // A machine under load, or a lock that others held: four seconds, not the one that was asked for.
        let (span, rows) = CounterReading { at: at + Duration::from_secs(4), rows }.since(&before);
        let rates: Vec<(Action, f64)> =
            rows.iter().map(|row| (row.action, per_sec(row.packets, span))).collect();
        assert_eq!(rates, [(Action::Drop, 75.0), (Action::Reset, 2.0)]);
        assert_eq!(per_sec(7, Duration::ZERO), 0.0);
    }

    #[test]
    fn datagrams_are_never_reset() {
        for reason in [Reason::NoEndOfHeaders, Reason::TruncatedBody, Reason::BadStun] {
            let kinds: Vec<Outcome> =
                kinds().filter(|(one, _)| *one == reason).map(|(_, outcome)| outcome).collect();
            assert_eq!(kinds, [Outcome::Plain, Outcome::WouldDrop], "{}", reason.name());
        }
        let ways = |reason: Reason| kinds().filter(|(one, _)| *one == reason).count();
        let reasons = [Reason::Valid, Reason::RatePackets, Reason::BlockedHost, Reason::BareLf];
        assert_eq!(reasons.map(ways), [1, 2, 3, 4]);
    }
}
