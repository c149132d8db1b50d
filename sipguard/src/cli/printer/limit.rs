//! `limit`.

use anyhow::Result;
use sipguard_core::check::CheckScope;
use sipguard_core::ops::RuleChange;
use sipguard_core::ops::limit::{Kind, Listing, Most, RuleMode, default, named};
use sipguard_core::view::{LimitView, schema};

use super::rule::change_of_one;
use super::{Format, not_attached, rows};
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

pub fn cleared(format: Format, trunk: Option<&str>, kind: Option<Kind>, done: &RuleChange) -> Result<()> {
    let did = format!("no limit any more: {}", named(trunk, kind.map_or("all", Kind::name)));
    change_of_one(format, done, &did, "not limited")
}

pub fn reset(format: Format, trunk: Option<&str>, kind: Option<Kind>, done: &RuleChange) -> Result<()> {
    let defaults: Vec<String> = Kind::all()
        .filter(|one| kind.is_none_or(|kind| kind == *one))
        .filter_map(|one| default(trunk, one).map(|most| format!("{} {most}", one.name())))
        .collect();
    let defaults = if defaults.is_empty() { "no limit".to_owned() } else { defaults.join(", ") };
    let did = format!("the default again: {}: {defaults}", named(trunk, kind.map_or("all", Kind::name)));
    change_of_one(format, done, &did, "it is the default already")
}

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    not_attached(format, listing.in_force, "limits take effect");
    rows(format, schema::LIMITS, listing.limits.iter().collect(), || {
        let columns = ["FOR", "OF", "RATE", "BURST", "MODE", "NOW", "BY", "SINCE"];
        table(&columns, listing.limits.iter().map(line))
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
        limit.mode.clone(),
        now.unwrap_or_default(),
        limit.author.clone(),
        limit.created_at.clone(),
    ]
}
