//! `lookup`: which rule decides and which do not, like `ip route get`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use sipguard_core::clock::Clock;
use sipguard_core::ops::RuleVerb;
use sipguard_core::ops::counters::AddressRow;
use sipguard_core::ops::export::RuleRow;
use sipguard_core::ops::lookup::{ListedRule, LookupQuery, LookupResult, Outcome, Overruled};
use sipguard_core::view::{RuleView, time};
use sipguard_observe::view::AddressView;

use super::{Format, object, plural, remaining};

/// What is found about somebody.
#[derive(Serialize)]
struct LookupDocument<'a> {
    src_ip: Option<String>,
    src_port: Option<u16>,
    /// The identity or the user agent that was asked about.
    claim: Option<&'a String>,
    /// `block` or `pass`, as far as rules decide.
    verdict: &'static str,
    /// The rule that decides.
    rule: Option<RuleView>,
    trunk: Option<&'a String>,
    /// Whether its connections begin with a PROXY header.
    proxy_protocol: bool,
    /// The rules that do not decide.
    overruled: Vec<RuleView>,
    /// The checks of its messages that do not refuse, with their states.
    checks: BTreeMap<&'static str, &'static str>,
    /// What the address sent that was malformed or over a limit.
    offender: Option<AddressView>,
    /// Of an identity or a user agent: the addresses whose first malformed message said so.
    said_by: Vec<AddressView>,
}

pub fn lookup(
    format: Format,
    asked: &LookupQuery,
    outcome: &Outcome,
    offenders: &[AddressRow],
) -> Result<()> {
    let Outcome { found, is_blocked, monitors, checks, clock } = outcome;
    let LookupResult { decider, others, trunk, proxy_protocol } = found;
    let mut views: Vec<AddressView> = offenders.iter().map(AddressView::of_row).collect();
    let offender = asked.address().and_then(|_| views.pop());
    let document = LookupDocument {
        src_ip: asked.address().map(|address| address.to_string()),
        src_port: asked.device().map(|device| u16::from_be_bytes(device.key().port)),
        claim: if let LookupQuery::Claim { shown, .. } = asked { Some(shown) } else { None },
        verdict: if *is_blocked { "block" } else { "pass" },
        rule: decider.as_ref().map(RuleView::from),
        trunk: trunk.as_ref().map(|(name, _)| name),
        proxy_protocol: *proxy_protocol,
        overruled: others.iter().map(overruled).collect(),
        checks: checks.iter().map(|(reason, state)| (reason.name(), state.name())).collect(),
        offender,
        said_by: views,
    };
    let said_by = match document.said_by.is_empty() {
        true => String::new(),
        false => "malformed messages that say so:\n".to_owned(),
    };
    let sent = document.offender.iter().chain(&document.said_by).map(sent);
    let sent = sent.fold(said_by, |text, sent| text + &sent);
    let hint = if *monitors && *is_blocked {
        "the mode is monitor: what is blocked passes, and is only counted\n"
    } else {
        ""
    };
    object(format, "sipguard.lookup/2", &document, || {
        let header = if *proxy_protocol { "; its connections begin with a PROXY header" } else { "" };
        let trunk = trunk.as_ref().map(|(name, net)| format!("trunk {name}, by its peer {net}{header}\n"));
        let checks: String = checks
            .iter()
            .map(|(reason, state)| format!("check {}: {}\n", reason.name(), state.name()))
            .collect();
        text(&asked.shown(), decider.as_ref(), others, *monitors, clock)
            + &trunk.unwrap_or_default()
            + &checks
            + hint
            + &sent
    })
}

/// What it sent that was malformed or over a limit.
fn sent(view: &AddressView) -> String {
    let packets = plural(usize::try_from(view.packets).unwrap_or(usize::MAX), "packet");
    let lines = super::counters::details(view).into_iter();
    let lines = lines.map(|(label, said)| format!("  {label:<10}  {said}\n")).collect::<String>();
    format!("{}: {packets} malformed or over a limit\n{lines}", view.src_ip)
}

fn overruled(one: &Overruled) -> RuleView {
    let listed = ListedRule { row: one.row.clone(), decides: false, entry: None, is_ban: false };
    RuleView { why: Some(one.why.clone()), ..RuleView::from(&listed) }
}

fn text(
    address: &str,
    decider: Option<&ListedRule>,
    others: &[Overruled],
    monitors: bool,
    clock: &Clock,
) -> String {
    let mut text = match decider {
        None => format!("{address}: no rule decides; its packets go on to the checks of their protocol\n"),
        Some(one) => decides(address, one, monitors, clock),
    };
    for one in others {
        let row = &one.row;
        text += &format!(
            "overruled: {} {}, ends: {}: {}\n",
            row.verb.name(),
            row.target,
            remaining(row.expires_ms, clock),
            one.why
        );
        text += &set_by(row);
    }
    text
}

/// What a rule does; in monitor mode its packets are counted, and before may have been stopped.
fn decides(address: &str, one: &ListedRule, monitors: bool, clock: &Clock) -> String {
    let row = &one.row;
    let (did, counted) = match row.verb {
        _ if one.is_ban && monitors => ("banned on guarded ports, but not stopped", "counted"),
        _ if one.is_ban => ("banned on guarded ports", "stopped"),
        RuleVerb::Allow => ("allowed", "let pass"),
        RuleVerb::Block if row.only_counts() => ("not stopped, only counted", "counted"),
        RuleVerb::Block if monitors => ("blocked, but not stopped", "counted"),
        RuleVerb::Block => ("blocked", "stopped"),
    };
    let mut text = format!("{address}: {did} by {}, ends: {}", row.target, remaining(row.expires_ms, clock));
    if let (RuleVerb::Block, Some(entry)) = (row.verb, one.entry) {
        text += &format!(", {} packets ({} bytes) {counted}", entry.packets, entry.bytes);
    }
    text + "\n" + &set_by(row)
}

/// Who set a rule, when, and why.
fn set_by(row: &RuleRow) -> String {
    let mut text = format!("  origin {}, by {}, since {}", row.origin, row.author, time(row.created_ms));
    if !row.reason.is_empty() {
        text += &format!(", comment: {}", row.reason);
    }
    text + "\n"
}
