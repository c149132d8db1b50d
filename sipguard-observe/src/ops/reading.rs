//! Readings of the guard again and again, for `top`: counters, senders, trunks, events and rules of one moment.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sipguard_common::Reason;
use sipguard_common::abi::names;
use sipguard_core::bans::Bans;
use sipguard_core::blocks::Blocks;
use sipguard_core::by_address::{self, AddressRow};
use sipguard_core::clock::Clock;
use sipguard_core::counters::{self, Action};
use sipguard_core::maps;
use sipguard_core::ops::Context;
use sipguard_core::pins::Pins;
use sipguard_core::protect::{self, Protected};
use sipguard_core::rule::{RuleMode, RuleVerb};
use sipguard_core::senders::{self, SenderRow, TalliedKind};
use sipguard_core::status::{self, InterfaceStatus};
use sipguard_core::store;
use sipguard_core::target::Target;
use sipguard_core::trunk::TrunkRow;

use crate::events::Sip;
use crate::tap::{self, Names, Start, TapPacket, TapRing, Which};

/// Rules that are shown, the latest ones: a list of a million is none to look at.
const RULES: u32 = 500;
/// The store is read so rarely that it takes no more than this part of the time.
const STORE_SHARE: u32 = 50;
/// Senders of each kind that are shown, those who sent the most of it lately.
const SENDERS: usize = 20;

/// What was there at one moment.
#[derive(Clone, Debug)]
pub struct TopReading {
    /// When (`CLOCK_BOOTTIME`, nanoseconds).
    pub at_ns: u64,
    /// When.
    pub time: Timestamp,
    /// The interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// The counters.
    pub counters: Vec<counters::CounterRow>,
    /// Who sent what was malformed or over a limit, by address.
    pub sources: Vec<AddressRow>,
    /// Who sends how much, the most messages lately first: those that are among the first 20 of any kind.
    pub senders: Vec<SenderRow>,
    /// The trunks.
    pub trunks: Vec<TrunkReading>,
    /// Events since the reading before.
    pub events: Vec<TopEvent>,
    /// Packets that no event tells of, because there were too many at once.
    pub events_lost: u64,
    /// The rules, where they were read.
    pub rules: Option<RuleCounts>,
    /// Why the store could not be read.
    pub error: Option<String>,
}

/// What was counted of a trunk, in packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkReading {
    /// Its name.
    pub name: String,
    /// All.
    pub received: u64,
    /// Dropped, or turned into a reset.
    pub dropped: u64,
    /// Those that monitor mode let pass.
    pub would_drop: u64,
}

/// A packet that was stopped, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEvent {
    /// When.
    pub time: Timestamp,
    /// Who sent it; port 0 where there is none.
    pub source: Option<SocketAddr>,
    /// Whom it was for.
    pub destination: Option<SocketAddr>,
    /// Interface.
    pub interface: String,
    /// The trunk that it is from.
    pub trunk: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What became of it.
    pub action: Action,
    /// Packets of its source and reason since their last event, itself included.
    pub count: u64,
    /// Length of the frame in bytes.
    pub frame_bytes: u32,
    /// The first bytes of its payload, 64 at the most.
    pub sample: Vec<u8>,
    /// From, where it can be read.
    pub from: Option<String>,
}

/// Rules of the store, and bans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCounts {
    /// Blocks that hold, those beyond the list as well.
    pub blocks: u64,
    /// Bans that hold.
    pub bans: u64,
    /// Bans, and the rules that were set last.
    pub rows: Vec<RuleReading>,
}

/// A rule or a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReading {
    /// Whom it is about.
    pub target: Target,
    /// `block`, `allow` or `ban`.
    pub rule: &'static str,
    /// Whether it only counts.
    pub only_counts: bool,
    /// When it ends (milliseconds since 1970, UTC); `None` for a permanent one.
    pub expires_ms: Option<i64>,
    /// Packets that it decided about.
    pub packets: u64,
    /// Who set it.
    pub origin: String,
    /// Why.
    pub reason: String,
}

/// Reads again and again.
pub struct TopReader {
    host: Context,
    ring: Option<(u64, TapRing)>,
    /// When the store was read, and how long that took.
    stored: Option<(Instant, Duration)>,
    trunks: Vec<TrunkRow>,
    /// What may not be blocked by mistake, read with the store.
    machine: Vec<Protected>,
    error: Option<String>,
}

impl TopReader {
    /// Of a guard and the file of its rules.
    #[must_use]
    pub fn new(host: &Context) -> TopReader {
        let (trunks, machine) = (Vec::new(), Vec::new());
        TopReader { host: host.clone(), ring: None, stored: None, trunks, machine, error: None }
    }

