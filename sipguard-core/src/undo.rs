//! What an `attach` takes back when it fails half way, or when nobody confirms it.

use std::path::Path;

use anyhow::Result;

use crate::detach;
use crate::maps;
use crate::pins::Pins;
use crate::settings::EffectiveSettings;
use crate::store::{self, ConfiguredRows};

/// The guard's settings, and the end of its grace (`CLOCK_BOOTTIME`, nanoseconds).
pub(crate) type State = (EffectiveSettings, u64);

/// What an `attach` changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undo {
    /// Interfaces that were not attached before.
    pub new: Vec<String>,
    /// The settings before and after, where a guard was attached before.
    pub settings: Option<(State, State)>,
    /// What the configuration file has set in the store.
    pub rows: ConfiguredRows,
}

impl Undo {
    /// Takes back all of it, and says what that was. What somebody else has changed since stays.
    ///
    /// # Errors
    /// The first failure; what comes after it is taken back all the same.
    pub(crate) fn take_back(&self, pins: &Pins, store: &Path) -> Result<String> {
        let mut did = Vec::new();
        let mut outcomes = Vec::new();
        if !self.new.is_empty() {
            outcomes.push(detach::detach(pins, Some(&self.new)).map(drop));
            did.push(format!("detached again from {}", self.new.join(", ")));
        }
        if self.settings.as_ref().is_some_and(|(before, after)| before != after) {
            outcomes.push(self.settings(pins));
            did.push("the settings are as before".to_owned());
        }
        if !self.rows.is_empty() {
            let give_back = |change: &mut store::Change<'_>| change.give_back(&self.rows);
            outcomes.push(store::change(store, pins, give_back).map(drop));
            did.push("the rules of the configuration file are as before".to_owned());
        }
        outcomes.into_iter().collect::<Result<()>>()?;
        if did.is_empty() {
            did.push("nothing had changed".to_owned());
        }
        Ok(did.join(", "))
    }

    /// Takes back the settings, one by one where they are as the `attach` left them.
    ///
    /// # Errors
    /// When a map can't be read or written.
    pub(crate) fn settings(&self, pins: &Pins) -> Result<()> {
        let Some(((before, grace_before), (after, grace_after))) = &self.settings else { return Ok(()) };
        if pins.slots()?.is_empty() {
            return Ok(());
        }
        let _edit = pins.edit()?;
        let mut now = EffectiveSettings::read(pins)?;
        let mut settings = maps::settings(pins)?;
        back(&mut now.mode, &before.mode, &after.mode);
        back(&mut now.action, &before.action, &after.action);
        back(&mut now.limits, &before.limits, &after.limits);
        back(&mut now.ports, &before.ports, &after.ports);
        back(&mut settings.grace_until_ns, grace_before, grace_after);
        maps::set_settings(pins, settings)?;
        now.write(pins)
    }
}

fn back<T: Clone + PartialEq>(now: &mut T, before: &T, after: &T) {
    if now == after {
        now.clone_from(before);
    }
}
