//! The rings of events and of captured packets.

use anyhow::{Context, Result};
use aya::maps::{MapInfo, PerCpuArray};
use sipguard_common::abi::{
    CAPTURED_ENTRIES, CURSOR_CAPTURED, CURSOR_ENTRIES, CURSOR_EVENTS, EVENT_ENTRIES, EventBucket,
    PacketRecord, names,
};
use sipguard_core::maps::{self, MapDir, Plain};
use sipguard_core::memory::Memory;
use sipguard_core::pins::Pins;

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What was stopped, sampled.
    Events,
    /// What a capture asked for.
    Captured,
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the oldest that is still there; what was before does not count as missed.
    Oldest,
    /// With this number.
    At(u64),
}

impl Which {
    fn map(self) -> &'static str {
        match self {
            Which::Events => names::EVENTS,
            Which::Captured => names::CAPTURED,
        }
    }
}

/// The kernel's number of the map of a ring: no two of a boot have one.
///
/// # Errors
/// When the map is not there.
pub fn ring_id(pins: &Pins, which: Which) -> Result<u32> {
    Ok(MapInfo::from_pin(pins.map(which.map())).context("reading the number of a map")?.id())
}

/// A record that is never finished, for whatever reason, is given up when this many came after it.
const GIVEN_UP: u64 = 64;

/// A reader of a ring.
#[derive(Debug)]
pub struct TapRing {
    records: Memory<PacketRecord>,
    cursors: Memory<u64>,
    cursor: u32,
    entries: u64,
    next: u64,
    missed: u64,
}

impl TapRing {
    /// Begins to read a ring.
    ///
    /// # Errors
    /// When a map is not there, or can't be mapped.
    pub fn open(dir: &dyn MapDir, which: Which, start: Start) -> Result<TapRing> {
        let (entries, cursor) = match which {
            Which::Events => (EVENT_ENTRIES, CURSOR_EVENTS),
            Which::Captured => (CAPTURED_ENTRIES, CURSOR_CAPTURED),
        };
        let records = Memory::of(dir, which.map(), entries)?;
        let cursors = Memory::of(dir, names::CURSORS, CURSOR_ENTRIES)?;
        let mut ring = TapRing { records, cursors, cursor, entries: u64::from(entries), next: 0, missed: 0 };
        let head = ring.head();
        ring.next = match start {
            Start::Now => head,
            Start::Oldest => head.saturating_sub(ring.entries),
            // A guard that was attached anew counts from the beginning.
            Start::At(number) if number > head => 0,
            Start::At(number) => number,
        };
        Ok(ring)
    }

    fn head(&self) -> u64 {
        self.cursors.load(self.cursor)
    }

    /// The number of the record that comes next: where [`Start::At`] goes on.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many records were written over before they were read.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Hands what came since the last time to `take`, the oldest first.
    ///
    /// # Errors
    /// Those of `take`; the record that it was for counts as read.
    pub fn read(&mut self, mut take: impl FnMut(&PacketRecord) -> Result<()>) -> Result<()> {
        let head = self.head();
        if head.saturating_sub(self.next) > self.entries {
            self.missed += head - self.entries - self.next;
            self.next = head - self.entries;
        }
        while self.next < head {
            let number = self.next;
            let index = (number % self.entries) as u32;
            match self.records.record(index) {
                Some(record) if record.number == number + 1 => {
                    self.next += 1;
                    take(&record)?;
                }
                // It was written over, or its place is being written for the next round.
                Some(record) if record.number > number + 1 => self.miss(),
                _ if self.head() - number > self.entries || self.head() - number > GIVEN_UP => self.miss(),
                // Whoever writes it is at it.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn miss(&mut self) {
        self.missed += 1;
        self.next += 1;
    }
}

/// Packets that no event tells of, because there were too many at once.
pub fn lost(dir: &dyn MapDir) -> Result<u64> {
    let map: PerCpuArray<_, Plain<EventBucket>> = maps::open(dir, names::EVENT_BUDGETS)?;
    let values = map.get(&0, 0).context("reading the budgets of events")?;
    Ok(values.iter().map(|value| value.0.lost).sum())
}
