//! `upgrade`: another build of the programs takes the place of the one that filters, and no packet passes in between.
//!
//! The kernel replaces the program of a link at once (`BPF_LINK_UPDATE`, Linux 5.7; for TCX commit e420bed02507), and the maps stay, so connections,
//! counters and rules go on. All programs are loaded before the first is replaced: what the kernel refuses changes nothing. What was killed half way
//! filters on every interface, with one build or the other, and is repeated.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use sipguard_common::abi::{ABI_VERSION, Iface, names};

use crate::clock::Clock;
use crate::counting;
use crate::error::{Failure, FailureKind};
use crate::layouts::{Anew, Layouts, anew, with_groups};
use crate::load::{Begun, Loaded};
use crate::maps;
use crate::pins::Pins;
use crate::presence::{Presence, iface_name, own_slots, presence};
use crate::second_eye;
use crate::settings::DEFAULT_GRACE;
use crate::store;

/// An interface on which another program filters now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Name of the interface.
    pub interface: String,
    /// The kernel's number of the program that filtered.
    pub before: u32,
    /// The kernel's number of the program that filters.
    pub after: u32,
}

/// What `upgrade` did.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpgradeOutcome {
    /// Each interface that is filtered.
    pub upgraded: Vec<Upgraded>,
    /// Interfaces that were attached and are no more.
    pub unfiltered: Vec<String>,
    /// Names of the maps that were begun anew.
    pub anew: Vec<&'static str>,
}

/// Replaces the programs on all interfaces. `object` is an ELF file, `store` the file of the rules. What the kernel refuses to load changes
/// nothing.
///
/// Maps whose layout is that of this build are kept. The others are begun anew before the first program is replaced, filled from the store as far as it
/// has what they hold, and take the place of the old ones when the last program is replaced.
///
/// # Errors
/// [`FailureKind::NotAttached`]; [`FailureKind::Kernel`] when the kernel refuses a program; when a map has changed that can't be begun anew, the pins
/// don't tell their layouts, or interfaces are of another network namespace.
pub(crate) fn upgrade(pins: &Pins, store: &Path, object: &[u8]) -> Result<UpgradeOutcome> {
    pins.attached_or_fail()?;
    let lock = pins.lock()?;
    // Somebody may have detached meanwhile.
    pins.attached_or_fail()?;
    let layouts = Layouts::of(object)?;
    let changed = layouts.changed(pins)?;
    if let Some(map) = changed.iter().find(|name| anew(name) == Anew::Never) {
        return Err(another_map(map));
    }
    if changed.is_empty() {
        let outcome = load_all(pins, object)?.replace(pins)?;
        layouts.write(pins)?;
        set_version(pins)?;
        if pins.are_between() {
            // Of an upgrade that was killed: rules may have changed in the store alone.
            store::restore(store, pins, &mut |_| Ok(()))?;
        }
        pins.remove_other_maps()?;
        return Ok(outcome);
    }
    let changed = with_groups(&changed);
    let new = pins.begin_maps(&changed)?;
    let loaded = renew(pins, &new, store, object, &changed).and_then(|loaded| {
        layouts.write(&new)?;
        Ok(loaded)
    });
    let loaded = loaded.or_else(|error| {
        pins.remove_other_maps().context("cleaning up after an upgrade")?;
        Err(error)
    })?;
    // From here on there is no way back: what has the new maps keeps them.
    pins.commit_maps()?;
    let replaced = loaded.replace(pins);
    pins.finish_maps()?;
    if changed.iter().any(|name| anew(name) == Anew::Filled) {
        // What was changed meanwhile is in the store, and in maps that are gone.
        store::restore(store, pins, &mut |_| Ok(()))?;
    }
    pins.remove_other_maps()?;
    let mut outcome = replaced?;
    outcome.anew = changed;
    drop(lock);
    Ok(outcome)
}

