//! `mode`: whether the guard stops what it refuses, or only counts it.

use anyhow::Result;
use sipguard_common::abi::MODE_MONITOR;

use super::{Context, trail, trunk};
use crate::maps;
use crate::modes::Modes;
use crate::notice::Notice;
use crate::settings::{EffectiveSettings, Mode, changes};
use crate::status;
use crate::store::Counts;

/// The mode of the guard.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// Whether it is another one than before.
    pub changed: bool,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// Sets the mode of the guard, or with `None` reads it. Waits for no change of rules.
///
/// # Errors
/// When no guard is attached, or a map can't be read or written.
pub fn run(host: &Context, wanted: Option<Mode>) -> Result<Outcome> {
    let pins = &host.pins;
    pins.check()?;
    let edit = wanted.is_some().then(|| pins.edit()).transpose()?;
    let mut settings = maps::settings(pins)?;
    let before = EffectiveSettings::read(pins)?;
    let after = EffectiveSettings { mode: wanted.map_or(before.mode, Mode::number), ..before.clone() };
    let changed = after != before;
    if changed {
        after.put(&mut settings);
        maps::set_settings(pins, settings)?;
    }
    drop(edit);
    let mode = status::mode(&settings);
    let mut notices = Vec::new();
    if changed {
        let counts = Counts { moved: 1, ..Counts::default() };
        let what = changes(Some(&before), &after);
        let entry = trail::Entry { verb: "mode", what: &what, reason: "", counts };
        notices.extend(trail::write(host, &format!("the mode is {mode}"), &entry));
    }
    Ok(Outcome { mode, changed, notices })
}

/// The modes of the guard, where it is attached, and of the trunks.
///
/// # Errors
/// When the store or the settings can't be read.
pub(super) fn modes(host: &Context) -> Result<Modes> {
    let mut guard_monitors = false;
    if host.is_attached() {
        host.pins.check()?;
        guard_monitors = maps::settings(&host.pins)?.mode == MODE_MONITOR;
    }
    let trunks = trunk::stored(host)?.into_iter().map(|trunk| (trunk.name, trunk.policy.mode)).collect();
    Ok(Modes { guard_monitors, trunks })
}
