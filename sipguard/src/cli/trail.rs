//! The row of the trail for what a command did to the guard itself.

use std::path::Path;

use crate::store::{self, Counts};

/// Writes it. In an incident what was done counts, not the log: where it can't be written, that is said, and `done` what was done.
pub fn tell(store: &Path, done: &str, verb: &str, what: &[String], reason: &str, counts: Counts) {
    if let Err(error) = store::note(store, verb, what, reason, counts) {
        eprintln!("sipguard: {done}, but the log does not tell of it: {error:#}");
    }
}
