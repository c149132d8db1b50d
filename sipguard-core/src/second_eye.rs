//! The program that sees what the PBX sends, on the way out of each attached interface.
//!
//! It is attached by TCX (Linux 6.6, commit e420bed02507), where it comes before other programs and hands each packet on to them. Older kernels have it as a
//! filter of a `clsact` qdisc, with a priority of its own; such a filter outlives every process by itself, and has no link to be pinned.

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType};
use nix::errno::Errno;
use sipguard_common::abi::{CLSACT_FOUND, CLSACT_MADE, Iface, names};

use crate::container;
use crate::link::{self, Interface};
use crate::load::Loaded;
use crate::pins::Pins;
use crate::presence::{is_elsewhere, own_slots, program_of};

/// Priority of the filter: behind what firewalls usually have, so that nothing of theirs changes its place.
const PRIORITY: u16 = 0xc000;
const HANDLE: u16 = 1;

/// Attaches and pins it. Says which qdisc holds it: 0 for TCX, or [`CLSACT_MADE`] or [`CLSACT_FOUND`].
///
/// # Errors
/// When the kernel refuses the program or the place. Nothing is left of it then.
pub(crate) fn attach(loaded: &mut Loaded, pins: &Pins, slot: u32, interface: &Interface) -> Result<u32> {
    let [path, link_path] = pins.second_eye(slot);
    let program = loaded.second_eye()?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = match program.attach_with_options(&interface.name, TcAttachType::Egress, first) {
        Ok(id) => id,
        Err(error) if is_unknown(&error) => return attach_filter(program, pins, slot, interface),
        Err(error) => return Err(error).context("attaching by TCX"),
    };
    let link = program.take_link(id)?;
    program.pin(&path).context("pinning the program")?;
    let link = FdLink::try_from(link).context("a TCX link is one of BPF")?;
    let pinned = link.pin(&link_path).context("pinning the link");
    if pinned.is_err() {
        let _absent = std::fs::remove_file(&path);
    }
    pinned.map(|_| 0)
}

/// Puts another program in the place of the one that is on, at once.
///
/// # Errors
/// When the kernel refuses; then the old one stays.
pub(crate) fn replace(loaded: &mut Loaded, pins: &Pins, slot: u32, iface: &Iface) -> Result<()> {
    let [path, link_path] = pins.second_eye(slot);
    let program = loaded.second_eye()?;
    let link = if iface.clsact == 0 {
        let link = PinnedLink::from_pin(link_path).context("opening the pinned link")?;
        SchedClassifierLink::try_from(FdLink::from(link)).context("the pinned link is not of TCX")?
    } else {
        let name = link::by_index(iface.ifindex)?.context("the interface is gone")?.name;
        let handle = TcHandle::new(0, HANDLE);
        SchedClassifierLink::attached(&name, TcAttachType::Egress, PRIORITY, handle, None)?
    };
    let id = program.attach_to_link(link).context("replacing the program that sees what the PBX sends")?;
    if iface.clsact != 0 {
        // The kernel keeps the filter; dropped, it would be taken off.
        std::mem::forget(program.take_link(id)?);
    }
    pins.replace(&path, |path| Ok(program.pin(path)?))
}

fn attach_filter(
    program: &mut SchedClassifier,
    pins: &Pins,
    slot: u32,
    interface: &Interface,
) -> Result<u32> {
    let clsact = match tc::qdisc_add_clsact(&interface.name) {
        Ok(()) => CLSACT_MADE,
        Err(TcError::AlreadyAttached) => CLSACT_FOUND,
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            CLSACT_FOUND
        }
        Err(error) => return Err(error).context("making the clsact qdisc"),
    };
    // What a killed `attach` may have left.
    let _absent = tc::qdisc_detach_program(&interface.name, TcAttachType::Egress, names::EGRESS_PROGRAM);
    let options = NlOptions { priority: PRIORITY, handle: TcHandle::new(0, HANDLE), classid: None };
    let id =
        program.attach_with_options(&interface.name, TcAttachType::Egress, TcAttachOptions::Netlink(options));
    let link = id.and_then(|id| program.take_link(id)).context("attaching to the clsact qdisc")?;
    // The kernel keeps the filter; dropped, it would be taken off.
    std::mem::forget(link);
    program.pin(&pins.second_eye(slot)[0]).context("pinning the program")?;
    Ok(clsact)
}

/// Takes off a filter, as far as the interface is here; what is attached by TCX goes with its pin.
///
/// # Errors
/// When rtnetlink does not do it.
pub(crate) fn detach_filter(iface: &Iface) -> Result<()> {
    if iface.clsact == 0 || is_elsewhere(iface) {
        return Ok(());
    }
    // By the name that it has now.
    let Some(Interface { name, .. }) = link::by_index(iface.ifindex)? else { return Ok(()) };
    match tc::qdisc_detach_program(&name, TcAttachType::Egress, names::EGRESS_PROGRAM) {
        Ok(()) => {}
        Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("taking the filter off {name}")),
    }
    if iface.clsact == CLSACT_MADE { link::remove_empty_clsact(iface.ifindex) } else { Ok(()) }
}

/// Takes off what is left of an `attach` that failed, and removes all pins.
///
/// # Errors
/// When a filter can't be taken off, or a pin not be removed.
pub(crate) fn remove_all(pins: &Pins) -> Result<()> {
    let own = own_slots(pins).unwrap_or_default();
    let filters = own.iter().try_for_each(|(_, iface)| detach_filter(iface));
    pins.remove_all().and(filters)
}

/// Whether it is at work on the interface of a slot.
#[must_use]
pub(crate) fn is_on(pins: &Pins, slot: u32, iface: &Iface) -> bool {
    let [path, link_path] = pins.second_eye(slot);
    if iface.clsact != 0 {
        return ProgramInfo::from_pin(&path).is_ok();
    }
    let Ok(ours) = program_of(&link_path) else { return false };
    if is_elsewhere(iface) {
        return true;
    }
    // By the name that it has now.
    let Ok(Some(found)) = link::by_index(iface.ifindex) else { return false };
    container::inside(|| SchedClassifier::query_tcx(&found.name, TcAttachType::Egress))
        .is_ok_and(|(_, programs)| programs.iter().any(|program| program.id() == ours))
}

/// Whether the kernel knows no TCX.
fn is_unknown(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    matches!(code.map(Errno::from_raw), Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::E2BIG))
}
