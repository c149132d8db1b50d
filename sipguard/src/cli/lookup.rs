//! `sipguard lookup ADDR[:PORT]`: which rule decides and which do not, like `ip route get`. Also about what a request says of itself.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use sipguard_common::abi::MODE_MONITOR;

use super::list::remaining;
use super::usage;
use crate::clock::Clock;
use crate::lookup::{ListedRule, LookupQuery, LookupResult, Overruled, find};
use crate::maps;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::store::{RuleMode, RuleRow, RuleVerb};
use crate::target::Target;
use crate::view::{RuleView, time};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address; with a port, the device behind it; or a SIP identity
    #[arg(value_name = "ADDR[:PORT]|sip:USER@HOST", required_unless_present = "agent")]
    subject: Option<String>,

    /// A User-Agent, as a request has it
    #[arg(long = "user-agent", value_name = "TEXT", conflicts_with = "subject")]
    agent: Option<String>,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    let asked = parse(args)?;
    pins.check()?;
    let clock = Clock::now()?;
    let LookupResult { decider, others, trunk } = find(pins, path, &asked, &clock)?;
    let stops = |one: &ListedRule| one.row.verb == RuleVerb::Block && one.row.mode == RuleMode::Enforce;
    let value = json!({
        "address": asked.address().map(|address| address.to_string()),
        "port": asked.device().map(|device| u16::from_be_bytes(device.key().port)),
        "claim": if let LookupQuery::Claim { shown, .. } = &asked { Some(shown) } else { None },
        "verdict": if decider.as_ref().is_some_and(stops) { "block" } else { "pass" },
        "rule": decider.as_ref().map(RuleView::from),
        "trunk": trunk.as_ref().map(|(name, _)| name),
        "overruled": others.iter().map(overruled).collect::<Vec<_>>(),
    });
    let monitors = maps::settings(pins)?.mode == MODE_MONITOR && decider.as_ref().is_some_and(stops);
    let hint = if monitors { "the mode is monitor: what is blocked passes, and is counted\n" } else { "" };
    object(format, "sipguard.lookup/2", value, || {
        let trunk = trunk.map(|(name, net)| format!("trunk {name}, by its peer {net}\n"));
        text(&asked.shown(), decider.as_ref(), &others, &clock) + &trunk.unwrap_or_default() + hint
    })
}

fn overruled(one: &Overruled) -> RuleView {
    let listed = ListedRule { row: one.row.clone(), decides: false, entry: None, is_ban: false };
    RuleView { why: Some(one.why.clone()), ..RuleView::from(&listed) }
}

fn text(address: &str, decider: Option<&ListedRule>, others: &[Overruled], clock: &Clock) -> String {
    let mut text = match decider {
        None => format!("{address}: no rule decides; its packets go on to the checks of their protocol\n"),
        Some(one) => {
            let row = &one.row;
            let (did, counted) = match (row.verb, row.mode) {
                _ if one.is_ban => ("banned on guarded ports", "stopped"),
                (RuleVerb::Allow, _) => ("allowed", "let pass"),
                (RuleVerb::Block, RuleMode::Enforce) => ("blocked", "stopped"),
                (RuleVerb::Block, RuleMode::Monitor) => ("not stopped, only counted", "counted"),
            };
            let mut text = format!("{address}: {did} by {}, ends: {}", row.target, remaining(row, clock));
            if let (RuleVerb::Block, Some(entry)) = (row.verb, one.entry) {
                text += &format!(", {} packets ({} bytes) {counted}", entry.packets, entry.bytes);
            }
            text + "\n" + &said(row)
        }
    };
    for one in others {
        let row = &one.row;
        text += &format!(
            "overruled: {} {}, ends: {}: {}\n",
            row.verb.name(),
            row.target,
            remaining(row, clock),
            one.why
        );
        text += &said(row);
    }
    text
}

/// Who said a rule, when, and why.
fn said(row: &RuleRow) -> String {
    let mut text = format!("  source {}, by {}, since {}", row.origin, row.author, time(row.created_ms));
    if !row.reason.is_empty() {
        text += &format!(", reason: {}", row.reason);
    }
    text + "\n"
}

fn parse(args: &Args) -> Result<LookupQuery> {
    if let Some(agent) = &args.agent {
        return Ok(LookupQuery::user_agent(agent));
    }
    let text = args.subject.as_deref().unwrap_or_default();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(LookupQuery::Address(address.to_canonical(), None));
    }
    if let Ok(device) = text.parse::<SocketAddr>() {
        return Ok(LookupQuery::Address(device.ip().to_canonical(), Some(device.into())));
    }
    match text.parse::<Target>() {
        Ok(target @ Target::Identity(_)) => {
            Ok(LookupQuery::Claim { shown: target.to_string(), targets: vec![target] })
        }
        Err(error) if text.to_ascii_lowercase().starts_with("sip") => Err(usage(error)),
        _ => Err(usage(format!(
            "`{text}` is neither an address nor a SIP identity: write 203.0.113.7, 203.0.113.7:5060, 2001:db8::7, [2001:db8::7]:5060 or \
             sip:1234@pbx.example"
        ))),
    }
}
