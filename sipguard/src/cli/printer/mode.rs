//! `mode`.

use anyhow::Result;
use serde::Serialize;
use sipguard_core::ops::mode::Outcome;

use super::{Format, notices, object};

/// The mode of the guard.
#[derive(Serialize)]
struct ModeDocument {
    /// `enforce` or `monitor`.
    mode: &'static str,
    /// Whether it is another one than before.
    changed: bool,
}

/// Prints the mode; `asked` is whether one was to be set.
pub fn mode(format: Format, outcome: &Outcome, asked: bool) -> Result<()> {
    let Outcome { mode, changed, .. } = *outcome;
    notices(&outcome.notices);
    object(format, "sipguard.mode/1", &ModeDocument { mode, changed }, || {
        if asked && !changed { format!("{mode} already, nothing changed\n") } else { format!("{mode}\n") }
    })
}
