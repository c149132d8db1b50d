//! `checks`.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_core::check::{CheckScope, CheckState, Switch};
use sipguard_core::modes::MonitoredBy;
use sipguard_core::ops::RuleChange;
use sipguard_core::ops::checks::{CheckRow, ClearedChecks, Listing};
use sipguard_core::view::{CheckView, schema, time};

use super::rule::change_of_one;
use super::{Format, not_attached, only_counted, rows};
use crate::table::table;

pub fn set(format: Format, switch: &Switch, done: &RuleChange) -> Result<()> {
    let Switch { scope, reason, state } = switch;
    let name = reason.name();
    let passes = format!("; `sipguard explain {name}` says what that lets through");
    let did = match state {
        CheckState::Refuse => format!("{name} is refused from {scope}"),
        CheckState::Monitor => format!("{name} passes from {scope} and is counted{passes}"),
        CheckState::Off => format!("{name} is not looked for from {scope}{passes}"),
    };
    change_of_one(format, done, &did, "it is so already")
}

pub fn cleared(
    format: Format,
    scope: &CheckScope,
    reason: Option<Reason>,
    done: &ClearedChecks,
) -> Result<()> {
    let what = reason.map_or("no check is", Reason::name);
    let did = match reason {
        Some(_) => format!("{what} is not set any more for {scope}"),
        None => format!("{what} set any more for {scope}"),
    };
    let stays = stays(&done.stays);
    let did = if stays.is_empty() { did } else { format!("{did}; what is set for {stays} stays") };
    let same = if stays.is_empty() { "it was not set".to_owned() } else { format!("it is set for {stays}") };
    change_of_one(format, &done.change, &did, &same)
}

/// For whom else something is set, and how that is said: `devices (add --devices), trunk carrier (add --trunk carrier)`.
fn stays(stays: &[Switch]) -> String {
    let mut scopes: Vec<&CheckScope> = stays.iter().map(|switch| &switch.scope).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let text = |scope: &&CheckScope| match scope.options() {
        options if options.is_empty() => format!("{scope} (without an option)"),
        options => format!("{scope} (add{options})"),
    };
    scopes.iter().map(text).collect::<Vec<_>>().join(", ")
}

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    not_attached(format, listing.in_force, "checks take effect");
    let view = |row: &CheckRow| CheckView::new(row, &listing.modes, listing.in_force);
    rows(format, schema::CHECKS, listing.rows.iter().map(view).collect(), || {
        let line = |row: &CheckRow| {
            let Switch { scope, reason, state } = &row.switch;
            let whose = listing.modes.monitored_by(scope).filter(|_| *state == CheckState::Refuse);
            let state = state.name().to_owned() + &only_counted(whose.map(MonitoredBy::name));
            let name = reason.name().to_owned();
            vec![name, state, scope.to_string(), row.author.clone(), time(row.created_ms)]
        };
        table(&["CHECK", "STATE", "FOR", "BY", "SINCE"], listing.rows.iter().map(line))
    })
}
