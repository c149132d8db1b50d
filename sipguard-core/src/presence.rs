//! The interfaces that were attached, and whether our program is on them now.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};
use sipguard_common::abi::{Iface, names};

use crate::kernel;
use crate::link;
use crate::maps::{self, Ifaces};
use crate::pins::Pins;

/// Rows of the slots that have a link, from the pins.
///
/// # Errors
/// When the map can't be read.
pub fn own_slots(pins: &Pins) -> Result<Vec<(u32, Iface)>> {
    let slots = pins.slots()?;
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let ifaces: Ifaces = maps::open(pins, names::IFACES)?;
    slots
        .into_iter()
        .map(|slot| Ok((slot, ifaces.get(&slot, 0).context("reading the interfaces")?.0)))
        .collect()
}

/// The name in a row.
#[must_use]
pub fn iface_name(iface: &Iface) -> String {
    String::from_utf8_lossy(&iface.name).trim_end_matches('\0').to_owned()
}

/// Whether our program is on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    On,
    /// The interface is no more, or something else is on it.
    Gone,
    /// The interface is of another network namespace, and filtered there as far as the kernel's link tells.
    Elsewhere,
}

/// Whether an interface is of another network namespace.
pub(crate) fn is_elsewhere(iface: &Iface) -> bool {
    iface.netns != 0 && kernel::netns().is_ok_and(|here| here != iface.netns)
}

/// The kernel's number of the program that a pinned link has.
///
/// # Errors
/// When the pin can't be opened, or the kernel does not tell.
pub(crate) fn program_of(path: &Path) -> Result<u32> {
    let link = PinnedLink::from_pin(path).with_context(|| format!("opening {}", path.display()))?;
    let info = FdLink::from(link).info().with_context(|| format!("asking about {}", path.display()))?;
    Ok(info.program_id())
}

/// Whether the interface of a pinned link is no more, as that of a container which has ended. The kernel tells it in whatever namespace (in
/// `/proc/self/fdinfo`, Linux 5.9).
fn is_cut_off(path: &Path) -> Result<bool> {
    let link = PinnedLink::from_pin(path).with_context(|| format!("opening {}", path.display()))?;
    let link = FdLink::from(link);
    let number = link.info().with_context(|| format!("asking about {}", path.display()))?.id().to_string();
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let files = fs::read_dir("/proc/self/fdinfo").context("asking about a link")?;
    let told = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    let told = told.filter(|text| field(text, "link_id").as_ref() == Some(&number));
    Ok(told.filter_map(|text| field(&text, "ifindex")).any(|index| index == "0"))
}

/// Whether our program is on the interface of a slot now.
///
/// # Errors
/// [`FailureKind::NotAttached`](crate::error::FailureKind::NotAttached) when all was taken off meanwhile; when rtnetlink or the pin can't be asked.
pub fn presence(pins: &Pins, slot: u32, iface: &Iface) -> Result<Presence> {
    if is_elsewhere(iface) {
        return Ok(if is_cut_off(&pins.link(slot))? { Presence::Gone } else { Presence::Elsewhere });
    }
    let found = link::by_index(iface.ifindex)?.and_then(|interface| interface.xdp);
    let ours = program_of(&pins.link(slot)).or_else(|error| {
        // Taken off since it was listed.
        pins.attached_or_fail()?;
        Err(error)
    })?;
    Ok(if found.is_some_and(|xdp| xdp.program_id == ours) { Presence::On } else { Presence::Gone })
}
