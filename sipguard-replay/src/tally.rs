//! What was judged, counted.

use std::collections::{BTreeMap, HashMap};

use sipguard_common::abi::ReplayVerdict;
use sipguard_common::{Class, Reason};
use sipguard_core::address::Mapped;
use sipguard_core::counters::Action;
use sipguard_observe::header::Header;

use super::clients::Sender;
use super::explain::Explanation;

/// Bytes of a payload that are shown.
const SAMPLE_BYTES: usize = 64;
/// Sources, ports and reasons that are told apart.
const SOURCES: usize = 1 << 12;

/// Addresses whose well-formed packets are counted.
const ADDRESSES: usize = 1 << 16;

/// Whose packets were stopped, and for what.
pub(crate) type SourceKey = (Mapped, u16, u8, Action);

/// What was stopped of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Packets.
    pub packets: u64,
    /// Number of the first one in the capture.
    pub first: u64,
    /// The first bytes of its payload, 64 at the most.
    pub sample: Vec<u8>,
    /// Index of the trunk whose it is, or 0.
    pub trunk: u8,
}

/// Counts of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Packets by reason's number and action.
    pub reasons: BTreeMap<(u8, Action), u64>,
    /// The same by the index of a trunk.
    pub trunks: BTreeMap<(u8, u8, Action), u64>,
    /// What was stopped, by source.
    pub sources: HashMap<SourceKey, Stopped>,
    /// Well-formed packets by address, of the first [`ADDRESSES`].
    pub well_formed: HashMap<Mapped, u64>,
    /// Packets that were stopped of sources beyond those.
    pub of_others: u64,
    /// Packets that the capture has only in part.
    pub cut: u64,
    /// Packets that belong to something of which the capture has only a part.
    pub lacking: u64,
    /// Frames too short for Ethernet, or longer than the kernel takes.
    pub no_frame: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Resets with data, as a guard makes of malformed segments.
    pub resets: u64,
    /// Where the faults of malformed messages are, in no order.
    pub explained: Vec<Explanation>,
}

impl Tally {
    /// One more packet that was judged. `client` is whom a balancer sent it for.
    pub(crate) fn count(
        &mut self,
        told: ReplayVerdict,
        number: u64,
        header: Option<&Header>,
        client: Option<Sender>,
        frame: &[u8],
    ) {
        let Some(reason) = Reason::from_number(told.reason()) else { return };
        let action = Action::of_outcome(reason, told.outcome());
        *self.reasons.entry((reason.number(), action)).or_default() += 1;
        if told.trunk() != 0 {
            *self.trunks.entry((told.trunk(), reason.number(), action)).or_default() += 1;
        }
        let (ends, payload) = header.map(|header| (header.ends, header.payload.clone())).unwrap_or_default();
        let (from, port) = client.unwrap_or((ends.from, ends.ports[0]));
        if reason.class() == Class::Pass {
            if reason == Reason::Valid
                && (self.well_formed.len() < ADDRESSES || self.well_formed.contains_key(&from))
            {
                *self.well_formed.entry(from).or_default() += 1;
            }
            return;
        }
        let key = (from, port, reason.number(), action);
        if let Some(stopped) = self.sources.get_mut(&key) {
            stopped.packets += 1;
        } else if self.sources.len() < SOURCES {
            let sample = frame.get(payload).unwrap_or_default();
            let sample = sample[..sample.len().min(SAMPLE_BYTES)].to_vec();
            self.sources.insert(key, Stopped { packets: 1, first: number, sample, trunk: told.trunk() });
        } else {
            self.of_others += 1;
        }
    }

    /// Takes the counts of another thread.
    pub(crate) fn add(&mut self, other: Tally) {
        for (key, packets) in other.reasons {
            *self.reasons.entry(key).or_default() += packets;
        }
        for (key, packets) in other.trunks {
            *self.trunks.entry(key).or_default() += packets;
        }
        for (key, theirs) in other.sources {
            match self.sources.get_mut(&key) {
                Some(ours) => {
                    ours.packets += theirs.packets;
                    if theirs.first < ours.first {
                        (ours.first, ours.sample) = (theirs.first, theirs.sample);
                    }
                }
                None => drop(self.sources.insert(key, theirs)),
            }
        }
        for (address, packets) in other.well_formed {
            *self.well_formed.entry(address).or_default() += packets;
        }
        self.of_others += other.of_others;
        self.cut += other.cut;
        self.lacking += other.lacking;
        self.no_frame += other.no_frame;
        self.connections += other.connections;
        self.resets += other.resets;
        self.explained.extend(other.explained);
    }

    /// Packets with one of these actions.
    #[must_use]
    pub(crate) fn with(&self, actions: &[Action]) -> u64 {
        self.reasons
            .iter()
            .filter(|((_, action), _)| actions.contains(action))
            .map(|(_, packets)| packets)
            .sum()
    }

    /// Packets of a reason.
    #[must_use]
    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.reasons
            .iter()
            .filter(|((number, _), _)| *number == reason.number())
            .map(|(_, packets)| packets)
            .sum()
    }
}
