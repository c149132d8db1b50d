//! What devices usually send, slowly learned: how often each token came, and how often one was new.

use std::collections::{HashMap, VecDeque};

use super::message::{self, Feature};
use crate::tap::TapPacket;

/// Tokens that are remembered.
const TOKENS: usize = 1 << 17;
/// Packets that wait to be learned.
const WAITING: usize = 1 << 12;
/// In a slot with more observations than this whose tokens are nearly all new, no token is worth remembering.
const RANDOM_AFTER: u32 = 64;

/// What is usual.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    tokens: HashMap<u64, u32>,
    slots: HashMap<u64, (u32, u32)>,
    waiting: VecDeque<(u64, Vec<(u64, u64)>)>,
    /// Until when packets were taken (`CLOCK_BOOTTIME`, nanoseconds).
    taken_ns: u64,
}

/// A feature's slot and token as numbers (FNV-1a, the same in every run).
#[must_use]
pub(super) fn key(feature: &Feature) -> (u64, u64) {
    let hash = |bytes: &[u8], start: u64| {
        bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let slot = hash(feature.slot.as_bytes(), 0xcbf2_9ce4_8422_2325);
    (slot, hash(feature.token.as_bytes(), hash(b"\0", slot)))
}

impl Baseline {
    /// Takes packets that are new since the last time; they count once nothing happened for a while, see [`Baseline::settle`].
    pub fn take(&mut self, packets: &[TapPacket]) {
        let mut last_ns = self.taken_ns;
        for packet in packets.iter().filter(|packet| packet.time_ns > self.taken_ns) {
            last_ns = last_ns.max(packet.time_ns);
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            let reading = message::read(packet.payload());
            self.waiting.push_back((packet.time_ns, reading.features.iter().map(key).collect()));
        }
        self.taken_ns = last_ns;
    }

    /// What came before `until_ns` did no harm: it is usual from now on.
    pub fn settle(&mut self, until_ns: u64) {
        let (old, young): (VecDeque<_>, VecDeque<_>) =
            self.waiting.drain(..).partition(|(time_ns, _)| *time_ns <= until_ns);
        self.waiting = young;
        for (slot, token) in old.into_iter().flat_map(|(_, keys)| keys) {
            self.count(slot, token);
        }
    }

    /// Forgets what waits, and passes over what came until then and was not taken yet: one of it was the cause of a crash.
    pub(crate) fn discard(&mut self, until_ns: u64) {
        self.waiting.clear();
        self.taken_ns = self.taken_ns.max(until_ns);
    }

    fn count(&mut self, slot: u64, token: u64) {
        let (total, novel) = self.slots.entry(slot).or_default();
        *total = total.saturating_add(1);
        if let Some(count) = self.tokens.get_mut(&token) {
            *count = count.saturating_add(1);
            return;
        }
        *novel = novel.saturating_add(1);
        if *total > RANDOM_AFTER && *novel > *total / 10 * 9 {
            return;
        }
        if self.tokens.len() == TOKENS {
            self.tokens.retain(|_, count| *count > 1);
        }
        if self.tokens.len() < TOKENS {
            self.tokens.insert(token, 1);
        }
    }

    /// How often a token came.
    #[must_use]
    pub fn seen(&self, token: u64) -> u32 {
        self.tokens.get(&token).copied().unwrap_or(0)
    }

    /// How many tokens of a slot came, and how many of them were new.
    #[must_use]
    pub fn slot(&self, slot: u64) -> (u32, u32) {
        self.slots.get(&slot).copied().unwrap_or_default()
    }

    /// Whether nothing was learned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
