//! Readings to rates and their past. Pure.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use sipguard_common::Reason;
use sipguard_core::counters::{Action, CounterRow};
use sipguard_observe::ops::reading::{RuleCounts, TopEvent, TopReading};

/// Ticks that a sparkline may show.
pub const PAST: usize = 60;
/// The time that a rate is a mean of: rows stand still, as the tallies of the kernel do.
const MEAN_NS: u64 = 10_000_000_000;
/// Events that are kept.
const EVENTS: usize = 1000;

/// Something that is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetricKey {
    /// All packets.
    Received,
    /// Those that were stopped.
    Dropped,
    /// Those that monitor mode let pass, or a check, limit or block that only counts.
    WouldDrop,
    /// Those of an interface, and what was stopped of them.
    Interface(String, bool),
    /// Those of one row of the counters.
    Counter(String, Reason, Action),
    /// Those of one reason and action, over all interfaces.
    Reason(Reason, Action),
    /// Those of one address that were malformed or over a limit.
    Source(IpAddr),
    /// Those of a trunk, and what was stopped of them.
    Trunk(String, bool),
}

/// One number over time.
#[derive(Clone, Debug, Default)]
struct Track {
    value: u64,
    per_sec: f64,
    past: VecDeque<f64>,
    /// Readings of the last 10 s, and the one before: when, and the value.
    recent: VecDeque<(u64, u64)>,
}

impl Track {
    /// The mean of the last 10 s, or of the time since it is known.
    fn mean(&mut self, at_ns: u64) {
        self.recent.push_back((at_ns, self.value));
        while self.recent.get(1).is_some_and(|(second_ns, _)| second_ns + MEAN_NS <= at_ns) {
            self.recent.pop_front();
        }
        let (from_ns, from) = self.recent[0];
        let seconds = at_ns.saturating_sub(from_ns) as f64 / 1e9;
        self.per_sec = if seconds > 0.0 { self.value.saturating_sub(from) as f64 / seconds } else { 0.0 };
    }
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The last reading.
    pub reading: Option<TopReading>,
    /// Why there is none at the moment.
    pub error: Option<String>,
    /// The rules when they were read last.
    pub rules: RuleCounts,
    /// The last events, the oldest first.
    pub events: VecDeque<TopEvent>,
    /// Seconds between the last two readings; 0 before there are two.
    pub seconds: f64,
    tracks: HashMap<MetricKey, Track>,
}

impl Model {
    /// Takes the next reading.
    pub fn take(&mut self, mut reading: TopReading) {
        let before = self.reading.as_ref().map(|before| before.at_ns);
        let elapsed_ns = before.map(|at_ns| reading.at_ns.saturating_sub(at_ns));
        self.seconds = elapsed_ns.map_or(0.0, |ns| ns as f64 / 1e9);
        let mut old = std::mem::take(&mut self.tracks);
        for (key, value) in counted(&reading) {
            let mut track = old.remove(&key).unwrap_or_default();
            if let Some(before) = before
                && self.seconds > 0.0
            {
                // A counter that went back began anew: all that it has came since.
                let since = value.checked_sub(track.value).unwrap_or(value);
                if track.recent.is_empty() || value < track.value {
                    track.recent = [(before, value - since)].into();
                }
                track.past.push_back(since as f64 / self.seconds);
                track.past.drain(..track.past.len().saturating_sub(PAST));
            }
            track.value = value;
            track.mean(reading.at_ns);
            self.tracks.insert(key, track);
        }
        self.events.extend(reading.events.drain(..));
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        if let Some(rules) = reading.rules.take() {
            self.rules = rules;
        }
        self.error = reading.error.take();
        self.reading = Some(reading);
    }

    /// Says why there is no reading at the moment; the last one stays.
    pub fn fail(&mut self, why: String) {
        self.error = Some(why);
    }

    /// Packets now; 0 for what was never counted.
    #[must_use]
    pub fn value(&self, key: &MetricKey) -> u64 {
        self.tracks.get(key).map_or(0, |track| track.value)
    }

    /// Packets a second, a mean of the last 10 s.
    #[must_use]
    pub fn per_sec(&self, key: &MetricKey) -> f64 {
        self.tracks.get(key).map_or(0.0, |track| track.per_sec)
    }

    /// Packets a second between each two of the last 60 readings, the oldest first.
    #[must_use]
    pub fn past(&self, key: &MetricKey) -> Vec<f64> {
        self.tracks.get(key).map_or_else(Vec::new, |track| track.past.iter().copied().collect())
    }

    /// Packets by reason and action over all interfaces, in the order of the counters.
    #[must_use]
    pub fn reasons(&self) -> Vec<(Reason, Action, u64)> {
        let mut sums: Vec<(Reason, Action, u64)> = Vec::new();
        for row in self.counters() {
            match sums.iter_mut().find(|(reason, action, _)| (*reason, *action) == (row.reason, row.action)) {
                Some((_, _, sum)) => *sum += row.packets,
                None => sums.push((row.reason, row.action, row.packets)),
            }
        }
        sums
    }

