//! `log`.

use anyhow::Result;
use serde::Serialize;
use sipguard_core::ops::log::AuditRecord;
use sipguard_core::view::time;

use super::{Format, rows};
use crate::table::table;

/// What one command did.
#[derive(Serialize)]
struct LogRow<'a> {
    done_at: String,
    /// The person at the keyboard, or the user of the program.
    author: &'a str,
    /// For which origin.
    origin: &'a str,
    verb: &'a str,
    what: &'a str,
    comment: &'a str,
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
}

pub fn log(format: Format, records: &[AuditRecord]) -> Result<()> {
    rows(format, "sipguard.log/2", records.iter().map(row).collect(), || {
        let head = ["TIME", "BY", "ORIGIN", "VERB", "WHAT", "ADDED", "CHANGED", "REMOVED", "COMMENT"];
        table(&head, records.iter().map(line))
    })
}

fn row(one: &AuditRecord) -> LogRow<'_> {
    LogRow {
        done_at: time(one.at_ms),
        author: &one.author,
        origin: &one.origin,
        verb: &one.verb,
        what: &one.what,
        comment: &one.reason,
        added: one.counts.added,
        changed: one.counts.moved,
        removed: one.counts.removed,
        unchanged: one.counts.same,
    }
}

fn line(one: &AuditRecord) -> Vec<String> {
    vec![
        time(one.at_ms),
        one.author.clone(),
        one.origin.clone(),
        one.verb.clone(),
        one.what.clone(),
        one.counts.added.to_string(),
        one.counts.moved.to_string(),
        one.counts.removed.to_string(),
        one.reason.clone(),
    ]
}
