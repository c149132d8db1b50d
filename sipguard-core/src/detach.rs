//! `detach`: the program goes with its link, and with the last one all else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytemuck::Zeroable;
use sipguard_common::abi::{Iface, names};

use crate::container;
use crate::error::{Failure, FailureKind};
use crate::link::{self, Interface};
use crate::maps::{self, Ifaces, Plain};
use crate::pins::Pins;
use crate::presence::{Presence, iface_name, is_elsewhere, own_slots, presence, program_of};
use crate::second_eye;

/// Detaches the named interfaces, or all. With the last one everything goes: links, programs, maps.
///
/// # Errors
/// [`FailureKind::NotAttached`] when there is nothing to detach, and a failure for a name that is not attached.
pub(crate) fn detach(pins: &Pins, names: Option<&[String]>) -> Result<Vec<String>> {
    pins.remove_begun()?;
    let Some(_lock) = pins.lock()? else {
        return Err(Failure::with(FailureKind::NotAttached, "sipguard is not attached"));
    };
    let Some(names) = names else {
        // Without a look at the ABI: this is the remedy for pins of another version.
        let own = pins.check().and_then(|()| own_slots(pins)).unwrap_or_default();
        let slots = pins.slots()?;
        let programs = program_ids(pins, &slots);
        second_eye::remove_all(pins)?;
        let mut gone: Vec<String> = own.iter().map(|(_, iface)| iface_name(iface)).collect();
        gone.resize_with(slots.len(), || "an interface".to_owned());
        wait_until_off(&programs)?;
        return Ok(gone);
    };
    pins.check()?;
    let own = own_slots(pins)?;
    let mut slots = Vec::new();
    for name in names {
        let found = named(pins, &own, name)?;
        let Some((slot, iface)) = found else {
            let attached: Vec<String> = own.iter().map(|(_, iface)| iface_name(iface)).collect();
            return Err(Failure::with(
                FailureKind::NotAttached,
                format!("sipguard is not attached to `{name}`; it is to: {}", attached.join(", ")),
            ));
        };
        if !slots.contains(&(*slot, *iface)) {
            slots.push((*slot, *iface));
        }
    }
    let numbers: Vec<u32> = slots.iter().map(|(slot, _)| *slot).collect();
    let programs = program_ids(pins, &numbers);
    for slot in numbers {
        free(pins, slot)?;
    }
    if pins.slots()?.is_empty() {
        pins.remove_all()?;
    }
    wait_until_off(&programs)?;
    let gone = own.iter().filter(|(slot, _)| slots.iter().any(|(freed, _)| freed == slot));
    Ok(gone.map(|(_, iface)| iface_name(iface)).collect())
}

/// The slot of a name: of interfaces of one name that of the namespace in which this process is.
fn named<'o>(pins: &Pins, own: &'o [(u32, Iface)], name: &str) -> Result<Option<&'o (u32, Iface)>> {
    let all = || own.iter().filter(|(_, iface)| iface_name(iface) == *name);
    let Some(found) = all().find(|(_, iface)| !is_elsewhere(iface)).or_else(|| all().next()) else {
        return Ok(None);
    };
    if presence(pins, found.0, &found.1)? == Presence::Elsewhere {
        container::expect_same(name)?;
    }
    Ok(Some(found))
}

/// Takes the program off an interface and clears its row.
///
/// # Errors
/// When a pin or the row can't be changed.
pub(crate) fn free(pins: &Pins, slot: u32) -> Result<()> {
    let mut ifaces: Ifaces = maps::open(pins, names::IFACES)?;
    let Plain(row) = ifaces.get(&slot, 0).context("reading the interface's row")?;
    pins.remove_slot(slot)?;
    second_eye::detach_filter(&row)?;
    ifaces.set(slot, Plain(Iface::zeroed()), 0).context("clearing the interface's row")
}

/// Kernel's numbers of the XDP programs of slots, of any ABI version; one whose pin can't be read is left out.
fn program_ids(pins: &Pins, slots: &[u32]) -> Vec<u32> {
    slots.iter().filter_map(|slot| program_of(&pins.link(*slot)).ok()).collect()
}

/// The kernel takes the program off when the last reference to the link is gone, a moment after the pin.
fn wait_until_off(programs: &[u32]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let interfaces = link::all()?;
        let on =
            interfaces.iter().find(|found| found.xdp.is_some_and(|xdp| programs.contains(&xdp.program_id)));
        let Some(Interface { name, .. }) = on else { return Ok(()) };
        if Instant::now() > end {
            bail!("{name} still has the XDP program after two seconds: `bpftool net` says what holds it");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
