//! Who, first: offenders by address, so that a device that connects again and again from other ports is one row. What else is known of each: what
//! it is, how much of what it sends is good, and whom a block would stop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use sipguard_common::abi::{rule_flags, rules_in_use};

use crate::address::Source;
use crate::ban_rule::BanRule;
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::duration;
use crate::maps;
use crate::offenders::{self, OffenderRow, OffenderTable};
use crate::pins::Pins;
use crate::presence::own_slots;
use crate::protect::{Protected, hit};
use crate::senders::{self, SenderRow, TalliedKind};
use crate::target::{Device, Target};
use crate::trunk::TrunkRow;

/// What an address is, for whoever thinks of blocking it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known of it: a block is possible.
    #[default]
    Unknown,
    /// An address by which this machine is reached, and what it is, such as `a gateway`.
    Own(&'static str),
    /// It is allowed by a rule.
    Allowed,
    /// It is a peer of this trunk.
    Trunk(String),
    /// It is blocked.
    Blocked,
    /// A block that only counts is about it.
    Watched,
    /// It is banned.
    Banned,
}

impl Standing {
    /// Its word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Standing::Unknown => "unknown",
            Standing::Own(_) => "own",
            Standing::Allowed => "allowed",
            Standing::Trunk(_) => "trunk",
            Standing::Blocked => "blocked",
            Standing::Watched => "watched",
            Standing::Banned => "banned",
        }
    }
}

impl fmt::Display for Standing {
    /// What it is, in words for people; empty where nothing is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Unknown => Ok(()),
            Standing::Own(role) => f.write_str(role),
            Standing::Allowed => f.write_str("allowed by a rule"),
            Standing::Trunk(name) => write!(f, "a peer of trunk {name}"),
            Standing::Blocked => f.write_str("blocked already"),
            Standing::Watched => f.write_str("a block that only counts is about it"),
            Standing::Banned => f.write_str("banned by the guard for now"),
        }
    }
}

/// So many packets are no ground for a block: the kernel does not keep over which transport they came, and one forged datagram accuses anybody.
const SINGLE: u64 = 1;

/// An address that sent what was malformed or over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// The address.
    pub address: IpAddr,
    /// Packets that were malformed or over a limit, of all reasons.
    pub packets: u64,
    /// How many of them came in the last 10 s.
    pub lately: u64,
    /// How many of them passed, since monitor mode or a check that only counts let them; the others were stopped.
    pub passed: u64,
    /// How many of them were malformed.
    pub malformed: u64,
    /// By reason, the most packets first; port 0.
    pub reasons: Vec<OffenderRow>,
    /// By port and reason, the latest first. When the kernel's map is full, ports that were quiet longest are gone.
    pub ports: Vec<OffenderRow>,
    /// Well-formed messages that came from there (of IPv6 from its /64; of a peer of a trunk from the whole trunk); `None` where nobody counts them.
    pub good: Option<u64>,
    /// How long good messages have been counted, where that is shorter than the quiet time which the ban of an address needs: who else is behind the
    /// address may not have spoken yet.
    pub watched: Option<Duration>,
    /// What it is.
    pub standing: Standing,
    /// Packets that the block or the ban about it counted, which are looked at no further, so that they are in no other number here; `None` without
    /// one.
    pub at_block: Option<u64>,
    /// First packet.
    pub first_seen: Option<Timestamp>,
    /// Last packet.
    pub last_seen: Option<Timestamp>,
}

impl AddressRow {
    fn new(address: IpAddr) -> AddressRow {
        AddressRow {
            address,
            packets: 0,
            lately: 0,
            passed: 0,
            malformed: 0,
            reasons: Vec::new(),
            ports: Vec::new(),
            good: None,
            watched: None,
            standing: Standing::Unknown,
            at_block: None,
            first_seen: None,
            last_seen: None,
        }
    }

    /// How many ports are known of which something malformed came.
    #[must_use]
    pub fn ports_seen(&self) -> usize {
        self.ports.iter().map(|row| row.port).filter(|port| *port != 0).collect::<BTreeSet<_>>().len()
    }

