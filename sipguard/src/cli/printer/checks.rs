//! `checks`, and `explain` of a reason.

use anyhow::Result;
use serde::Serialize;
use sipguard_common::{Reason, When};
use sipguard_core::check::{CheckScope, CheckState, Switch};
use sipguard_core::ops::RuleChange;
use sipguard_core::ops::checks::{CheckRow, Explained, Listing};
use sipguard_core::ops::limit::Kind;
use sipguard_core::view::{CheckStateView, CheckView, schema, time};

use super::rule::change_of_one;
use super::{Format, not_attached, object, rows};
use crate::table::table;

pub fn set(format: Format, switch: &Switch, done: &RuleChange) -> Result<()> {
    let Switch { scope, reason, state } = switch;
    let (name, passes) = (reason.name(), "; `sipguard explain` says what that lets through");
    let did = match state {
        CheckState::Refuse => format!("{name} is refused from {scope}"),
        CheckState::Monitor => format!("{name} passes from {scope} and is counted{passes}"),
        CheckState::Off => format!("{name} is not looked for from {scope}{passes}"),
    };
    change_of_one(format, done, &did, "it is so already")
}

pub fn cleared(format: Format, scope: &CheckScope, reason: Option<Reason>, done: &RuleChange) -> Result<()> {
    let what = reason.map_or("no check is", Reason::name);
    let did = match reason {
        Some(_) => format!("{what} is not set any more for {scope}"),
        None => format!("{what} set any more for {scope}"),
    };
    change_of_one(format, done, &did, "it was not set")
}

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    not_attached(format, listing.in_force, "checks take effect");
    let view = |row: &CheckRow| CheckView::new(row, listing.in_force);
    rows(format, schema::CHECKS, listing.rows.iter().map(view).collect(), || {
        let line = |row: &CheckRow| {
            let Switch { scope, reason, state } = &row.switch;
            let (name, state) = (reason.name().to_owned(), state.name().to_owned());
            vec![name, state, scope.to_string(), row.author.clone(), time(row.created_ms)]
        };
        table(&["CHECK", "STATE", "FOR", "BY", "SINCE"], listing.rows.iter().map(line))
    })
}

/// A reason, and its check.
#[derive(Serialize)]
struct ReasonDocument<'e> {
    reason: &'static str,
    /// What it says.
    text: &'static str,
    /// Where the rule is written; empty for a rule of the guard's own.
    spec: &'static str,
    /// Published faults that it stops; may be empty.
    advisories: &'static str,
    /// Who is known to send it, or something near to it, without harm; may be empty.
    harmless_senders: &'static str,
    /// `default` or `strict`: the profile in which it is made.
    profile: &'static str,
    /// Whether it is of a check that can be switched.
    is_check: bool,
    /// Whether that can be off.
    can_be_off: bool,
    /// For devices and for each trunk; none where there is no check to be switched, or where they are not told.
    states: Vec<CheckStateView>,
    /// Why the present states are not told; null where they are.
    untold: &'e Option<String>,
}

pub fn explain(format: Format, explained: &Explained) -> Result<()> {
    let Explained { reason, states, in_force, untold } = explained;
    not_attached(format, *in_force, "this takes effect");
    let document = ReasonDocument {
        reason: reason.name(),
        text: reason.text(),
        spec: reason.spec(),
        advisories: reason.advisories(),
        harmless_senders: reason.harmless_senders(),
        profile: if reason.when() == When::Strict { "strict" } else { "default" },
        is_check: reason.is_check(),
        can_be_off: reason.is_check() && !reason.loses_framing(),
        states: states
            .iter()
            .map(|(scope, state)| CheckStateView::new(reason.name(), scope, *state))
            .collect(),
        untold,
    };
    object(format, schema::REASON, &document, || text(explained))
}

/// How what is no check of messages is let pass.
fn remedy(reason: Reason) -> String {
    if let Some(kind) = Kind::of_reason(reason) {
        let kind = kind.name();
        return format!(
            "  only count it: sipguard limit set --of {kind} LIMIT --monitor\n  let it pass: sipguard limit clear --of {kind}\n  \
             set the default again: sipguard limit reset --of {kind}\n"
        );
    }
    if reason == Reason::EarlyAnswer {
        return "  let it pass of one server: sipguard trunk add NAME --peer ADDRESS --mode monitor\n"
            .to_owned();
    }
    "  no check of messages, and no limit: it has no switch\n".to_owned()
}

fn text(explained: &Explained) -> String {
    let reason = explained.reason;
    let name = reason.name();
    let mut text = format!("{name}: {}\n", reason.text());
    for (what, value) in [
        ("written in", reason.spec()),
        ("stops", reason.advisories()),
        ("sent without harm by", reason.harmless_senders()),
    ] {
        if !value.is_empty() {
            text += &format!("  {what}: {value}\n");
        }
    }
    if !reason.is_check() {
        return text + &remedy(reason);
    }
    if reason.when() == When::Strict {
        text += "  made in the profile strict alone\n";
    }
    for (scope, state) in &explained.states {
        text += &format!("  now: {} for {scope}\n", state.name());
    }
    if let Some(why) = &explained.untold {
        text += &format!("  now: not told: {why}\n");
    }
    let state = if reason.loses_framing() {
        text += "  behind it the end of the message is uncertain: it can't be off, and with monitor the rest of the connection passes\n  \
                 unjudged until a message begins\n";
        CheckState::Monitor
    } else {
        CheckState::Off
    };
    for (whom, scope) in [
        ("from everybody", CheckScope::Everybody),
        ("from devices", CheckScope::Devices),
        ("from a trunk", CheckScope::Trunk("NAME".to_owned())),
    ] {
        text += &format!(
            "  let it pass {whom}: sipguard checks set {name} {}{}\n",
            state.name(),
            scope.options()
        );
    }
    text
}
