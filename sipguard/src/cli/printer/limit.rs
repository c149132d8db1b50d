//! `limit`.

use anyhow::Result;
use sipguard_core::check::CheckScope;
use sipguard_core::ops::RuleChange;
use sipguard_core::ops::limit::{ClearedLimits, Kind, Listing, Most, RuleMode, default, named};
use sipguard_core::view::{LimitView, schema};

use super::rule::change_of_one;
use super::{Format, not_attached, only_counted, rows};
use crate::table::table;

pub fn set(format: Format, trunk: Option<&str>, most: Most, done: &RuleChange) -> Result<()> {
    let did = format!("limited {}: {most}", named(trunk, most.kind().name()));
    let did = match most.mode() {
        RuleMode::Enforce => did,
        RuleMode::Monitor => format!(
            "{did}; what is over it passes, and `sipguard counters` has it as {} with would-drop",
            most.kind().reason().name()
        ),
    };
    change_of_one(format, done, &did, "limited so already")
}

pub fn cleared(format: Format, trunk: Option<&str>, kind: Option<Kind>, done: &ClearedLimits) -> Result<()> {
    let mut did = format!("no limit any more: {}", named(trunk, kind.map_or("all", Kind::name)));
    if kind.is_none() {
        did += &format!("; there were {}", all(done.removed.iter().copied()));
    }
    if done.removed.iter().any(|most| default(trunk, most.kind()).is_some()) {
        let of = kind.map(|kind| format!(" --of {}", kind.name())).unwrap_or_default();
        did += &format!("; `sipguard limit reset{of}` sets the default again");
    }
    change_of_one(format, &done.change, &did, "not limited")
}

pub fn reset(format: Format, trunk: Option<&str>, kind: Option<Kind>, done: &RuleChange) -> Result<()> {
    let defaults: Vec<Most> = Kind::all()
        .filter(|one| kind.is_none_or(|kind| kind == *one))
        .filter_map(|one| default(trunk, one))
        .collect();
    let named = named(trunk, kind.map_or("all", Kind::name));
    if defaults.is_empty() {
        let same = format!("there was no limit: {named}; that is the default");
        return change_of_one(format, done, &format!("the default again: {named}: no limit"), &same);
    }
    let defaults = all(defaults.into_iter());
    let same = format!("it is the default already: {defaults}");
    change_of_one(format, done, &format!("the default again: {named}: {defaults}"), &same)
}

/// `register 500/s burst 6000, unfinished 256 at once`.
fn all(limits: impl Iterator<Item = Most>) -> String {
    let text = |most: Most| format!("{} {most}", most.kind().name());
    limits.map(text).collect::<Vec<_>>().join(", ")
}

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    not_attached(format, listing.in_force, "limits take effect");
    rows(format, schema::LIMITS, listing.limits.iter().collect(), || {
        let columns = ["FOR", "OF", "RATE", "BURST", "MODE", "NOW", "BY", "SINCE"];
        let table = table(&columns, listing.limits.iter().map(line));
        let none = match (listing.limits.is_empty(), listing.is_stored) {
            (true, true) => "no limits; `sipguard limit reset` sets the defaults\n".to_owned(),
            (true, false) => {
                let defaults = all(Kind::all().filter_map(|kind| default(None, kind)));
                format!("no rules yet; a new store has for devices: {defaults}\n")
            }
            (false, _) => String::new(),
        };
        table + &none
    })
}

/// How much, without a burst: `20/s` or `500 at once`.
pub fn amount(limit: &LimitView) -> String {
    match limit.at_once {
        Some(most) => format!("{most} at once"),
        None => format!("{}/s", limit.per_second.unwrap_or_default()),
    }
}

/// The cells of a limit.
fn line(limit: &LimitView) -> Vec<String> {
    let now = limit.now().map(|(count, fullest)| match fullest {
        Some(source) => format!("{count} ({source})"),
        None => count.to_string(),
    });
    vec![
        CheckScope::of_limit(limit.trunk.as_deref()).to_string(),
        limit.of.clone(),
        amount(limit),
        limit.burst.map(|burst| burst.to_string()).unwrap_or_default(),
        limit.mode.clone() + &only_counted(limit.monitored_by.as_deref()),
        now.unwrap_or_default(),
        limit.author.clone(),
        limit.created_at.clone(),
    ]
}

/// How much, without the mode: `20/s burst 40` or `500 at once`.
pub fn whole(limit: &LimitView) -> String {
    let burst = limit.burst.map(|burst| format!(" burst {burst}")).unwrap_or_default();
    amount(limit) + &burst
}
