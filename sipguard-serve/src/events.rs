//! Reads events, across detach and attach.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sipguard_common::abi::PacketRecord;
use sipguard_core::clock::Clock;
use sipguard_core::pins::Pins;
use sipguard_core::presence::{iface_name, own_slots};
use sipguard_observe::tap::{Names, Start, TapPacket, TapRing, Which};

use super::attached::AttachedGuard;
use super::history::Position;

/// Names of interfaces and trunks are read anew when they are older than this and an event came.
const NAMES_NS: u64 = 5_000_000_000;

/// A reader of the events of whatever guard is attached.
pub(crate) struct Events {
    pins: Pins,
    store: PathBuf,
    ring: Option<(AttachedGuard, TapRing)>,
    /// Where the last process had got to.
    saved: Option<Position>,
    /// Whether a guard was looked for before: what is new then begins with its first event.
    looked: bool,
    missed_before: u64,
    names: Names,
    named_ns: u64,
}

impl Events {
    /// A reader that goes on where the last process had got to.
    #[must_use]
    pub(crate) fn new(pins: &Pins, store: &Path, saved: Option<Position>) -> Events {
        Events {
            pins: pins.clone(),
            store: store.to_owned(),
            ring: None,
            saved,
            looked: false,
            missed_before: 0,
            names: Names::default(),
            named_ns: 0,
        }
    }

    /// What came since the last time; `guard` is the one that is attached.
    pub(crate) fn read(&mut self, guard: Option<&AttachedGuard>, clock: &Clock) -> Result<Vec<TapPacket>> {
        let mut records = Vec::new();
        // The rings of a guard that is gone are memory of ours until they are let go.
        if let Some((_, ring)) = &mut self.ring {
            take(ring, &mut records)?;
        }
        if self.ring.as_ref().map(|(of, _)| of) != guard {
            self.change(guard, &mut records)?;
        }
        self.looked = true;
        self.packets(&records, clock)
    }

    fn change(&mut self, guard: Option<&AttachedGuard>, records: &mut Vec<PacketRecord>) -> Result<()> {
        if let Some((_, ring)) = self.ring.take() {
            self.missed_before += ring.missed();
        }
        let Some(guard) = guard else { return Ok(()) };
        let saved = self.saved.take().filter(|saved| saved.guard == *guard);
        let start = match saved {
            Some(saved) => Start::At(saved.next),
            None if self.looked => Start::At(0),
            None => Start::Oldest,
        };
        let mut ring = TapRing::open(&self.pins, Which::Events, start)?;
        take(&mut ring, records)?;
        self.ring = Some((guard.clone(), ring));
        self.named_ns = 0;
        Ok(())
    }

    fn packets(&mut self, records: &[PacketRecord], clock: &Clock) -> Result<Vec<TapPacket>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let unknown = |record: &PacketRecord| !self.names.interfaces.contains_key(&record.slot);
        if clock.boot_ns.saturating_sub(self.named_ns) > NAMES_NS || records.iter().any(unknown) {
            // Of a guard that was detached meanwhile there are no names; that is no reason to lose its events.
            if let Ok(names) = Names::read(&self.pins, &self.store) {
                self.names = names;
            } else if let Ok(slots) = own_slots(&self.pins) {
                self.names.interfaces =
                    slots.iter().map(|(slot, iface)| (*slot, iface_name(iface))).collect();
            }
            self.named_ns = clock.boot_ns;
        }
        Ok(records.iter().filter_map(|record| TapPacket::read(record, &self.names, clock)).collect())
    }

    /// How many events were written over before they were read.
    #[must_use]
    pub(crate) fn missed(&self) -> u64 {
        self.missed_before + self.ring.as_ref().map_or(0, |(_, ring)| ring.missed())
    }

    /// Where to go on, for the next process.
    #[must_use]
    pub(crate) fn position(&self) -> Option<Position> {
        let (guard, ring) = self.ring.as_ref()?;
        Some(Position { guard: guard.clone(), next: ring.next() })
    }
}

fn take(ring: &mut TapRing, records: &mut Vec<PacketRecord>) -> Result<()> {
    ring.read(|record| {
        records.push(*record);
        Ok(())
    })
}
