//! `check`, `config`, and the configuration file as other operations read it.

use std::path::Path;

use anyhow::Result;

use super::Context;
use crate::config::{self, Invalid, LoadedConfig, Sources, last_good};
use crate::error::{Failure, FailureKind};
use crate::notice::{self, Notice};

/// Reads and validates a configuration file, or with `None` the default one; changes nothing.
///
/// # Errors
/// Everything that is wrong.
pub fn check(file: Option<&Path>) -> Result<LoadedConfig, Invalid> {
    config::load(file)
}

/// The same for an operation that needs a valid one. `nothing` says what an invalid one did, such as `nothing was attached`. Warnings are notices.
///
/// # Errors
/// [`FailureKind::Configuration`] with everything that is wrong.
pub fn read(file: Option<&Path>, nothing: &str) -> Result<LoadedConfig> {
    let loaded = check(file).map_err(|invalid| refused(&invalid, nothing))?;
    warn(&loaded);
    Ok(loaded)
}

/// Sends the warnings at once: they are of use also when the operation fails.
pub fn warn(loaded: &LoadedConfig) {
    loaded.warnings.iter().cloned().for_each(notice::send);
}

/// The failure of an operation whose configuration is invalid.
#[must_use]
pub fn refused(invalid: &Invalid, nothing: &str) -> anyhow::Error {
    Failure::with(FailureKind::Configuration, complaint(invalid, nothing))
}

/// Everything that is wrong, and the remedy. `outcome` is what became of the operation.
#[must_use]
pub fn complaint(invalid: &Invalid, outcome: &str) -> String {
    let list: String = invalid.sentences.iter().map(|sentence| format!("\n  {sentence}")).collect();
    format!(
        "the configuration is invalid, {outcome}:{list}\nFix it and run `sipguard check`; `sipguard config example` shows every setting"
    )
}

/// Keeps files that were applied, for a start with a mistake in them. A failure is a notice: what was asked for is done.
pub(super) fn keep(host: &Context, sources: &Sources) -> Option<Notice> {
    let kept = last_good::keep(&host.store, sources);
    let text = |error| {
        format!("the configuration is applied, but not kept for a start with a mistake in it: {error:#}")
    };
    kept.err().map(|error| Notice(text(error)))
}
