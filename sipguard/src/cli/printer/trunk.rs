//! `trunk`.

use anyhow::Result;
use sipguard_core::ops::trunk::{Listing, Shown, TrunkRow};
use sipguard_core::view::{TrunkCounters, TrunkView, schema, time};

use super::counters::trunk_table;
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
    let Shown { row, counters } = shown;
    object(format, schema::TRUNK, &TrunkCounters::new(row, counters), || {
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
        if !counters.is_empty() {
            text += &trunk_table(counters);
        }
        text
    })
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
