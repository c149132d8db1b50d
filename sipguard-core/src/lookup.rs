//! Which rule decides about an address, a device, or what a request says of itself.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::abi::{Ban, Rule, rule_flags};

use crate::address::Source;
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::claim::{USER_AGENT, UserAgent};
use crate::clock::Clock;
use crate::pins::Pins;
use crate::rule::{RuleMode, RuleVerb};
use crate::store::{self, Allowed, RuleRow, StoreTables, decides};
use crate::target::{Device, Target};

/// A rule, with what the kernel counted for it.
pub struct ListedRule {
    /// The rule.
    pub row: RuleRow,
    /// Whether it is the one that decides among those of its target.
    pub decides: bool,
    /// The kernel's entry, when this rule decides and is in force.
    pub entry: Option<Rule>,
    /// Whether it is a ban, which the guard made by itself.
    pub is_ban: bool,
}

impl ListedRule {
    /// Of a ban in force, or kept for the next `attach`.
    pub(crate) fn of_ban(target: Target, ban: &Ban, clock: &Clock, in_force: bool) -> ListedRule {
        let entry = Rule { packets: ban.packets, bytes: ban.bytes, ..Rule::zeroed() };
        let row = store::ban_row(target, ban, clock);
        ListedRule { row, decides: true, entry: in_force.then_some(entry), is_ban: true }
    }

    /// `block`, `allow` or `ban`.
    pub fn name(&self) -> &'static str {
        if self.is_ban { "ban" } else { self.row.verb.name() }
    }
}

/// What the kernel tells of a rule that the store does not know (yet).
pub fn found(target: Target, rule: &Rule, clock: &Clock) -> RuleRow {
    RuleRow {
        target,
        origin: store::RECOVERED.to_owned(),
        verb: if rule.flags & rule_flags::ALLOW != 0 { RuleVerb::Allow } else { RuleVerb::Block },
        mode: if rule.flags & rule_flags::MONITOR != 0 { RuleMode::Monitor } else { RuleMode::Enforce },
        reason: "found in the kernel".to_owned(),
        author: "unknown".to_owned(),
        created_ms: clock.wall_ms(),
        expires_ms: clock.wall_of(rule.expires_ns),
        version: 0,
    }
}

/// A rule about the address that does not decide, and why.
pub struct Overruled {
    /// The rule.
    pub row: RuleRow,
    /// Why it does not.
    pub why: String,
}

/// What is found about somebody.
pub struct LookupResult {
    /// The rule that decides.
    pub decider: Option<ListedRule>,
    /// Those that do not.
    pub others: Vec<Overruled>,
    /// The trunk, with the peer by which it is one.
    pub trunk: Option<(String, Source)>,
    /// Whether the trunk is of balancers, whose connections begin with a PROXY header.
    pub proxy_protocol: bool,
}

/// Who, or what, is asked about.
pub enum LookupQuery {
    /// An address; with a port, the device.
    Address(IpAddr, Option<Device>),
    /// What a request says of itself, and whose rules may be about it, in the order in which they are asked.
    Claim {
        /// As people write it.
        shown: String,
        /// Whose rules may be about it, in the order in which they are asked.
        targets: Vec<Target>,
    },
}

impl LookupQuery {
    /// A User-Agent, as a request has it.
    #[must_use]
    pub fn user_agent(agent: &str) -> LookupQuery {
        let targets = UserAgent::beginnings(agent).map(Target::UserAgent).collect();
        LookupQuery::Claim { shown: format!("{USER_AGENT}{agent}"), targets }
    }

