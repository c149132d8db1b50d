//! The row of the log for what was done to the guard itself.

use super::Context;
use crate::notice::Notice;
use crate::store::{self, Counts};

/// What the log says of an operation.
#[derive(Clone, Debug)]
pub struct Entry<'e> {
    /// The verb.
    pub verb: &'e str,
    /// To what it was done.
    pub what: &'e [String],
    /// Why; may be empty.
    pub reason: &'e str,
    /// What came of it.
    pub counts: Counts,
}

/// Writes it. In an incident what was done counts, not the log: where it can't be written, there is a notice that says so, and `done` what was done.
#[must_use]
pub fn write(host: &Context, done: &str, entry: &Entry<'_>) -> Option<Notice> {
    let Entry { verb, what, reason, counts } = entry;
    let written = store::note(&host.store, verb, what, reason, *counts);
    written.err().map(|error| Notice(format!("{done}, but the log does not tell of it: {error:#}")))
}
