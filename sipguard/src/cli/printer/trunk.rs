//! `trunk`.

use anyhow::Result;
use sipguard_core::ops::checks::CheckRow;
use sipguard_core::ops::limit::RuleMode;
use sipguard_core::ops::trunk::{Listing, Shown, TrunkRow};
use sipguard_core::view::{LimitView, TrunkCounters, TrunkView, schema, time};

use super::counters::trunk_table;
use super::limit::amount;
use super::{Format, not_attached, object, rows};
use crate::table::table;

pub fn list(format: Format, listing: &Listing) -> Result<()> {
    not_attached(format, listing.in_force, "trunks take effect");
    rows(format, schema::TRUNKS, listing.trunks.iter().map(TrunkView::from).collect(), || {
        let head =
            ["TRUNK", "PEERS", "TRANSPORTS", "METHODS", "PROFILE", "MODE", "PROXY", "BY", "SINCE", "COMMENT"];
        table(&head, listing.trunks.iter().map(line))
    })
}

pub fn show(format: Format, shown: &Shown) -> Result<()> {
    let Shown { row, checks, limits, counters, modes, in_force } = shown;
    let document = TrunkCounters::new(row, checks, limits, counters, modes, *in_force);
    object(format, schema::TRUNK, &document, || {
        let policy = &row.policy;
        let mut text = format!(
            "{}: {}\n  peers {}\n  transports {}, methods {}, profile {}, mode {}, PROXY header {}\n  by {}, since {}\n",
            row.name,
            if row.reason.is_empty() { "a trunk" } else { &row.reason },
            peers(row).join(" "),
            policy.transports_text(),
            policy.methods_text(),
            policy.profile.name(),
            policy.mode.name(),
            proxy(row),
            row.author,
            time(row.created_ms)
        );
        text += &format!("  checks of its own: {}\n", all(checks.iter().map(check)));
        text += &format!("  limits: {}\n", all(limits.iter().map(|one| limit(one, *in_force))));
        if !counters.is_empty() {
            text += &trunk_table(counters);
        }
        text
    })
}

/// `none`, or one behind the other.
fn all(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

fn check(row: &CheckRow) -> String {
    format!("{} {}", row.switch.reason.name(), row.switch.state.name())
}

/// Such as `register 20/s burst 40 monitor`, or `open 500 at once (now 3)` while something is attached.
fn limit(limit: &LimitView, in_force: bool) -> String {
    let mut text = format!("{} {}", limit.of, amount(limit));
    if let Some(burst) = limit.burst {
        text += &format!(" burst {burst}");
    }
    if limit.mode == RuleMode::Monitor.name() {
        text += " monitor";
    }
    if let Some((now, _)) = limit.now().filter(|_| in_force) {
        text += &format!(" (now {now})");
    }
    text
}

fn peers(row: &TrunkRow) -> Vec<String> {
    row.peers.iter().map(ToString::to_string).collect()
}

/// Whether its connections begin with a PROXY header.
fn proxy(row: &TrunkRow) -> &'static str {
    if row.policy.proxy_protocol { "required" } else { "none" }
}

fn line(row: &TrunkRow) -> Vec<String> {
    vec![
        row.name.clone(),
        peers(row).join(" "),
        row.policy.transports_text(),
        row.policy.methods_text(),
        row.policy.profile.name().to_owned(),
        row.policy.mode.name().to_owned(),
        proxy(row).to_owned(),
        row.author.clone(),
        time(row.created_ms),
        row.reason.clone(),
    ]
}
