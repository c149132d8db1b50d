//! The entries that the maps should have, from the rows of the store. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use sipguard_common::abi::{PERMANENT, rule_flags};

use super::rows::RuleRow;
use super::trunks::Peers;
use crate::address::{Mapped, Source};
use crate::blocks::DesiredEntry;
use crate::clock::Clock;
use crate::rule::{RuleMode, RuleVerb};
use crate::target::Target;

/// The allowances that hold, and the peers of trunks. Nothing automatic touches what lies in one.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    nets: HashSet<Source>,
    /// Their prefix lengths, the longest first.
    lengths: Vec<u32>,
    peers: Peers,
    peer_lengths: Vec<u32>,
}

impl Allowed {
    /// Of rows; those that do not allow, or not any more, are passed over.
    #[must_use]
    pub fn of(rows: &[RuleRow], peers: Peers, now_ms: i64) -> Allowed {
        let allows = |row: &&RuleRow| row.verb == RuleVerb::Allow && row.is_active(now_ms);
        let nets: HashSet<Source> =
            rows.iter().filter(allows).filter_map(|row| row.target.source()).collect();
        let mut allowed = Allowed { lengths: lengths(nets.iter()), nets, ..Allowed::default() };
        allowed.set_peers(peers);
        allowed
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = Source> {
        self.peers.keys().copied()
    }

    /// Whether exactly this host or prefix is allowed.
    pub(super) fn has(&self, target: &Target) -> bool {
        matches!(target, Target::Source(source) if self.nets.contains(source))
    }

    pub(super) fn is_peer(&self, source: &Source) -> bool {
        self.peers.contains_key(source)
    }

    pub(super) fn set_peers(&mut self, peers: Peers) {
        self.peer_lengths = lengths(peers.keys());
        self.peers = peers;
    }

    /// The peer that a target lies in, the longest, with the index of its trunk.
    #[must_use]
    pub fn peer(&self, target: &Target) -> Option<(Source, u16)> {
        let target = target.source()?;
        let fitting = self.peer_lengths.iter().filter(|bits| **bits <= target.bits());
        let mut nets = fitting.filter_map(|bits| Source::network(target.bytes(), *bits));
        nets.find_map(|net| self.peers.get(&net).map(|trunk| (net, *trunk)))
    }

    /// The trunk that a block of a target would stop: all of it or some of its peers.
    #[must_use]
    pub fn trunk_of(&self, target: &Target) -> Option<u16> {
        let net = target.source()?;
        let within = || {
            let lies = |peer: &Source| {
                peer.bits() > net.bits() && Source::network(peer.bytes(), net.bits()) == Some(net)
            };
            self.peers.iter().find(|(peer, _)| lies(peer)).map(|(_, trunk)| *trunk)
        };
        let around = self.peer(target).map(|(_, trunk)| trunk);
        if net.is_host() { around } else { around.or_else(within) }
    }

    /// Whether nothing automatic touches a target.
    #[must_use]
    pub(crate) fn exempts(&self, target: &Target) -> bool {
        self.around(target).is_some() || self.trunk_of(target).is_some()
    }

    /// The longest allowance that a target lies in, itself included.
    #[must_use]
    pub fn around(&self, target: &Target) -> Option<Source> {
        let target = target.source()?;
        let bytes: Mapped = target.bytes();
        let fitting = self.lengths.iter().filter(|bits| **bits <= target.bits());
        let mut nets = fitting.filter_map(|bits| Source::network(bytes, *bits));
        nets.find(|net| self.nets.contains(net))
    }
}

fn lengths<'s>(nets: impl Iterator<Item = &'s Source>) -> Vec<u32> {
    let mut lengths: Vec<u32> = nets.map(Source::bits).collect();
    lengths.sort_unstable_by_key(|bits| Reverse(*bits));
    lengths.dedup();
    lengths
}

/// Which of the rows of one target decides; none when nothing is to be done about it.
///
/// The operator's last decision, by hand or by an allowance, says whether it is blocked or allowed. Without one, what is automatic blocks,
/// unless the target lies in an allowance or is a trunk's. Of several blocks one that stops comes before one that only counts, then the one that
/// ends last.
#[must_use]
pub(crate) fn decides<'r>(rows: &'r [RuleRow], allowed: &Allowed, now_ms: i64) -> Option<&'r RuleRow> {
    let holding = || rows.iter().filter(|row| row.is_active(now_ms));
    let last_decision =
        holding().filter(|row| row.is_operators()).max_by_key(|row| (row.version, row.created_ms));
    let verb = match last_decision {
        Some(row) => row.verb,
        None if rows.first().is_some_and(|row| allowed.exempts(&row.target)) => return None,
        None => RuleVerb::Block,
    };
    holding().filter(|row| row.verb == verb).max_by_key(|row| {
        (row.mode == RuleMode::Enforce, row.expires_ms.unwrap_or(i64::MAX), row.is_operators(), row.version)
    })
}

/// What the maps should say of a target with these rows.
#[must_use]
pub(super) fn desired(rows: &[RuleRow], allowed: &Allowed, clock: &Clock) -> Option<DesiredEntry> {
    let row = decides(rows, allowed, clock.wall_ms())?;
    let trunk = match row.target {
        Target::Source(source) => allowed.peers.get(&source).copied().unwrap_or(0),
        Target::Device(_) | Target::Identity(_) | Target::UserAgent(_) => 0,
    };
    let flags = match (row.verb, row.mode) {
        (RuleVerb::Allow, _) => rule_flags::ALLOW,
        (RuleVerb::Block, RuleMode::Enforce) => rule_flags::BLOCK,
        (RuleVerb::Block, RuleMode::Monitor) => rule_flags::BLOCK | rule_flags::MONITOR,
    };
    Some(DesiredEntry { flags, expires_ns: clock.boot(row.expires_ms), trunk })
}

