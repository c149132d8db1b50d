//! What the operator set.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sipguard_common::Reason;
use sipguard_common::abi::{IFACE_SLOTS, Iface, Settings};

use super::scratch;

/// For userspace alone, like [`IFACES`]: declared here because maps come into being with the program.
#[map]
static ABI: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static IFACES: Array<Iface> = Array::with_max_entries(IFACE_SLOTS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Slot of the interface that this copy of the program is attached to. Set by the loader.
#[unsafe(no_mangle)]
static SLOT: Global<u32> = Global::new(0);

/// 1 in a replay. Set by the loader.
#[unsafe(no_mangle)]
static REPLAY: Global<u32> = Global::new(0);

/// Whether packets come out of a capture: no socket of this machine is theirs, and the return value tells what was judged. The
/// verifier knows the answer, and leaves out what hangs on it.
#[inline(always)]
pub fn is_replay() -> bool {
    REPLAY.load() != 0
}

/// See [`slot`].
#[inline(always)]
pub fn slot() -> u32 {
    SLOT.load()
}

/// Whether a packet that leaves came in by an attached interface: then it is no PBX's, but a peer's that is forwarded, or a stranger's in the PBX's
/// name.
#[inline(always)]
pub fn is_attached(ctx: &TcContext) -> bool {
    // SAFETY: the context of this program.
    let index = unsafe { (*ctx.skb.skb).ingress_ifindex };
    index != 0 && (0..IFACE_SLOTS).any(|slot| IFACES.get(slot).is_some_and(|iface| iface.ifindex == index))
}

#[inline(always)]
pub fn get() -> Result<&'static Settings, Reason> {
    SETTINGS.get(0).ok_or(Reason::Internal)
}

/// `CLOCK_BOOTTIME` in nanoseconds: it goes on while the machine sleeps, so that a block's end is an absolute time. In a replay the time
/// of the packet, which the metadata before it says.
#[inline(always)]
pub fn now_ns() -> u64 {
    if is_replay() {
        return scratch::now_ns();
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
