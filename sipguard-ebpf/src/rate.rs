//! How much: the budget of a source, or of the trunk that it belongs to. One word a limit, changed by compare and swap, so that
//! nobody waits for a lock.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sipguard_common::Reason;
use sipguard_common::abi::{
    BUDGET_ENTRIES, Budget, CONNECTIONS, INVITES, MESSAGES, PACKETS, REGISTERS, Rate, Settings,
    TRUNK_ENTRIES, rules_in_use,
};
use sipguard_common::framer::Stream;

use crate::scratch::{Packet, Who};
use crate::{count, policy, scratch, settings};

#[map]
static BUDGETS: Array<Budget> = Array::with_max_entries(BUDGET_ENTRIES, 0);

#[map]
static TRUNK_BUDGETS: Array<Budget> = Array::with_max_entries(TRUNK_ENTRIES, 0);

/// Attempts to change a word that other CPUs change as well. What failed so often passes.
const ATTEMPTS: usize = 4;

/// `Who::budget` of a sender without limits.
pub const NONE: u32 = 0;

/// Charges a packet of a guarded port; `begins` for the first segment of a connection. Finds the sender's budget first.
#[inline(always)]
pub fn packet(packet: &Packet, who: &mut Who, settings: &Settings, begins: bool) -> Result<(), Reason> {
    if settings.rules & rules_in_use::RATES == 0 || who.allowed != 0 {
        who.budget = NONE;
        return Ok(());
    }
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    who.budget = if who.trunk != 0 { NONE + 1 } else { place(packet, settings, now_ns) };
    if begins {
        charge(who, CONNECTIONS, 1, now_ns, Reason::RateConnections)?;
    }
    charge(who, PACKETS, 1, now_ns, Reason::RatePackets)
}

/// Charges the messages that began in this packet: `messages` of them.
#[inline(always)]
pub fn messages(stream: &Stream, messages: u32) -> Result<(), Reason> {
    let who = scratch::who()?;
    if who.budget == NONE {
        return Ok(());
    }
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    if stream.registers != 0 {
        charge(who, REGISTERS, u32::from(stream.registers), now_ns, Reason::RateRegister)?;
    }
    if stream.invites != 0 {
        charge(who, INVITES, u32::from(stream.invites), now_ns, Reason::RateInvite)?;
    }
    if messages == 0 { Ok(()) } else { charge(who, MESSAGES, messages, now_ns, Reason::RateMessages) }
}

/// Takes note of messages that were well-formed on a connection that the kernel has.
#[inline(always)]
pub fn trust(messages: u32) {
    if let Some(budget) = of_source() {
        // SAFETY: a live map value. A lost count between two CPUs is no harm.
        unsafe { (*budget).trust += u64::from(messages) };
    }
}

/// Takes trust away from whoever sent the packet at hand.
#[inline(always)]
pub fn distrust() {
    if let Some(budget) = of_source() {
        // SAFETY: as in `trust`.
        unsafe { (*budget).trust = 0 };
    }
}

/// The budget of the packet's source, where it is no trunk's and has one.
#[inline(always)]
fn of_source() -> Option<*mut Budget> {
    let who = scratch::who().ok()?;
    if who.budget == NONE || who.trunk != 0 { None } else { BUDGETS.get_ptr_mut(who.budget - 1) }
}

/// Place of the source's budget, plus one; [`NONE`] when others who are at it have both places. IPv6 sources share one by /64.
#[inline(always)]
fn place(packet: &Packet, settings: &Settings, now_ns: u64) -> u32 {
    let [r0, r1, mut r2, mut r3, ..] = packet.key;
    if packet.v6 != 0 {
        (r2, r3) = (0, 0);
    }
    let keys = &settings.hash_keys;
    let high = (u64::from(r0) << 32 | u64::from(r1)) ^ keys[0];
    let low = (u64::from(r2) << 32 | u64::from(r3)) ^ keys[1];
    let mut tag = (high ^ low.rotate_left(29)).wrapping_mul(keys[2] | 1);
    tag = (tag ^ tag >> 32).wrapping_mul(keys[3] | 1);
    tag ^= tag >> 29;
    tag |= 1;
    for place in [(tag >> 8) as u32 & (BUDGET_ENTRIES - 1), (tag >> 40) as u32 & (BUDGET_ENTRIES - 1)] {
        let Some(budget) = BUDGETS.get_ptr_mut(place) else { return NONE };
        // SAFETY: a live map value. Two sources that take a place at once both use it for a moment.
        unsafe {
            if (*budget).tag == tag {
                return place + 1;
            }
            if (*budget).tat_ns.iter().all(|tat_ns| *tat_ns <= now_ns) {
                (*budget).tag = tag;
                (*budget).trust = 0;
                return place + 1;
            }
        }
    }
    NONE
}

/// Charges `count` of a kind. `Err` when they are over the limit and that is enforced.
#[inline(always)]
fn charge(who: &Who, kind: usize, count: u32, now_ns: u64, reason: Reason) -> Result<(), Reason> {
    if who.budget == NONE || admitted(who, kind, count, now_ns) {
        return Ok(());
    }
    if policy::is_monitored() {
        count::packet(reason, true);
        return Ok(());
    }
    Err(reason)
}

/// A function of its own for the size of the program.
#[inline(never)]
fn admitted(who: &Who, kind: usize, count: u32, now_ns: u64) -> bool {
    let Ok(settings) = settings::get() else { return true };
    let (budget, mut rate) = match policy::trunk(who) {
        Some(trunk) => (TRUNK_BUDGETS.get_ptr_mut(who.trunk), trunk.rates[kind]),
        None => (BUDGETS.get_ptr_mut(who.budget - 1), settings.rates[kind]),
    };
    let Some(budget) = budget else { return true };
    if rate.interval_ns == 0 {
        return true;
    }
    // SAFETY: a live map value.
    unsafe {
        if who.trunk == 0 && settings.trust_factor > 1 && (*budget).trust >= u64::from(settings.trust_after) {
            rate = Rate {
                interval_ns: rate.interval_ns / u64::from(settings.trust_factor),
                tolerance_ns: rate.tolerance_ns,
            };
        }
        let word = &raw mut (*budget).tat_ns[kind];
        for _ in 0..ATTEMPTS {
            let old = word.read_volatile();
            let Some(new) = rate.admit(old, now_ns, count) else { return false };
            if exchanged(word, old, new) {
                return true;
            }
        }
    }
    true
}

/// Puts `new` where `old` still stands.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
unsafe fn exchanged(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's. BPF's own compare and exchange; core offers none for this target.
    unsafe {
        asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", p = in(reg) word, n = in(reg) new, inout("r0") old => found,
             options(nostack));
    }
    found == old
}