    /// The address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        if let LookupQuery::Address(address, _) = self { Some(*address) } else { None }
    }

    /// The device, if it is one.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        if let LookupQuery::Address(_, device) = self { *device } else { None }
    }

    /// As people write it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            LookupQuery::Address(address, None) => address.to_string(),
            LookupQuery::Address(_, Some(device)) => device.to_string(),
            LookupQuery::Claim { shown, .. } => shown.clone(),
        }
    }

    /// The rules that may be about it.
    fn rows(&self, rows: &StoreTables<'_>) -> Result<Vec<RuleRow>> {
        let of = |targets: &[Target]| {
            let found: Result<Vec<_>> = targets.iter().map(|target| rows.of(target)).collect();
            found.map(|found| found.concat())
        };
        match self {
            LookupQuery::Address(address, device) => {
                let device: Vec<Target> = device.iter().map(|device| (*device).into()).collect();
                Ok([of(&device)?, rows.around(*address)?].concat())
            }
            LookupQuery::Claim { targets, .. } => of(targets),
        }
    }

    /// The rule that decides, as the kernel finds it.
    fn deciding(&self, blocks: &Blocks, clock: &Clock) -> Result<Option<(Target, Rule)>> {
        match self {
            LookupQuery::Address(address, device) => {
                let decides = blocks.deciding(*address, clock)?;
                // The device is asked when its address has not stopped the packet.
                match device {
                    Some(device) if decides.is_none_or(|(_, rule)| !is_stopping(&rule)) => {
                        Ok(blocks.holding((*device).into(), clock)?.or(decides))
                    }
                    _ => Ok(decides),
                }
            }
            LookupQuery::Claim { targets, .. } => {
                for target in targets {
                    if let Some(found) = blocks.holding(*target, clock)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// What decides about somebody now. Whoever wants store and kernel to be of one moment holds the lock of the pins.
///
/// # Errors
/// When a map or the store can't be read.
pub fn find(pins: &Pins, path: &Path, asked: &LookupQuery, clock: &Clock) -> Result<LookupResult> {
    let now_ms = clock.wall_ms();
    let stored = store::read(path, |rows| {
        Ok((asked.rows(rows)?, Allowed::of(&rows.allowing()?, rows.peers()?, now_ms), rows.trunks()?))
    })?;
    let (mut rows, allowed, trunks) = stored.unwrap_or_default();
    rows.retain(|row| row.is_active(now_ms));
    let decider = asked.deciding(&Blocks::open(pins)?, clock)?.map(|(target, entry)| {
        let group: Vec<RuleRow> = rows.iter().filter(|row| row.target == target).cloned().collect();
        let row = decides(&group, &allowed, now_ms).cloned().unwrap_or_else(|| found(target, &entry, clock));
        ListedRule { row, decides: true, entry: Some(entry), is_ban: false }
    });
    let peer = asked.address().and_then(|address| allowed.peer(&Target::from(address)));
    // Bans are looked at where nothing else stopped the packet, and hold for nobody who is allowed or a trunk's.
    let entry = decider.as_ref().and_then(|decider| decider.entry);
    let excused = entry.is_some_and(|rule| is_stopping(&rule) || rule.flags & rule_flags::ALLOW != 0);
    let ban = match asked.address() {
        Some(address) if !excused && peer.is_none() => {
            Bans::open(pins)?.about(address, asked.device(), clock.boot_ns)?
        }
        _ => None,
    };
    let banned = ban.map(|(target, ban)| ListedRule::of_ban(target, &ban, clock, true));
    let decider = banned.or(decider);
    rows.retain(|row| decider.as_ref().is_none_or(|decider| decider.row != *row));
    let others: Vec<Overruled> = rows
        .into_iter()
        .map(|row| Overruled { why: why(&row, decider.as_ref().map(|decider| &decider.row), &allowed), row })
        .collect();
    let mut proxy_protocol = false;
    let trunk = peer.and_then(|(net, number)| {
        let trunk = trunks.iter().find(|trunk| trunk.number == number)?;
        proxy_protocol = trunk.policy.proxy_protocol;
        Some((trunk.name.clone(), net))
    });
    Ok(LookupResult { decider, others, trunk, proxy_protocol })
}

/// Why a rule does not decide.
fn why(row: &RuleRow, decider: Option<&RuleRow>, allowed: &Allowed) -> String {
    let Some(decider) = decider else {
        if !row.is_operators() && allowed.trunk_of(&row.target).is_some() {
            return "nothing automatic touches a trunk".to_owned();
        }
        return "not in force; the next change of a rule takes it up".to_owned();
    };
    if row.target == decider.target {
        return match (row.verb == decider.verb, row.mode == decider.mode) {
            (false, _) => format!("the operator's last word is {}", decider.verb.name()),
            (true, false) => "it only counts, and another one stops".to_owned(),
            (true, true) => "another one of the same address ends later".to_owned(),
        };
    }
    match (row.target, decider.target) {
        (Target::Device(_), _) => return "its address is stopped as a whole".to_owned(),
        (_, Target::Device(_)) => return "the device has a rule of its own".to_owned(),
        (Target::UserAgent(_), _) => return "a longer beginning decides".to_owned(),
        _ => {}
    }
    match allowed.around(&row.target) {
        Some(around) if !row.is_operators() => {
            format!("nothing automatic touches what is allowed ({around})")
        }
        _ if !row.is_operators() && allowed.trunk_of(&row.target).is_some() => {
            "nothing automatic touches a trunk".to_owned()
        }
        _ => "a longer prefix decides".to_owned(),
    }
}

fn is_stopping(rule: &Rule) -> bool {
    rule.flags & rule_flags::BLOCK != 0 && rule.flags & rule_flags::MONITOR == 0
}
