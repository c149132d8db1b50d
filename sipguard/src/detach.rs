//! `detach`: the program goes with its link, and with the last one all else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytemuck::Zeroable;
use sipguard_common::abi::{Iface, names};

use crate::error::{Failure, FailureKind};
use crate::link;
use crate::maps::{self, Ifaces, Plain};
use crate::pins::Pins;
use crate::presence::{iface_name, is_elsewhere, own_slots};
use crate::second_eye;

/// Detaches the named interfaces, or all. With the last one everything goes: links, programs, maps.
///
/// # Errors
/// [`FailureKind::NotAttached`] when there is nothing to detach, and a failure for a name that is not attached.
pub fn detach(pins: &Pins, names: Option<&[String]>) -> Result<Vec<String>> {
    let Some(_lock) = pins.lock()? else {
        return Err(Failure::with(FailureKind::NotAttached, "sipguard is not attached"));
    };
    let Some(names) = names else {
        // Without a look at the ABI: this is the remedy for pins of another version.
        let own = pins.check().and_then(|()| own_slots(pins)).unwrap_or_default();
        let count = pins.slots().len();
        second_eye::remove_all(pins)?;
        let mut gone: Vec<String> = own.iter().map(|(_, iface)| iface_name(iface)).collect();
        gone.resize_with(count, || "an interface".to_owned());
        wait_until_off(own.iter().filter(|(_, iface)| !is_elsewhere(iface)).map(|(_, iface)| iface.ifindex))?;
        return Ok(gone);
    };
    pins.check()?;
    let own = own_slots(pins)?;
    let mut slots = Vec::new();
    for name in names {
        let found = own.iter().find(|(_, iface)| iface_name(iface) == *name);
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
    for (slot, _) in &slots {
        free(pins, *slot)?;
    }
    if pins.slots().is_empty() {
        pins.remove_all()?;
    }
    let here = slots.iter().filter(|(_, iface)| !is_elsewhere(iface));
    wait_until_off(here.map(|(_, iface)| iface.ifindex))?;
    let gone = own.iter().filter(|(slot, _)| slots.iter().any(|(freed, _)| freed == slot));
    Ok(gone.map(|(_, iface)| iface_name(iface)).collect())
}

/// Takes the program off an interface and clears its row.
///
/// # Errors
/// When a pin or the row can't be changed.
pub fn free(pins: &Pins, slot: u32) -> Result<()> {
    let mut ifaces: Ifaces = maps::open(pins, names::IFACES)?;
    let Plain(row) = ifaces.get(&slot, 0).context("reading the interface's row")?;
    pins.remove_slot(slot)?;
    second_eye::detach_filter(&row)?;
    ifaces.set(slot, Plain(Iface::zeroed()), 0).context("clearing the interface's row")
}

/// The kernel takes the program off when the last reference to the link is gone, a moment after the pin.
fn wait_until_off(indexes: impl Iterator<Item = u32>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(2);
    for index in indexes {
        while link::by_index(index)?.is_some_and(|interface| interface.xdp.is_some()) {
            if Instant::now() > end {
                bail!("interface {index} still has an XDP program after two seconds: `bpftool net` names it");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
