//! Addresses and prefixes, as most blocklists are written.

use std::fmt::Write as _;

use super::{Entry, Mistake, words};
use crate::store::{Row, Verb};
use crate::target::Target;

pub fn read(text: &str) -> Result<Vec<Entry>, Mistake> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        for (column, word) in words(line) {
            let target = word.parse().map_err(|text| Mistake { line: number + 1, column, text })?;
            entries.push(Entry::block(target));
        }
    }
    Ok(entries)
}

/// Blocks only: a list of addresses can't say that it allows.
pub fn write(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last: Option<Target> = None;
    for row in rows.iter().filter(|row| row.verb == Verb::Block) {
        if last.replace(row.target) == Some(row.target) {
            continue;
        }
        let reason = if row.reason.is_empty() { String::new() } else { format!(" # {}", row.reason) };
        let _infallible = writeln!(text, "{}{reason}", row.target);
    }
    text
}