/// What the maps should say of peers, where no rule decides about them.
fn members(allowed: &Allowed) -> impl Iterator<Item = (Target, DesiredEntry)> {
    let member = |trunk| DesiredEntry { flags: 0, expires_ns: PERMANENT, trunk };
    allowed.peers.iter().map(move |(peer, trunk)| (Target::Source(*peer), member(*trunk)))
}

/// What the maps should say of everybody.
pub(super) fn all(rows: &[RuleRow], allowed: &Allowed, clock: &Clock) -> HashMap<Target, DesiredEntry> {
    let mut want: HashMap<Target, DesiredEntry> = members(allowed).collect();
    for rows in rows.chunk_by(|one, other| one.target == other.target) {
        want.extend(desired(rows, allowed, clock).map(|desired| (rows[0].target, desired)));
    }
    want
}

/// What the maps should say of one target.
#[must_use]
pub(super) fn desired_of(
    target: &Target,
    rows: &[RuleRow],
    allowed: &Allowed,
    clock: &Clock,
) -> Option<DesiredEntry> {
    let member = |peer: &Source| {
        let trunk = *allowed.peers.get(peer)?;
        Some(DesiredEntry { flags: 0, expires_ns: PERMANENT, trunk })
    };
    match (desired(rows, allowed, clock), target) {
        (None, Target::Source(source)) => member(source),
        (desired, _) => desired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1000;

    fn row(target: &str, origin: &str, verb: RuleVerb, expires_ms: Option<i64>, version: i64) -> RuleRow {
        RuleRow {
            target: target.parse().unwrap(),
            origin: origin.to_owned(),
            verb,
            mode: RuleMode::Enforce,
            reason: String::new(),
            author: String::new(),
            created_ms: 0,
            expires_ms,
            version,
        }
    }

    fn winner(rows: &[RuleRow], around: &[RuleRow]) -> Option<String> {
        let allowed = Allowed::of(&[rows, around].concat(), Peers::new(), NOW);
        decides(rows, &allowed, NOW).map(|row| format!("{} {}", row.verb.name(), row.origin))
    }

    #[test]
    fn the_operators_last_word_decides() {
        use RuleVerb::{Allow, Block};
        let one = |origin, verb, end, version| row("192.0.2.7", origin, verb, end, version);
        for (rows, decides) in [
            (vec![one("f2b", Block, Some(2000), 1), one("feed", Block, None, 2)], Some("block feed")),
            (vec![one("cli", Block, Some(2000), 9), one("feed", Block, Some(3000), 2)], Some("block feed")),
            (vec![one("cli", Block, None, 1), one("feed", Block, None, 2)], Some("block cli")),
            (vec![one("cli", Allow, Some(2000), 1), one("feed", Block, None, 2)], Some("allow cli")),
            (vec![one("cli", Allow, Some(NOW), 1), one("feed", Block, None, 2)], Some("block feed")),
            (vec![one("cli", Block, None, 3), one("partners", Allow, None, 2)], Some("block cli")),
            (vec![one("cli", Block, None, 1), one("partners", Allow, None, 2)], Some("allow partners")),
            (vec![one("cli", Block, Some(NOW), 1)], None),
        ] {
            assert_eq!(winner(&rows, &[]).as_deref(), decides, "{rows:?}");
        }
    }

    #[test]
    fn what_only_counts_comes_after_what_stops() {
        let mut counts = row("192.0.2.7", "cli", RuleVerb::Block, None, 5);
        counts.mode = RuleMode::Monitor;
        let stops = row("192.0.2.7", "f2b", RuleVerb::Block, Some(2000), 1);
        assert_eq!(winner(&[counts.clone(), stops], &[]).as_deref(), Some("block f2b"));
        assert_eq!(winner(&[counts], &[]).as_deref(), Some("block cli"));
    }

    #[test]
    fn nothing_automatic_touches_what_lies_in_an_allowance() {
        let around = [
            row("192.0.2.0/24", "cli", RuleVerb::Allow, None, 1),
            row("2001:db8::/32", "cli", RuleVerb::Allow, Some(NOW), 1),
        ];
        for (target, origin, decides) in [
            ("192.0.2.7", "f2b", None),
            ("192.0.2.0/25", "f2b", None),
            ("192.0.2.0/23", "f2b", Some("block f2b")),
            ("192.0.2.7", "cli", Some("block cli")),
            ("192.0.2.7", "config", Some("block config")),
            ("198.51.100.1", "f2b", Some("block f2b")),
            ("192.0.2.7:4001", "f2b", None),
            ("192.0.2.7:4001", "cli", Some("block cli")),
            ("198.51.100.1:4001", "f2b", Some("block f2b")),
            ("2001:db8::1", "f2b", Some("block f2b")),
        ] {
            let rows = [row(target, origin, RuleVerb::Block, None, 2)];
            assert_eq!(winner(&rows, &around).as_deref(), decides, "{target} {origin}");
        }
    }
}