    /// Packets a second, over the last 10 s.
    #[must_use]
    pub fn per_sec(&self) -> f64 {
        self.lately as f64 / 10.0
    }

    /// The share of what came from there that was good, 0 to 1: well-formed messages among those and malformed packets.
    #[must_use]
    pub fn good_share(&self) -> Option<f64> {
        let good = self.good?;
        let all = good + self.malformed;
        (all > 0).then(|| good as f64 / all as f64)
    }

    /// Whom to block: the device where one port is known, else the address; `None` where [`AddressRow::why_not`] says why.
    #[must_use]
    pub fn block(&self) -> Option<Target> {
        if self.standing != Standing::Unknown || self.packets <= SINGLE {
            return None;
        }
        match self.device() {
            Some(device) => Some(device.into()),
            // A datagram may be forged, and behind a NAT are neighbours.
            None if self.good.is_some_and(|good| good > 0) => None,
            None => Some(self.address.into()),
        }
    }

    /// What speaks against the block that is proposed, in words for people; empty where nothing does.
    #[must_use]
    pub fn caution(&self) -> String {
        match (self.block(), self.watched) {
            (Some(Target::Source(_)), Some(watched)) => {
                format!("watched for {} only: others may be behind it", duration::shown(watched))
            }
            _ => String::new(),
        }
    }

    /// Whether a block of it is not proposed because something good came from there too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.standing == Standing::Unknown && self.packets > SINGLE && self.block().is_none()
    }

    /// The device, where one port alone is known.
    fn device(&self) -> Option<Device> {
        let mut ports = self.ports.iter().map(|row| row.port).filter(|port| *port != 0);
        let port = ports.next()?;
        ports.all(|other| other == port).then(|| SocketAddr::new(self.address, port).into())
    }

    /// Why no block is proposed, in words for people; empty where one is.
    #[must_use]
    pub fn why_not(&self) -> String {
        match (&self.standing, self.at_block) {
            (Standing::Unknown, _) if self.block().is_some() => String::new(),
            (Standing::Unknown, _) if self.packets <= SINGLE => {
                "a single packet, whose address anybody can forge over UDP".to_owned()
            }
            (Standing::Unknown, _) => match self.good.unwrap_or_default() {
                1 => "1 good message came from it too".to_owned(),
                good => format!("{good} good messages came from it too"),
            },
            (standing, Some(1)) => format!("{standing}; 1 packet came to that"),
            (standing, Some(packets)) => format!("{standing}; {packets} packets came to that"),
            (standing, None) => standing.to_string(),
        }
    }

    fn add(&mut self, row: OffenderRow) {
        self.packets += row.packets;
        self.lately += row.lately;
        self.passed += row.passed;
        if row.reason.is_malformed() {
            self.malformed += row.packets;
        }
        self.first_seen = [self.first_seen, row.first_seen].into_iter().flatten().min();
        self.last_seen = self.last_seen.max(row.last_seen);
        self.reasons.push(row);
    }
}

/// Puts together what the kernel keeps: the most packets in the last 10 s first, then in all.
#[must_use]
pub fn group(table: OffenderTable) -> Vec<AddressRow> {
    let mut rows: BTreeMap<IpAddr, AddressRow> = BTreeMap::new();
    let mut sums: BTreeMap<(IpAddr, u8), OffenderRow> = BTreeMap::new();
    for row in table.ports {
        // An address's entry that the kernel's map has lost is put together from its ports.
        let sum = sums.entry((row.address, row.reason.number()));
        sum.and_modify(|sum| {
            sum.packets += row.packets;
            sum.lately += row.lately;
            sum.passed += row.passed;
            sum.first_seen = sum.first_seen.min(row.first_seen);
            sum.last_seen = sum.last_seen.max(row.last_seen);
        })
        .or_insert_with(|| OffenderRow { port: 0, ..row.clone() });
        if row.port != 0 {
            rows.entry(row.address).or_insert_with(|| AddressRow::new(row.address)).ports.push(row);
        }
    }
    sums.extend(table.addresses.into_iter().map(|row| ((row.address, row.reason.number()), row)));
    for ((address, _), row) in sums {
        rows.entry(address).or_insert_with(|| AddressRow::new(address)).add(row);
    }
    let mut rows: Vec<AddressRow> = rows.into_values().collect();
    for row in &mut rows {
        row.reasons.sort_by_key(|reason| Reverse(reason.packets));
    }
    rows.sort_by_key(|row| (Reverse((row.lately, row.packets)), row.address));
    rows
}

