//! `sipguard lookup ADDR[:PORT]`: which rule decides and which do not, like `ip route get`. Also about what a request says of itself.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sipguard_common::abi::{Rule, rule_flags};

use super::list::{Listed, found, json_of, remaining, time};
use super::usage;
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::claim::{USER_AGENT, UserAgent};
use crate::clock::Clock;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::store::{self, Allowed, Mode, Row, Rows, Verb, decides};
use crate::target::{Device, Target};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address; with a port, the device behind it; or a SIP identity
    #[arg(value_name = "ADDR[:PORT]|sip:USER@HOST", required_unless_present = "agent")]
    subject: Option<String>,

    /// A User-Agent, as a request has it
    #[arg(long = "user-agent", value_name = "TEXT", conflicts_with = "subject")]
    agent: Option<String>,
}

/// A rule about the address that does not decide, and why.
struct Overruled {
    row: Row,
    why: String,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    let asked = parse(args)?;
    pins.exist_or_fail()?;
    let _lock = pins.lock(false)?;
    pins.check()?;
    let clock = Clock::now()?;
    let now_ms = clock.wall_ms();
    let stored = store::read(path, |rows| {
        Ok((asked.rows(rows)?, Allowed::of(&rows.allowing()?, rows.peers()?, now_ms), rows.trunks()?))
    })?;
    let (mut rows, allowed, trunks) = stored.unwrap_or_default();
    rows.retain(|row| row.holds(now_ms));
    let decider = asked.deciding(&Blocks::open(pins)?, &clock)?.map(|(target, entry)| {
        let group: Vec<Row> = rows.iter().filter(|row| row.target == target).cloned().collect();
        let row = decides(&group, &allowed, now_ms).cloned().unwrap_or_else(|| found(target, &entry, &clock));
        Listed { row, decides: true, entry: Some(entry), is_ban: false }
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
    let banned = ban.map(|(target, ban)| Listed::of_ban(target, &ban, &clock, true));
    let decider = banned.or(decider);
    rows.retain(|row| decider.as_ref().is_none_or(|decider| decider.row != *row));
    let others: Vec<Overruled> = rows
        .into_iter()
        .map(|row| Overruled { why: why(&row, decider.as_ref().map(|decider| &decider.row), &allowed), row })
        .collect();
    let trunk = peer.and_then(|(net, number)| {
        let trunk = trunks.iter().find(|trunk| trunk.number == number)?;
        Some((trunk.name.as_str(), net))
    });
    let stops = |one: &Listed| one.row.verb == Verb::Block && one.row.mode == Mode::Enforce;
    let value = json!({
        "address": asked.address().map(|address| address.to_string()),
        "port": asked.device().map(|device| u16::from_be_bytes(device.key().port)),
        "claim": if let Asked::Claim { shown, .. } = &asked { Some(shown) } else { None },
        "verdict": if decider.as_ref().is_some_and(stops) { "block" } else { "pass" },
        "rule": decider.as_ref().map(json_of),
        "trunk": trunk.map(|(name, _)| name),
        "overruled": others.iter().map(json_of_overruled).collect::<Vec<_>>(),
    });
    object(format, "sipguard.lookup/1", value, || {
        let trunk = trunk.map(|(name, net)| format!("trunk {name}, by its peer {net}\n"));
        text(&asked.shown(), decider.as_ref(), &others, &clock) + &trunk.unwrap_or_default()
    })
}

/// Why a rule does not decide.
fn why(row: &Row, decider: Option<&Row>, allowed: &Allowed) -> String {
    let Some(decider) = decider else {
        if !row.is_operators() && allowed.trunk_of(&row.target).is_some() {
            return "nothing automatic touches a trunk".to_owned();
        }
        return "not in force; the next change of a rule takes it up".to_owned();
    };
    if row.target == decider.target {
        return match (row.verb == decider.verb, row.mode == decider.mode) {
            (false, _) => format!("the operator's last word is {}", decider.verb.word()),
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

fn json_of_overruled(one: &Overruled) -> Value {
    let mut value = json_of(&Listed { row: one.row.clone(), decides: false, entry: None, is_ban: false });
    value["why"] = Value::from(one.why.clone());
    value
}

fn text(address: &str, decider: Option<&Listed>, others: &[Overruled], clock: &Clock) -> String {
    let mut text = match decider {
        None => format!("{address}: no rule decides; its packets go on to the checks of their protocol\n"),
        Some(one) => {
            let row = &one.row;
            let (did, counted) = match (row.verb, row.mode) {
                _ if one.is_ban => ("banned on guarded ports", "stopped"),
                (Verb::Allow, _) => ("allowed", "let pass"),
                (Verb::Block, Mode::Enforce) => ("blocked", "stopped"),
                (Verb::Block, Mode::Monitor) => ("not stopped, only counted", "counted"),
            };
            let mut text = format!("{address}: {did} by {}, ends: {}", row.target, remaining(row, clock));
            if let (Verb::Block, Some(entry)) = (row.verb, one.entry) {
                text += &format!(", {} packets ({} bytes) {counted}", entry.packets, entry.bytes);
            }
            text + "\n" + &said(row)
        }
    };
    for one in others {
        let row = &one.row;
        text += &format!(
            "overruled: {} {}, ends: {}: {}\n",
            row.verb.word(),
            row.target,
            remaining(row, clock),
            one.why
        );
        text += &said(row);
    }
    text
}

/// Who said a rule, when, and why.
fn said(row: &Row) -> String {
    let mut text = format!("  source {}, by {}, since {}", row.origin, row.author, time(row.created_ms));
    if !row.reason.is_empty() {
        text += &format!(", reason: {}", row.reason);
    }
    text + "\n"
}

fn is_stopping(rule: &Rule) -> bool {
    rule.flags & rule_flags::BLOCK != 0 && rule.flags & rule_flags::MONITOR == 0
}

/// Who, or what, is asked about.
enum Asked {
    /// An address; with a port, the device.
    Address(IpAddr, Option<Device>),
    /// What a request says of itself, and whose rules may be about it, in the order in which they are asked.
    Claim { shown: String, targets: Vec<Target> },
}

impl Asked {
    fn address(&self) -> Option<IpAddr> {
        if let Asked::Address(address, _) = self { Some(*address) } else { None }
    }

    fn device(&self) -> Option<Device> {
        if let Asked::Address(_, device) = self { *device } else { None }
    }

    fn shown(&self) -> String {
        match self {
            Asked::Address(address, None) => address.to_string(),
            Asked::Address(_, Some(device)) => device.to_string(),
            Asked::Claim { shown, .. } => shown.clone(),
        }
    }

    /// The rules that may be about it.
    fn rows(&self, rows: &Rows<'_>) -> Result<Vec<Row>> {
        let of = |targets: &[Target]| {
            let found: Result<Vec<_>> = targets.iter().map(|target| rows.of(target)).collect();
            found.map(|found| found.concat())
        };
        match self {
            Asked::Address(address, device) => {
                let device: Vec<Target> = device.iter().map(|device| (*device).into()).collect();
                Ok([of(&device)?, rows.around(*address)?].concat())
            }
            Asked::Claim { targets, .. } => of(targets),
        }
    }

    /// The rule that decides, as the kernel finds it.
    fn deciding(&self, blocks: &Blocks, clock: &Clock) -> Result<Option<(Target, Rule)>> {
        match self {
            Asked::Address(address, device) => {
                let decides = blocks.deciding(*address, clock)?;
                // The device is asked when its address has not stopped the packet.
                match device {
                    Some(device) if decides.is_none_or(|(_, rule)| !is_stopping(&rule)) => {
                        Ok(blocks.holding((*device).into(), clock)?.or(decides))
                    }
                    _ => Ok(decides),
                }
            }
            Asked::Claim { targets, .. } => {
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

fn parse(args: &Args) -> Result<Asked> {
    if let Some(agent) = &args.agent {
        let targets = UserAgent::beginnings(agent).map(Target::UserAgent).collect();
        return Ok(Asked::Claim { shown: format!("{USER_AGENT}{agent}"), targets });
    }
    let text = args.subject.as_deref().unwrap_or_default();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Asked::Address(address.to_canonical(), None));
    }
    if let Ok(device) = text.parse::<SocketAddr>() {
        return Ok(Asked::Address(device.ip().to_canonical(), Some(device.into())));
    }
    match text.parse::<Target>() {
        Ok(target @ Target::Identity(_)) => {
            Ok(Asked::Claim { shown: target.to_string(), targets: vec![target] })
        }
        Err(error) if text.to_ascii_lowercase().starts_with("sip") => Err(usage(error)),
        _ => Err(usage(format!(
            "`{text}` is neither an address nor a SIP identity: write 203.0.113.7, 203.0.113.7:5060, 2001:db8::7, [2001:db8::7]:5060 or \
             sip:1234@pbx.example"
        ))),
    }
}
