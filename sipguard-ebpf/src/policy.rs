//! Who is it: blocked hosts, then blocked prefixes, the longest first. A block stops every protocol of its source, so this room
//! comes before the ports.

use core::arch::asm;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{Block, PERMANENT};

use crate::ip::{Address, Ip};
use crate::{scratch, settings};

#[map]
static BLOCK_HOSTS: HashMap<Address, Block> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);

#[map]
static BLOCK_PREFIXES: LpmTrie<Address, Block> = LpmTrie::with_max_entries(1 << 18, 0);

/// Expired prefixes that are looked behind for a shorter one that holds. Userspace sweeps them out with every change.
const NESTED: usize = 4;

#[inline(always)]
pub fn admit(ip: &Ip) -> Result<(), Reason> {
    if let Some(block) = BLOCK_HOSTS.get_ptr_mut(&ip.remote) {
        stopped_by(block, Reason::BlockedHost)?;
    }
    let mut key = Key::new(128, ip.remote);
    for _ in 0..NESTED {
        let Some(block) = BLOCK_PREFIXES.get(&key) else { return Ok(()) };
        stopped_by(core::ptr::from_ref(block).cast_mut(), Reason::BlockedPrefix)?;
        if block.bits == 0 {
            return Ok(());
        }
        key.prefix_len = block.bits - 1;
    }
    Ok(())
}

/// Counts the packet for a block that holds.
#[inline(always)]
fn stopped_by(block: *mut Block, reason: Reason) -> Result<(), Reason> {
    // SAFETY: the pointer is a live map value. Two CPUs may count at once, hence the atomic additions.
    unsafe {
        if (*block).expires_ns != PERMANENT && !(*block).holds(settings::now_ns()) {
            return Ok(());
        }
        atomic_add(&raw mut (*block).packets, 1);
        atomic_add(&raw mut (*block).bytes, scratch::frame_len());
    }
    Err(reason)
}

/// # Safety
/// `counter` points to a live map value.
#[inline(always)]
unsafe fn atomic_add(counter: *mut u64, more: u64) {
    // SAFETY: the caller's. BPF's own atomic addition; core offers none for this target.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) more, options(nostack)) };
}