    /// The rows of the counters.
    #[must_use]
    pub fn counters(&self) -> &[CounterRow] {
        self.reading.as_ref().map_or(&[], |reading| &reading.counters)
    }
}

/// Every number of a reading.
fn counted(reading: &TopReading) -> HashMap<MetricKey, u64> {
    // What is always shown has a past from the first reading on, also while nothing comes.
    let mut sums: HashMap<MetricKey, u64> = [MetricKey::Received, MetricKey::Dropped, MetricKey::WouldDrop]
        .into_iter()
        .map(|key| (key, 0))
        .collect();
    let mut add = |key: MetricKey, packets: u64| *sums.entry(key).or_default() += packets;
    for one in &reading.interfaces {
        add(MetricKey::Interface(one.name.clone(), false), 0);
        add(MetricKey::Interface(one.name.clone(), true), 0);
    }
    for row in &reading.counters {
        if row.is_received() {
            add(MetricKey::Received, row.packets);
            add(MetricKey::Interface(row.interface.clone(), false), row.packets);
        }
        if row.action.stops() {
            add(MetricKey::Dropped, row.packets);
            add(MetricKey::Interface(row.interface.clone(), true), row.packets);
        } else if row.action.would_stop() {
            add(MetricKey::WouldDrop, row.packets);
        }
        add(MetricKey::Counter(row.interface.clone(), row.reason, row.action), row.packets);
        add(MetricKey::Reason(row.reason, row.action), row.packets);
    }
    for row in &reading.sources {
        add(MetricKey::Source(row.address), row.packets);
    }
    for trunk in &reading.trunks {
        add(MetricKey::Trunk(trunk.name.clone(), false), trunk.received);
        add(MetricKey::Trunk(trunk.name.clone(), true), trunk.dropped);
    }
    sums
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::top::fixture::fixed;

    const BAD: MetricKey = MetricKey::Reason(Reason::BareLf, Action::Reset);

    fn at(seconds: u64, bad: u64) -> TopReading {
        let mut reading = fixed(seconds);
        reading.counters.retain(|row| row.reason == Reason::BareLf);
        reading.counters[0].packets = bad;
        reading
    }

    #[test]
    fn a_rate_needs_two_readings_and_is_a_second_s() {
        let mut model = Model::default();
        model.take(at(10, 1000));
        assert_eq!((model.per_sec(&BAD), model.past(&BAD)), (0.0, Vec::new()));
        model.take(at(14, 1100));
        assert_eq!((model.value(&BAD), model.per_sec(&BAD), model.seconds), (1100, 25.0, 4.0));
        assert_eq!((model.per_sec(&MetricKey::Received), model.per_sec(&MetricKey::Dropped)), (25.0, 25.0));
        model.take(at(15, 1100));
        assert_eq!(model.past(&BAD), [25.0, 0.0]);
    }

    #[test]
    fn a_rate_stands_still_for_ten_seconds() {
        let mut model = Model::default();
        // A packet each third of a second or so: between two readings none came or one.
        for tick in 0..200u64 {
            let mut reading = at(10, tick / 3);
            reading.at_ns = 10_000_000_000 + tick * 200_000_000;
            model.take(reading);
            if tick > 60 {
                assert!((1.6..=1.7).contains(&model.per_sec(&BAD)), "{tick}: {}", model.per_sec(&BAD));
            }
        }
        assert!(model.past(&BAD).contains(&5.0) && model.past(&BAD).contains(&0.0));
    }

    #[test]
    fn what_comes_for_the_first_time_came_since_the_last_reading() {
        let mut model = Model::default();
        let mut empty = at(10, 0);
        empty.counters.clear();
        model.take(empty);
        model.take(at(12, 8));
        assert_eq!(model.per_sec(&BAD), 4.0);
    }

    #[test]
    fn a_counter_that_went_back_began_anew() {
        let mut model = Model::default();
        model.take(at(10, 1000));
        model.fail("not attached".to_owned());
        assert!(model.reading.is_some() && model.error.is_some());
        model.take(at(12, 6));
        assert_eq!((model.per_sec(&BAD), model.error.as_deref()), (3.0, None));
    }

    #[test]
    fn the_past_and_the_events_are_bounded() {
        let mut model = Model::default();
        for second in 0..200u64 {
            let mut reading = at(second, second * second);
            reading.events = vec![fixed(0).events[0].clone(); 10];
            model.take(reading);
        }
        assert_eq!((model.past(&BAD).len(), model.events.len()), (PAST, EVENTS));
        assert_eq!(model.past(&BAD).last(), Some(&397.0));
    }

    #[test]
    fn reasons_are_summed_over_interfaces() {
        let mut model = Model::default();
        model.take(fixed(10));
        let sum: u64 = model.reasons().iter().map(|(_, _, packets)| packets).sum();
        assert_eq!(sum, model.value(&MetricKey::Received));
        let valid = model.reasons().into_iter().find(|(reason, _, _)| *reason == Reason::Valid);
        assert_eq!(valid, Some((Reason::Valid, Action::Pass, 120_000 + 3456)));
    }
}
