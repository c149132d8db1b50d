//! `events`: what was stopped, packet by packet, from the kernel's memory of the last 1024 events.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use sipguard_common::Reason;
use sipguard_common::abi::{PacketRecord, names};
use sipguard_core::clock::Clock;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::ops::Context;
use sipguard_core::pins::Pins;

pub use crate::events::SenderFilter;
use crate::events::{EventFilter, RuleLookup};
use crate::redact::RedactedPacket;
use crate::tap::{Names, Start, TapPacket, TapRing, Which, lost};

/// How often the ring is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How long names of interfaces and trunks hold.
const NAMED: Duration = Duration::from_secs(2);

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Only of these reasons; none are all.
    pub reasons: Vec<Reason>,
    /// Only from these; none are all.
    pub sources: Vec<SenderFilter>,
    /// Only of this trunk.
    pub trunk: Option<String>,
    /// Only over this interface.
    pub interface: Option<String>,
    /// Only of this time until now.
    pub since: Option<Duration>,
}

/// An event, with the rule that decided.
#[derive(Debug)]
pub struct Event {
    /// The packet, with credentials overwritten.
    pub packet: RedactedPacket,
    /// The rule, for people.
    pub rule: Option<String>,
}

/// Something to be told while events are followed.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is told")]
pub enum Told {
    /// An event.
    Event(Event),
    /// Events came faster than they were read.
    Missed {
        /// When that was found.
        time: Timestamp,
        /// How many since the last time.
        more: u64,
        /// How many in all.
        missed: u64,
        /// Packets since the attach that are in no event.
        lost: u64,
    },
}

/// Reads events again and again.
pub struct Reader<'h> {
    host: &'h Context,
    filter: EventFilter,
    ring: TapRing,
    /// Records that were missed, and told of.
    missed: u64,
    /// Which map the ring is: a guard that is attached anew has another one.
    map: Option<u64>,
    names: Names,
    named: Instant,
    rules: RuleLookup,
}

impl<'h> Reader<'h> {
    /// Begins with the oldest event that is there.
    ///
    /// # Errors
    /// When no guard is attached, a trunk or an interface is unknown, or a map can't be read.
    pub fn open(host: &'h Context, request: Request) -> Result<Reader<'h>> {
        let pins = &host.pins;
        pins.check()?;
        let since = request.since.and_then(|span| SignedDuration::try_from(span).ok());
        let filter = EventFilter {
            reasons: request.reasons,
            sources: request.sources,
            trunk: request.trunk,
            interface: request.interface,
            since: since.map(|span| Timestamp::now().checked_sub(span).unwrap_or(Timestamp::MIN)),
        };
        let names = Names::read(pins, &host.store)?;
        filter.names_what_is_there(&names).map_err(|text| Failure::with(FailureKind::Usage, text))?;
        Ok(Reader {
            host,
            filter,
            ring: TapRing::open(pins, Which::Events, Start::Oldest)?,
            missed: 0,
            map: map(pins),
            names,
            named: Instant::now(),
            rules: RuleLookup::new(pins, &host.store),
        })
    }

    /// What came since the last time and is asked for; of it only the last `most`.
    ///
    /// # Errors
    /// When the ring can't be read.
    pub fn read(&mut self, most: Option<usize>) -> Result<Vec<Event>> {
        let mut records: Vec<PacketRecord> = Vec::new();
        self.ring.read(|record| {
            records.push(*record);
            Ok(())
        })?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if self.named.elapsed() > NAMED {
            // The old ones do, where the guard was detached meanwhile.
            let names = Names::read(&self.host.pins, &self.host.store);
            self.names = names.unwrap_or_else(|_| self.names.clone());
            self.named = Instant::now();
        }
        let clock = Clock::now()?;
        let mut packets: VecDeque<TapPacket> = VecDeque::new();
        for record in &records {
            let packet = TapPacket::read(record, &self.names, &clock);
            packets.extend(packet.filter(|packet| self.filter.wants(packet)));
            if most.is_some_and(|most| packets.len() > most) {
                packets.pop_front();
            }
        }
        let event = |packet: &TapPacket| {
            let packet = RedactedPacket::new(packet);
            Event { rule: self.rules.of(&packet), packet }
        };
        Ok(packets.iter().map(event).collect())
    }

    /// Hands on what was read `before` and what comes, until `stop` says so after its wait, or `take` takes no more.
    ///
    /// # Errors
    /// When the ring can't be read, and what `stop` and `take` fail with.
    pub fn follow(
        &mut self,
        before: Vec<Event>,
        stop: &mut dyn FnMut(Duration) -> Result<bool>,
        take: &mut dyn FnMut(Told) -> Result<bool>,
    ) -> Result<()> {
        let mut events = before;
        loop {
            for event in events {
                if !take(Told::Event(event))? {
                    return Ok(());
                }
            }
            let missed = self.ring.missed();
            if missed > self.missed {
                let more = missed - self.missed;
                self.missed = missed;
                if !take(Told::Missed { time: Timestamp::now(), more, missed, lost: self.lost() })? {
                    return Ok(());
                }
            }
            if stop(POLL)? {
                return Ok(());
            }
            self.again()?;
            events = self.read(None)?;
        }
    }

    /// Goes over to the ring of a guard that was attached anew.
    fn again(&mut self) -> Result<()> {
        let pins = &self.host.pins;
        let map = map(pins);
        // Without links it was detached again, or is about to be attached.
        if map.is_none() || map == self.map || !pins.are_attached() {
            return Ok(());
        }
        pins.check()?;
        self.ring = TapRing::open(pins, Which::Events, Start::Oldest)?;
        self.missed = 0;
        self.names = Names::read(pins, &self.host.store)?;
        self.map = map;
        Ok(())
    }

    /// Packets since the attach that are in no event; none of a guard that was detached meanwhile.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lost(&self.host.pins).unwrap_or(0)
    }
}

/// The inode of the pin of the ring.
fn map(pins: &Pins) -> Option<u64> {
    std::fs::metadata(pins.map(names::EVENTS)).ok().map(|about| about.ino())
}