/// Who sent what was malformed or over a limit, by address: the most in the last 10 s first, then in all. `machine` is what may not be blocked by
/// mistake ([`crate::protect::protected`]).
///
/// # Errors
/// When a map can't be read.
pub fn read(pins: &Pins, trunks: &[TrunkRow], machine: &[Protected]) -> Result<Vec<AddressRow>> {
    let mut rows = group(offenders::read(pins)?);
    if rows.is_empty() {
        return Ok(rows);
    }
    let (clock, blocks, bans) = (Clock::now()?, Blocks::open(pins)?, Bans::open(pins)?);
    let settings = maps::settings(pins)?;
    let counts = settings.rules & rules_in_use::RATES != 0;
    let attached_ns = own_slots(pins)?.iter().map(|(_, iface)| iface.attached_ns).min();
    let watched = Duration::from_secs(clock.boot_ns.saturating_sub(attached_ns.unwrap_or(0)) / 1_000_000_000);
    let watched = Some(watched).filter(|watched| *watched < BanRule::of(&settings.bans).quiet);
    let senders = senders::read(pins, trunks, TalliedKind::Messages)?;
    let good = |row: &SenderRow| row.totals[TalliedKind::Messages as usize];
    let of_sources: BTreeMap<Source, u64> =
        senders.iter().filter_map(|row| Some((row.source?, good(row)))).collect();
    let of_trunks: BTreeMap<&str, u64> =
        senders.iter().filter_map(|row| Some((row.trunk.as_deref()?, good(row)))).collect();
    for row in &mut rows {
        let stops = |flags: u16| flags & rule_flags::BLOCK != 0 && flags & rule_flags::MONITOR == 0;
        let mut rule = blocks.deciding(row.address, &clock)?.map(|(_, rule)| rule);
        if let Some(device) = row.device()
            && rule.is_none_or(|rule| !stops(rule.flags))
        {
            rule = blocks.holding(device.into(), &clock)?.map(|(_, rule)| rule).or(rule);
        }
        let flags = rule.map_or(0, |rule| rule.flags);
        let trunk = Some(blocks.trunk_of(row.address)?).filter(|number| *number != 0).map(|number| {
            let known = trunks.iter().find(|trunk| trunk.number == number);
            known.map_or_else(|| number.to_string(), |trunk| trunk.name.clone())
        });
        let is_allowed = flags & rule_flags::ALLOW != 0;
        row.watched = watched;
        row.good = match &trunk {
            _ if !counts => None,
            Some(trunk) => Some(of_trunks.get(trunk.as_str()).copied().unwrap_or(0)),
            None if is_allowed => None,
            None => {
                senders::source_of(row.address).map(|source| of_sources.get(&source).copied().unwrap_or(0))
            }
        };
        let ban = bans.about(row.address, row.device(), clock.boot_ns)?.map(|(_, ban)| ban);
        row.standing = match (trunk, hit(&row.address.into(), machine)) {
            _ if stops(flags) => Standing::Blocked,
            (_, Some(own)) => Standing::Own(own.role),
            (Some(trunk), None) => Standing::Trunk(trunk),
            _ if is_allowed => Standing::Allowed,
            _ if ban.is_some() => Standing::Banned,
            _ if flags & rule_flags::MONITOR != 0 => Standing::Watched,
            _ => Standing::Unknown,
        };
        row.at_block = match row.standing {
            Standing::Blocked | Standing::Watched => rule.map(|rule| rule.packets),
            Standing::Banned => ban.map(|ban| ban.packets),
            Standing::Unknown | Standing::Own(_) | Standing::Allowed | Standing::Trunk(_) => None,
        };
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use sipguard_common::Reason;

    use super::*;

    fn row(address: &str, port: u16, reason: Reason, packets: u64, seconds: i64) -> OffenderRow {
        OffenderRow {
            address: address.parse().unwrap(),
            port,
            reason,
            packets,
            lately: packets.min(3),
            passed: 0,
            first_seen: Timestamp::from_second(seconds).ok(),
            last_seen: Timestamp::from_second(seconds + 5).ok(),
            sample: Vec::new(),
            sample_at: 0,
            fault_at: None,
        }
    }

    #[test]
    fn a_phone_that_comes_by_400_ports_is_one_row() {
        let ports = (0..400u16).map(|port| row("192.0.2.7", 1024 + port, Reason::BareLf, 1, i64::from(port)));
        let mut table = OffenderTable { ports: ports.collect(), addresses: Vec::new() };
        table.ports.push(row("192.0.2.7", 1024, Reason::ControlByte, 2, 900));
        table.ports.push(row("192.0.2.8", 0, Reason::RateRegister, 900, 7));
        // The kernel's own sum counts more than the ports that it still knows.
        table.addresses.push(OffenderRow { lately: 15, ..row("192.0.2.7", 0, Reason::BareLf, 9000, -50) });
        let rows = group(table);
        let [phone, flood] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(
            (phone.address.to_string().as_str(), phone.packets, phone.malformed),
            ("192.0.2.7", 9002, 9002)
        );
        assert_eq!((phone.lately, phone.per_sec(), phone.ports_seen()), (17, 1.7, 400));
        let reasons: Vec<_> = phone.reasons.iter().map(|row| (row.reason, row.packets)).collect();
        assert_eq!(reasons, [(Reason::BareLf, 9000), (Reason::ControlByte, 2)]);
        assert_eq!(
            (phone.first_seen, phone.last_seen),
            (Timestamp::from_second(-50).ok(), Timestamp::from_second(905).ok())
        );
        assert_eq!((flood.packets, flood.malformed, flood.ports_seen()), (900, 0, 0));
    }

    #[test]
    fn what_is_proposed_stops_nobody_who_is_known() {
        let table = |ports: &[u16]| OffenderTable {
            ports: ports.iter().map(|port| row("192.0.2.7", *port, Reason::BareLf, 2, 0)).collect(),
            addresses: Vec::new(),
        };
        let of = |ports: &[u16], good, standing| {
            let row = AddressRow { good, standing, ..group(table(ports)).remove(0) };
            row.block().map(|target| target.to_string()).unwrap_or_default()
        };
        assert_eq!(of(&[4000], Some(0), Standing::Unknown), "192.0.2.7:4000");
        assert_eq!(of(&[4000, 4000], Some(9), Standing::Unknown), "192.0.2.7:4000");
        assert_eq!(of(&[4000, 4001], Some(0), Standing::Unknown), "192.0.2.7");
        assert_eq!(of(&[4000, 4001], Some(1), Standing::Unknown), "", "it sends good messages");
        assert_eq!(of(&[0], Some(0), Standing::Unknown), "192.0.2.7", "over a limit");
        let young = |ports: &[u16]| {
            let watched = Some(Duration::from_secs(40));
            AddressRow { good: Some(0), watched, ..group(table(ports)).remove(0) }.caution()
        };
        assert_eq!(young(&[4000, 4001]), "watched for 40s only: others may be behind it");
        assert_eq!(young(&[4000]), "", "nobody else is behind a port");
        let forged = OffenderTable {
            ports: vec![row("192.0.2.7", 4000, Reason::BareLf, 1, 0)],
            addresses: Vec::new(),
        };
        let forged = group(forged).remove(0);
        assert!(forged.block().is_none() && forged.why_not().contains("single packet"), "{forged:?}");
        let blocked = AddressRow { standing: Standing::Blocked, at_block: Some(900), ..forged };
        assert_eq!(blocked.why_not(), "blocked already; 900 packets came to that");
        for standing in [
            Standing::Own("a gateway"),
            Standing::Allowed,
            Standing::Trunk("carrier".to_owned()),
            Standing::Blocked,
            Standing::Watched,
            Standing::Banned,
        ] {
            assert!(!standing.to_string().is_empty());
            assert_eq!(of(&[4000], Some(0), standing.clone()), "", "{standing}");
        }
    }
}
