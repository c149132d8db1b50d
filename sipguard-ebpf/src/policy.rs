//! Who is it: the rule of the host, then those of its prefixes, the longest first. A block stops every protocol of its source, so
//! this room comes before the ports.

use core::arch::asm;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{PERMANENT, Rule, rule_flags};

use crate::ip::{Address, Ip};
use crate::scratch::Who;
use crate::{count, scratch, settings};

#[map]
static HOSTS: HashMap<Address, Rule> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);

#[map]
static PREFIXES: LpmTrie<Address, Rule> = LpmTrie::with_max_entries(1 << 18, 0);

/// Prefixes within each other that are looked at. Userspace sweeps out those that have ended with every change.
const NESTED: usize = 6;

/// Says who it is in [`scratch::who`]. The longest prefix that blocks or allows decides; the longest that is a trunk's peer says
/// whose.
#[inline(always)]
pub fn admit(ip: &Ip) -> Result<(), Reason> {
    let who = scratch::who()?;
    who.trunk = 0;
    who.allowed = 0;
    let mut decided = match HOSTS.get_ptr_mut(&ip.remote) {
        Some(rule) => decides(rule, who, Reason::BlockedHost)?,
        None => false,
    };
    let mut key = Key::new(128, ip.remote);
    for _ in 0..NESTED {
        let Some(rule) = PREFIXES.get(&key) else { return Ok(()) };
        let rule = core::ptr::from_ref(rule).cast_mut();
        // SAFETY: a live map value.
        let (bits, trunk) = unsafe { ((*rule).bits, (*rule).trunk) };
        if !decided {
            decided = decides(rule, who, Reason::BlockedPrefix)?;
        } else if who.trunk == 0 {
            who.trunk = u32::from(trunk);
        }
        if bits == 0 || decided && who.trunk != 0 {
            return Ok(());
        }
        key.prefix_len = u32::from(bits) - 1;
    }
    Ok(())
}

/// Whether a rule decides; `Err` when it stops the packet.
#[inline(always)]
fn decides(rule: *mut Rule, who: &mut Who, reason: Reason) -> Result<bool, Reason> {
    // SAFETY: a live map value.
    let (flags, trunk, expires_ns) = unsafe { ((*rule).flags, (*rule).trunk, (*rule).expires_ns) };
    if who.trunk == 0 {
        who.trunk = u32::from(trunk);
    }
    if flags == 0 || expires_ns != PERMANENT && settings::now_ns() >= expires_ns {
        return Ok(false);
    }
    if flags & rule_flags::BLOCK == 0 {
        who.allowed = 1;
        return Ok(true);
    }
    // SAFETY: the pointer is a live map value. Two CPUs may count at once, hence the atomic additions.
    unsafe {
        atomic_add(&raw mut (*rule).packets, 1);
        atomic_add(&raw mut (*rule).bytes, scratch::frame_len());
    }
    if flags & rule_flags::MONITOR == 0 {
        return Err(reason);
    }
    count::packet(reason, true);
    Ok(true)
}

/// # Safety
/// `counter` points to a live map value.
#[inline(always)]
unsafe fn atomic_add(counter: *mut u64, more: u64) {
    // SAFETY: the caller's. BPF's own atomic addition; core offers none for this target.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) more, options(nostack)) };
}
