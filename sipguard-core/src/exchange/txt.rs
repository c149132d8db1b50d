//! Addresses and prefixes, as most blocklists are written.

use std::fmt::Write as _;

use super::{Entry, Mistake, words};
use crate::claim::USER_AGENT;
use crate::rule::RuleVerb;
use crate::store::RuleRow;
use crate::target::Target;

pub(super) fn read(text: &str, wide: bool) -> Result<Vec<Entry>, Mistake> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        // A user agent may have spaces, so it has a line of its own.
        if let Some(at) = line.find(USER_AGENT).filter(|at| line[..*at].trim().is_empty()) {
            let target = line[at..].trim_end().parse();
            entries.push(Entry::block(target.map_err(|text| Mistake {
                line: number + 1,
                column: at + 1,
                text,
            })?));
            continue;
        }
        for (column, word) in words(line) {
            let entry = word.parse().and_then(|target| Entry::block(target).narrow(wide));
            entries.push(entry.map_err(|text| Mistake { line: number + 1, column, text })?);
        }
    }
    Ok(entries)
}

/// Blocks only: a list of addresses can't say that it allows. What would begin a comment is left out.
pub(super) fn lines(rows: &[RuleRow]) -> String {
    let mut text = String::new();
    let mut last: Option<Target> = None;
    for row in rows.iter().filter(|row| row.verb == RuleVerb::Block) {
        if last.replace(row.target) == Some(row.target) || row.target.to_string().contains(['#', ';']) {
            continue;
        }
        let reason = if row.reason.is_empty() { String::new() } else { format!(" # {}", row.reason) };
        let _infallible = writeln!(text, "{}{reason}", row.target);
    }
    text
}
