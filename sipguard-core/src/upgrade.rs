//! `upgrade`: another build of the programs takes the place of the one that filters, and no packet passes in between.
//!
//! The kernel replaces the program of a link at once (`BPF_LINK_UPDATE`, Linux 5.7; for TCX commit e420bed02507), and the maps stay, so connections,
//! counters and rules go on. All programs are loaded before the first is replaced: what the kernel refuses changes nothing. What was killed half way
//! filters on every interface, with one build or the other, and is repeated.

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya_obj::Object;
use sipguard_common::abi::{Iface, names};

use crate::counting;
use crate::error::{Failure, FailureKind};
use crate::load::Loaded;
use crate::pins::Pins;
use crate::presence::{Presence, iface_name, own_slots, presence};
use crate::second_eye;

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
}

/// Replaces the programs on all interfaces, or none. `object` is an ELF file.
///
/// # Errors
/// [`FailureKind::NotAttached`]; [`FailureKind::Kernel`] when the kernel refuses a program, which changes nothing; when the pins are of another ABI
/// version, or interfaces are of another network namespace.
pub(crate) fn upgrade(pins: &Pins, object: &[u8]) -> Result<UpgradeOutcome> {
    pins.check()?;
    let lock = pins.lock()?;
    // Somebody may have detached meanwhile.
    pins.check()?;
    same_maps(pins, object)?;
    let flows = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    let mut outcome = UpgradeOutcome::default();
    let mut next = Vec::new();
    for (slot, iface) in own_slots(pins)? {
        match presence(pins, slot, &iface)? {
            Presence::On => {}
            Presence::Gone => {
                outcome.unfiltered.push(iface_name(&iface));
                continue;
            }
            Presence::Elsewhere => return Err(elsewhere(&iface)),
        }
        let mut loaded = Loaded::new(object, Some(pins), slot, flows.max_entries())?;
        let sees_both = second_eye::is_on(pins, slot, &iface);
        if sees_both {
            loaded.second_eye().context("loading the program that sees what the PBX sends")?;
        }
        next.push((slot, iface, loaded, sees_both));
    }
    let counts = counting::is_on(pins);
    if let Some((.., loaded, _)) = next.first_mut().filter(|_| counts) {
        counting::load(loaded).context("loading the programs that count connections")?;
    }
    for (slot, iface, loaded, sees_both) in &mut next {
        if *sees_both {
            second_eye::replace(loaded, pins, *slot, iface)?;
        }
        let (before, after) = replace(loaded, pins, *slot)?;
        outcome.upgraded.push(Upgraded { interface: iface_name(iface), before, after });
    }
    if let Some((.., loaded, _)) = next.first_mut().filter(|_| counts) {
        counting::replace(loaded, pins)?;
    }
    drop(lock);
    Ok(outcome)
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

/// That the maps of the object are those that are pinned. The verifier sees a program that reaches beyond a value, and not one that
/// takes it for another.
fn same_maps(pins: &Pins, object: &[u8]) -> Result<()> {
    let object = Object::parse(object).context("reading the programs of this build")?;
    for name in names::pinned() {
        let map = object.maps.get(name).with_context(|| format!("this build has no map {name}"))?;
        let pinned = MapInfo::from_pin(pins.map(name)).with_context(|| format!("opening the map {name}"))?;
        let ours = (map.map_type(), map.key_size(), map.value_size());
        let theirs = (pinned.map_type()? as u32, pinned.key_size(), pinned.value_size());
        if ours != theirs {
            let text = format!(
                "the map {name} of this build is another one than that in force (type, bytes of a key, of a value: {ours:?} and not {theirs:?}); \
                 the filter goes on as it is. To replace it: `sipguard detach --all`, then `sipguard attach`"
            );
            return Err(Failure::with(FailureKind::Failed, text));
        }
    }
    Ok(())
}

fn elsewhere(iface: &Iface) -> anyhow::Error {
    let text = format!(
        "{} is of another network namespace: upgrade there (`nsenter --net=FILE sipguard upgrade`). Nothing was changed",
        iface_name(iface)
    );
    Failure::with(FailureKind::Failed, text)
}
