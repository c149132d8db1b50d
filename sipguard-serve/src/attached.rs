//! Which guard is attached: every `attach` that begins afresh makes new maps.

use std::path::Path;

use anyhow::{Context as _, Result};
use sipguard_core::pins::Pins;
use sipguard_observe::tap::{Which, ring_id};

/// A guard from its first attach to its last detach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttachedGuard {
    /// The kernel's name for this boot.
    pub boot: String,
    /// The kernel's number of the map of events.
    pub map: u32,
}

impl AttachedGuard {
    /// The one that is attached, if any.
    ///
    /// # Errors
    /// When its pins are of another version, or can't be read.
    pub(crate) fn attached(pins: &Pins) -> Result<Option<AttachedGuard>> {
        // Without a link nothing is in force; a first attach makes the links last.
        if !pins.exist() || pins.slots()?.is_empty() {
            return Ok(None);
        }
        let read = || {
            pins.check()?;
            let map = ring_id(pins, Which::Events)?;
            let boot = Path::new("/proc/sys/kernel/random/boot_id");
            let boot = std::fs::read_to_string(boot).context("reading the kernel's boot id")?;
            anyhow::Ok(AttachedGuard { boot: boot.trim().to_owned(), map })
        };
        match read() {
            // It was detached in between.
            Err(_) if !pins.exist() => Ok(None),
            outcome => outcome.map(Some),
        }
    }
}
