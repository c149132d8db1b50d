//! The operator's settings, and constants that the loader sets.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sipguard_common::Reason;
use sipguard_common::abi::{IFACE_SLOTS, Iface, Settings};

use super::scratch;

/// Used by userspace only, like [`IFACES`]. Declared here because loading the object creates the maps.
#[map]
static ABI: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static IFACES: Array<Iface> = Array::with_max_entries(IFACE_SLOTS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Slot of the interface that this instance of the program is attached to. Set by the loader.
#[unsafe(no_mangle)]
static SLOT: Global<u32> = Global::new(0);

/// 1 in a replay. Set by the loader.
#[unsafe(no_mangle)]
static REPLAY: Global<u32> = Global::new(0);

/// Whether packets come from a capture file: then sockets of this machine are not asked, and the return value contains the verdict. A
/// constant for the verifier, which removes the branches that depend on it.
#[inline(always)]
pub fn is_replay() -> bool {
    REPLAY.load() != 0
}

/// See [`slot`].
#[inline(always)]
pub fn slot() -> u32 {
    SLOT.load()
}

/// Whether an outgoing packet came in by an attached interface. Then the PBX did not send it: it is a forwarded packet, or one with the
/// PBX's address as a forged source.
#[inline(always)]
pub fn is_attached(ctx: &TcContext) -> bool {
    // SAFETY: the context of this program.
    let index = unsafe { (*ctx.skb.skb).ingress_ifindex };
    index != 0 && (0..IFACE_SLOTS).any(|slot| IFACES.get(slot).is_some_and(|iface| iface.ifindex == index))
}

/// The settings.
#[inline(always)]
pub fn get() -> Result<&'static Settings, Reason> {
    SETTINGS.get(0).ok_or(Reason::Internal)
}

/// `CLOCK_BOOTTIME` in nanoseconds. It continues during suspend, so that a rule can end at an absolute time. In a replay it is the time of
/// the packet, from the metadata in front of the frame.
#[inline(always)]
pub fn now_ns() -> u64 {
    if is_replay() {
        return scratch::now_ns();
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