/// Makes the maps that `changed` names below new pins, which have the others, and loads the programs with all these.
fn renew(
    pins: &Pins,
    new: &Pins,
    store: &Path,
    object: &[u8],
    changed: &[&'static str],
) -> Result<LoadedAll> {
    let flows = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    drop(Begun::new(object, new, 0, flows.max_entries())?);
    set_version(new)?;
    if changed.contains(&names::FLOWS) {
        let _edit = pins.edit()?;
        let mut settings = maps::settings(new)?;
        settings.grace_until_ns = Clock::now()?.after(Some(DEFAULT_GRACE));
        maps::set_settings(new, settings)?;
    }
    if changed.iter().any(|name| anew(name) == Anew::Filled) {
        store::restore(store, new, &mut |_| Ok(()))?;
    }
    load_all(new, object)
}

/// Says that the maps are of this build.
fn set_version(pins: &Pins) -> Result<()> {
    let mut abi: Array<_, u32> = maps::open(pins, names::ABI)?;
    abi.set(0, ABI_VERSION, 0).context("writing the ABI version")
}

/// The programs of all interfaces, loaded and not yet at work.
struct LoadedAll {
    next: Vec<(u32, Iface, Loaded, bool)>,
    counts: bool,
    unfiltered: Vec<String>,
}

/// Loads the programs of all interfaces, with the maps below pins.
fn load_all(pins: &Pins, object: &[u8]) -> Result<LoadedAll> {
    let flows = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    let mut all = LoadedAll { next: Vec::new(), counts: counting::is_on(pins), unfiltered: Vec::new() };
    for (slot, iface) in own_slots(pins)? {
        match presence(pins, slot, &iface)? {
            Presence::On => {}
            Presence::Gone => {
                all.unfiltered.push(iface_name(&iface));
                continue;
            }
            Presence::Elsewhere => return Err(elsewhere(&iface)),
        }
        let mut loaded = Loaded::new(object, Some(pins), slot, flows.max_entries())?;
        let sees_both = second_eye::is_on(pins, slot, &iface);
        if sees_both {
            loaded.second_eye().context("loading the program that sees what the PBX sends")?;
        }
        all.next.push((slot, iface, loaded, sees_both));
    }
    if let Some((.., loaded, _)) = all.next.first_mut().filter(|_| all.counts) {
        counting::load(loaded).context("loading the programs that count connections")?;
    }
    Ok(all)
}

impl LoadedAll {
    /// Puts them in the place of those that are at work. One that fails, as that of an interface that is gone meanwhile, keeps no other from it.
    fn replace(mut self, pins: &Pins) -> Result<UpgradeOutcome> {
        let mut outcome = UpgradeOutcome { unfiltered: self.unfiltered, ..UpgradeOutcome::default() };
        let mut failed = Ok(());
        for (slot, iface, loaded, sees_both) in &mut self.next {
            let mut both = || {
                if *sees_both {
                    second_eye::replace(loaded, pins, *slot, iface)?;
                }
                replace(loaded, pins, *slot)
            };
            match both().with_context(|| iface_name(iface)) {
                Ok((before, after)) => {
                    outcome.upgraded.push(Upgraded { interface: iface_name(iface), before, after });
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        if let Some((.., loaded, _)) = self.next.first_mut().filter(|_| self.counts) {
            failed = failed.and(counting::replace(loaded, pins));
        }
        failed.map(|()| outcome)
    }
}

/// Replaces the program of a slot; the kernel's numbers of the old one and of the new one.
fn replace(loaded: &mut Loaded, pins: &Pins, slot: u32) -> Result<(u32, u32)> {
    let link = FdLink::from(PinnedLink::from_pin(pins.link(slot)).context("opening the pinned link")?);
    let before = link.info()?.program_id();
    let program = loaded.program()?;
    let after = program.info()?.id();
    let link = XdpLink::try_from(link).context("the pinned link is not of an XDP program")?;
    // The pin keeps it.
    program.attach_to_link(link).context("replacing the XDP program")?;
    pins.replace(&pins.program(slot), |path| Ok(program.pin(path)?))?;
    Ok((before, after))
}

fn another_map(name: &str) -> anyhow::Error {
    let text = format!(
        "the map {name} of this build is another one than that in force, and nothing else says what it holds; the filter goes on as it is. \
         To replace it: `sipguard detach --all`, then `sipguard attach`"
    );
    Failure::with(FailureKind::Failed, text)
}

fn elsewhere(iface: &Iface) -> anyhow::Error {
    let text = format!(
        "{} is of another network namespace: upgrade there (`sipguard upgrade --container NAME`, or `nsenter --net=FILE sipguard upgrade`). \
         Nothing was changed",
        iface_name(iface)
    );
    Failure::with(FailureKind::Failed, text)
}
