//! `list`.

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::abi::Rule;
use sipguard_core::clock::Clock;
use sipguard_core::ops::list::{ListedRule, Listing};
use sipguard_core::view::{self, RuleView, schema, time};

use super::{Format, Rows, not_attached, remaining};

/// Prints a list while it is read.
pub fn list(format: Format, listing: &Listing<'_>) -> Result<()> {
    not_attached(format, listing.in_force(), "these rules take effect");
    let head = ["TARGET", "RULE", "ENDS", "PACKETS", "BYTES", "ORIGIN", "BY", "SINCE", "COMMENT"];
    let mut out = Rows::new(format, schema::BLOCKS, &head);
    let clock = &listing.clock;
    let more = listing.each(&mut |chunk| {
        out.print(chunk.iter().map(|one| (view::json(&RuleView::from(one)), line(one, clock))))
    })?;
    let more_text =
        format!("{more} more: `--limit all` lists them, `--origin` and `list block` narrow it down\n");
    out.end(&[("more", more.into())], (more > 0).then_some(more_text.as_str()))
}

fn line(one: &ListedRule, clock: &Clock) -> Vec<String> {
    let row = &one.row;
    let mut rule = one.name().to_owned();
    if row.only_counts() {
        rule += ", counts only";
    }
    if !one.decides {
        rule += ", overruled";
    }
    let entry = one.entry.unwrap_or(Rule::zeroed());
    vec![
        row.target.to_string(),
        rule,
        remaining(row.expires_ms, clock),
        entry.packets.to_string(),
        entry.bytes.to_string(),
        row.origin.clone(),
        row.author.clone(),
        time(row.created_ms),
        row.reason.clone(),
    ]
}
