//! `bans`.

use anyhow::Result;
use serde::Serialize;
use sipguard_core::ban_rule::BanRule;
use sipguard_core::ops::bans::{Outcome, sentence};
use sipguard_core::view::{BanView, schema};

use super::rule::change_of_one;
use super::{Format, object, plural};

/// How many bans were saved.
#[derive(Serialize)]
struct SavedDocument {
    bans: usize,
}

pub fn changed(format: Format, outcome: &Outcome) -> Result<()> {
    let said = sentence(&outcome.rule);
    change_of_one(format, &outcome.change, &said, &said)
}

pub fn show(format: Format, rule: &BanRule) -> Result<()> {
    object(format, schema::BANS, &BanView::from(rule), || sentence(rule) + "\n")
}

pub fn saved(format: Format, bans: usize) -> Result<()> {
    object(format, "sipguard.saved/1", &SavedDocument { bans }, || match bans {
        0 => "no bans\n".to_owned(),
        count => format!("saved {}\n", plural(count, "ban")),
    })
}