    /// Reads; the store only where `force` says so, or where it costs little.
    ///
    /// # Errors
    /// [`sipguard_core::error::FailureKind::NotAttached`] without a guard; when a map can't be read.
    pub fn read(&mut self, force: bool) -> Result<TopReading> {
        self.host.pins.check()?;
        let clock = Clock::now()?;
        let rules = match self.stored {
            Some((at, cost)) if !force && at.elapsed() < cost * STORE_SHARE => None,
            _ => self.stored(&clock),
        };
        let (pins, trunks) = (&self.host.pins, &self.trunks);
        // What comes before may have taken long, and rates go by the time of the counters.
        let at_ns = Clock::now()?.boot_ns;
        let counters = counters::read(pins, false)?;
        Ok(TopReading {
            at_ns,
            time: Timestamp::now(),
            interfaces: status::interfaces(pins, &clock)?,
            mode: status::mode(&maps::settings(pins)?),
            counters,
            sources: by_address::read(pins, trunks, &self.machine)?,
            senders: senders(pins, trunks)?,
            trunks: trunks.iter().map(|trunk| trunk_reading(pins, trunk)).collect::<Result<_>>()?,
            events: events(&mut self.ring, pins, trunks, &clock)?,
            events_lost: tap::lost(pins)?,
            rules,
            error: self.error.clone(),
        })
    }

    /// Reads the store. When it can't be read, the trunks are those that were there before.
    fn stored(&mut self, clock: &Clock) -> Option<RuleCounts> {
        let start = Instant::now();
        let read = stored(&self.host, clock);
        self.machine = protect::protected();
        self.stored = Some((start, start.elapsed()));
        match read {
            Ok((trunks, rules)) => {
                (self.trunks, self.error) = (trunks, None);
                Some(rules)
            }
            Err(error) => {
                self.error = Some(format!("{error:#}"));
                None
            }
        }
    }
}

fn senders(pins: &Pins, trunks: &[TrunkRow]) -> Result<Vec<SenderRow>> {
    let mut rows = senders::read(pins, trunks, TalliedKind::Messages)?;
    senders::keep_first(&mut rows, SENDERS);
    Ok(rows)
}

fn trunk_reading(pins: &Pins, trunk: &TrunkRow) -> Result<TrunkReading> {
    let mut sums = TrunkReading { name: trunk.name.clone(), received: 0, dropped: 0, would_drop: 0 };
    for row in counters::of_trunk(pins, trunk)? {
        if row.is_received() {
            sums.received += row.packets;
        }
        match row.action {
            Action::Pass => {}
            Action::Drop | Action::Reset => sums.dropped += row.packets,
            Action::WouldDrop | Action::WouldReset => sums.would_drop += row.packets,
        }
    }
    Ok(sums)
}

/// What came since the last time. The ring of a guard that was attached anew is another one, under the same name.
fn events(
    ring: &mut Option<(u64, TapRing)>,
    pins: &Pins,
    trunks: &[TrunkRow],
    clock: &Clock,
) -> Result<Vec<TopEvent>> {
    let inode = std::fs::metadata(pins.map(names::EVENTS))?.ino();
    let ring = match ring {
        Some((known, ring)) if *known == inode => ring,
        _ => &mut ring.insert((inode, TapRing::open(pins, Which::Events, Start::Oldest)?)).1,
    };
    let names = Names::of(pins, trunks)?;
    let mut events = Vec::new();
    ring.read(|record| {
        events.extend(TapPacket::read(record, &names, clock).map(|packet| event(&packet)));
        Ok(())
    })?;
    Ok(events)
}

fn event(packet: &TapPacket) -> TopEvent {
    let payload = packet.payload();
    TopEvent {
        time: packet.time,
        source: packet.source(),
        destination: packet.destination(),
        interface: packet.interface.clone(),
        trunk: packet.trunk.clone(),
        reason: packet.reason,
        action: packet.action,
        count: packet.count,
        frame_bytes: packet.frame_len,
        sample: payload[..payload.len().min(64)].to_vec(),
        from: Sip::read(payload).from,
    }
}

/// The trunks and the rules.
fn stored(host: &Context, clock: &Clock) -> Result<(Vec<TrunkRow>, RuleCounts)> {
    let now_ms = clock.wall_ms();
    let read = store::read(&host.store, |rows| {
        Ok((rows.trunks()?, rows.newest(RULES)?, rows.blocks_by_origin(now_ms)?))
    })?;
    let (trunks, mut newest, counted) = read.unwrap_or_default();
    newest.retain(|row| row.is_active(now_ms));
    let kernel = Blocks::open(&host.pins)?;
    let bans = Bans::open(&host.pins)?.list(clock.boot_ns)?;
    let mut rows = Vec::new();
    for (target, ban) in &bans {
        let row = store::ban_row(*target, ban, clock);
        rows.push(RuleReading {
            target: *target,
            rule: "ban",
            only_counts: false,
            expires_ms: row.expires_ms,
            packets: ban.packets,
            origin: row.origin,
            reason: row.reason,
        });
    }
    for row in newest {
        let entry = kernel.get(&row.target)?;
        rows.push(RuleReading {
            target: row.target,
            rule: row.verb.name(),
            only_counts: row.verb == RuleVerb::Block && row.mode == RuleMode::Monitor,
            expires_ms: row.expires_ms,
            packets: entry.map_or(0, |entry| entry.packets),
            origin: row.origin,
            reason: row.reason,
        });
    }
    let blocks = counted.into_iter().map(|(_, count)| u64::try_from(count).unwrap_or(0)).sum();
    Ok((trunks, RuleCounts { blocks, bans: bans.len() as u64, rows }))
}
