//! Who has begun messages on TCP connections and not finished them, as the kernel counts it; and an end for those that take longer than they may.

use std::cmp::Reverse;
use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData, MapError};
use sipguard_common::Reason;
use sipguard_common::abi::{
    CheckSwitches, Flow, FlowState, MODE_MONITOR, Settings, Span, TRUNK_INHERITS, TRUNK_MONITORS, Ticket,
    Trunk, UNFINISHED_COUNT_BITS, UNFINISHED_ENTRIES, UNFINISHED_SPANS, Unfinished, flow_flags, names,
};
use sipguard_common::framer::Limits;

use crate::address::unmapped;
use crate::check::{self, CheckState};
use crate::clock::Clock;
use crate::container;
use crate::destroy::Destroyer;
use crate::maps::{self, Flows, Plain};
use crate::pins::Pins;

/// Connections that one look ends at the most.
const MOST_ENDED: usize = 4096;

/// A source or a trunk, and how many messages it has begun and not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfinishedSender {
    /// Address of the source, IPv4 mapped; of IPv6 its /64, of a trunk zero.
    pub remote: [u32; 4],
    /// Index of the trunk, or 0 for a source.
    pub trunk: u32,
    /// How many messages, at least one.
    pub count: u32,
}

/// The maps that the counts are in and go by.
struct Counted {
    entries: Array<MapData, Plain<Unfinished>>,
    trunks: Array<MapData, Plain<Trunk>>,
    settings: Settings,
    now_ns: u64,
}

impl Counted {
    fn open(pins: &Pins) -> Result<Counted> {
        Ok(Counted {
            entries: maps::open(pins, names::UNFINISHED)?,
            trunks: maps::open(pins, names::TRUNKS)?,
            settings: maps::settings(pins)?,
            now_ns: Clock::now()?.boot_ns,
        })
    }

    fn entry(&self, slot: u32) -> Result<Unfinished> {
        Ok(self.entries.get(&slot, 0).context("reading the unfinished messages")?.0)
    }

    /// The limits of a trunk, or with index 0 of a source, and whether a slow message of it passes.
    fn judged_by(&self, trunk: u32) -> Result<(Limits, bool)> {
        let passes =
            |checks: &CheckSwitches| check::state_in(checks, Reason::SlowMessage) != CheckState::Refuse;
        let monitors = self.settings.mode == MODE_MONITOR;
        if trunk == 0 {
            return Ok((self.settings.limits, monitors || passes(&self.settings.checks)));
        }
        let Plain(trunk) = self.trunks.get(&trunk, 0).context("reading a trunk")?;
        let limits = if trunk.own_limits == 0 { self.settings.limits } else { trunk.limits };
        let monitors = if trunk.mode == TRUNK_INHERITS { monitors } else { trunk.mode == TRUNK_MONITORS };
        Ok((limits, monitors || passes(&trunk.checks)))
    }

    fn span(&self, trunk: u32) -> Result<Span> {
        Ok(Span::of(self.now_ns, self.judged_by(trunk)?.0.message_ms))
    }
}

/// Who has how many, the most first.
///
/// # Errors
/// When a map can't be read.
pub fn senders(pins: &Pins) -> Result<Vec<UnfinishedSender>> {
    let counted = Counted::open(pins)?;
    let mut senders = Vec::new();
    for slot in 0..UNFINISHED_ENTRIES {
        let Unfinished { tag, remote, trunk, .. } = counted.entry(slot)?;
        if tag == 0 {
            continue;
        }
        let count = counted.entry(slot)?.count(counted.span(trunk)?);
        if count != 0 {
            // A source behind a balancer is a source.
            let trunk = if remote == [0; 4] { trunk } else { 0 };
            senders.push(UnfinishedSender { remote, trunk, count });
        }
    }
    senders.sort_by_key(|sender| Reverse(sender.count));
    Ok(senders)
}

/// Ends connections of this host whose message has not been finished in time, where such a message is refused: its next bytes would end them
/// just so, and they do not come. Returns from which addresses they were, once for each.
///
/// # Errors
/// When a map can't be read, or the kernel can't end a connection.
pub fn end_overdue(pins: &Pins) -> Result<Vec<IpAddr>> {
    let counted = Counted::open(pins)?;
    let mut ended = Vec::new();
    if !may_be_overdue(&counted)? {
        return Ok(ended);
    }
    let (flows, destroyer): (Flows, _) =
        (maps::open(pins, names::FLOWS)?, container::only_inside(Destroyer::new)?);
    for key in flows.keys() {
        let Plain(key) = key.context("looking for connections that are overdue")?;
        let flow = match flows.get(&Plain(key), 0) {
            Ok(Plain(flow)) => flow,
            // It was forgotten meanwhile.
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).context("reading a flow"),
        };
        if is_overdue(&counted, &flow)? && destroyer.end(&key)? {
            ended.push(unmapped(key.remote));
            if ended.len() == MOST_ENDED {
                break;
            }
        }
    }
    Ok(ended)
}

/// Whether any message is so old that it may be overdue, and not so old that its connection was looked at often.
fn may_be_overdue(counted: &Counted) -> Result<bool> {
    let spans = UNFINISHED_SPANS as u64;
    for slot in 0..UNFINISHED_ENTRIES {
        let entry = counted.entry(slot)?;
        if entry.tag == 0 {
            continue;
        }
        let now = counted.span(entry.trunk)?.number();
        let is_old =
            |word: u64| (spans - 2..8 * spans).contains(&now.wrapping_sub(word >> UNFINISHED_COUNT_BITS));
        let counts = |word: u64| word & ((1 << UNFINISHED_COUNT_BITS) - 1) != 0;
        if entry.spans.iter().any(|word| counts(*word) && is_old(*word)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a flow is of a connection of this host that is in a message which would be refused as too slow.
fn is_overdue(counted: &Counted, flow: &Flow) -> Result<bool> {
    let is_within = flow.is(FlowState::InSync) && flow.ended == 0 && flow.stream.is_within_message();
    if flow.unfinished == 0 || !is_within || flow.flags & flow_flags::LOCAL == 0 {
        return Ok(false);
    }
    let slot = Ticket(flow.unfinished).slot();
    if slot >= UNFINISHED_ENTRIES {
        return Ok(false);
    }
    let (limits, monitors) = counted.judged_by(counted.entry(slot)?.trunk)?;
    let age_ns = counted.now_ns.saturating_sub(flow.message_ns);
    Ok(!monitors && limits.message_ms != 0 && age_ns > u64::from(limits.message_ms) * 1_000_000)
}
