//! Ports that should hardly be guarded: their connections would be reset, which no operator can take back over a cut SSH session.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Context;
use crate::error::{Failure, FailureKind};
use crate::protect::occupied;
use crate::settings::{EffectiveSettings, SettingsRequest};

/// What is in force; `None` where nothing is attached.
///
/// # Errors
/// When the pins are of another version, or a map can't be read.
pub(super) fn in_force(host: &Context) -> Result<Option<EffectiveSettings>> {
    if !host.is_attached() {
        return Ok(None);
    }
    host.pins.check()?;
    EffectiveSettings::read(&host.pins).map(Some)
}

/// Fails when a port that would come to those in force is one of SSH here, or known as that of another protocol. `remedy` ends the sentence.
///
/// # Errors
/// See there; when a map can't be read.
pub(super) fn refuse_occupied(
    in_force: Option<&EffectiveSettings>,
    wanted: &SettingsRequest,
    remedy: &str,
) -> Result<()> {
    let new: BTreeSet<u16> = wanted.new_ports(in_force);
    match occupied(&new) {
        None => Ok(()),
        Some(why) => Err(Failure::with(FailureKind::Failed, format!("{why}: {remedy}"))),
    }
}
