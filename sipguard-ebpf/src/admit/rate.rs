//! How much: the budgets of a source, or of the trunk that it belongs to: one for TCP, whose sender was verified, and one for UDP, which may be forged. One word a limit, changed by compare and swap, so that
//! nobody waits for a lock.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sipguard_common::Reason;
use sipguard_common::abi::{
    BUDGET_ENTRIES, BUDGET_TIME, Budget, CONNECTIONS, INVITES, MESSAGES, PACKETS, REGISTERS, Rate, Settings,
    TRUNK_BUDGET_ENTRIES, budget_places, rules_in_use, trunk_budget,
};
use sipguard_common::framer::Stream;

use super::policy;
use crate::cpu::scratch::{self, Packet, Who};
use crate::cpu::{atomic, settings};

#[map]
static BUDGETS: Array<Budget> = Array::with_max_entries(BUDGET_ENTRIES, 0);

#[map]
static TRUNK_BUDGETS: Array<Budget> = Array::with_max_entries(TRUNK_BUDGET_ENTRIES, 0);

/// Attempts to change a word that other CPUs change as well. What failed so often passes.
const ATTEMPTS: usize = 4;

/// `Who::budget` of a sender without limits.
pub const NONE: u32 = 0;

/// Finds the budget of whoever sent a packet to a guarded port.
#[inline(always)]
pub fn find(packet: &Packet, who: &mut Who, settings: &Settings) {
    (who.budget, who.home) = (NONE, NONE);
    if settings.rules & rules_in_use::RATES == 0 || who.allowed != 0 {
        return;
    }
    who.class = u32::from(packet.transport != scratch::UDP);
    if who.trunk != 0 {
        who.budget = NONE + 1;
    } else {
        place(packet, settings, who);
    }
}

/// Charges a segment of a connection that was verified, as [`packet`].
#[inline(always)]
pub fn segment(settings: &Settings) -> Result<(), Reason> {
    packet(this()?, settings)
}

/// Who sent this CPU's packet.
#[inline(always)]
fn this() -> Result<&'static Who, Reason> {
    // SAFETY: this CPU's map value, which nothing changes once the packet is permitted.
    Ok(unsafe { &*scratch::who()? })
}

/// Charges a packet: a datagram for a guarded port, or a segment of a connection that was verified.
#[inline(always)]
pub fn packet(who: &Who, settings: &Settings) -> Result<(), Reason> {
    if who.budget == NONE || !is_limited(who, settings, PACKETS) {
        return Ok(());
    }
    charge(who, PACKETS, 1, coarse_ns(), Reason::RatePackets)
}

/// Charges a connection whose handshake was verified: a SYN can be forged, and would use up what its true sender may.
#[inline(always)]
pub fn connection(settings: &Settings) -> Result<(), Reason> {
    let who = this()?;
    if who.budget == NONE || !is_limited(who, settings, CONNECTIONS) {
        return Ok(());
    }
    charge(who, CONNECTIONS, 1, coarse_ns(), Reason::RateConnections)
}

/// Whether there may be a limit of a kind for a sender; without one nothing is called.
#[inline(always)]
fn is_limited(who: &Who, settings: &Settings, kind: usize) -> bool {
    who.trunk != 0 || settings.rates[kind].interval_ns != 0
}

/// Charges the messages that began in this packet: `messages` of them.
#[inline(always)]
pub fn messages(stream: &Stream, messages: u32) -> Result<(), Reason> {
    let who = this()?;
    if who.home == NONE && who.budget == NONE {
        return Ok(());
    }
    let (settings, now_ns) = (settings::get()?, coarse_ns());
    // Nobody sees the messages within TLS; that its records are well-formed speaks for the sender.
    if let Some(home) = home(who)
        && (messages != 0 || scratch::transport()? == scratch::TLS)
    {
        // SAFETY: a live map value.
        unsafe { (*home).good = (now_ns >> BUDGET_TIME) as u32 };
    }
    if stream.registers != 0 && is_limited(who, settings, REGISTERS) {
        charge(who, REGISTERS, u32::from(stream.registers), now_ns, Reason::RateRegister)?;
    }
    if stream.invites != 0 && is_limited(who, settings, INVITES) {
        charge(who, INVITES, u32::from(stream.invites), now_ns, Reason::RateInvite)?;
    }
    if messages == 0 || !is_limited(who, settings, MESSAGES) {
        return Ok(());
    }
    charge(who, MESSAGES, messages, now_ns, Reason::RateMessages)
}

/// The first place of a sender's budget, whoever has it: what is noted there of a few sources is noted of all of them.
#[inline(always)]
pub fn home(who: &Who) -> Option<*mut Budget> {
    if who.home == NONE { None } else { BUDGETS.get_ptr_mut(who.home - 1) }
}

/// `CLOCK_MONOTONIC` in nanoseconds, as of the last tick.
#[inline(always)]
pub fn coarse_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
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
    let who = this().ok()?;
    if who.budget == NONE || who.trunk != 0 { None } else { BUDGETS.get_ptr_mut(who.budget - 1) }
}

/// Finds the place of a source's budget; [`NONE`] when others who are at it have both places. IPv6 sources share one by /64.
#[inline(always)]
fn place(packet: &Packet, settings: &Settings, who: &mut Who) {
    let [r0, r1, mut r2, mut r3, ..] = packet.key;
    if packet.v6 != 0 {
        (r2, r3) = (0, 0);
    }
    let (tag, places) = budget_places([r0, r1, r2, r3], who.class, &settings.hash_keys);
    who.home = places[0] + 1;
    for place in places {
        let Some(budget) = BUDGETS.get_ptr_mut(place) else { return };
        // SAFETY: a live map value.
        if unsafe { (*budget).tag } == tag {
            who.budget = place + 1;
            return;
        }
    }
    take(tag, places, who);
}

/// Takes one of two places that nobody is at. A function of its own: most sources have theirs.
#[inline(never)]
fn take(tag: u64, places: [u32; 2], who: &mut Who) {
    let now_ns = coarse_ns();
    for place in places {
        let Some(budget) = BUDGETS.get_ptr_mut(place) else { return };
        // SAFETY: a live map value. Two sources that take a place at once both use it for a moment.
        unsafe {
            if (*budget).tat_ns.iter().all(|tat_ns| *tat_ns <= now_ns) {
                (*budget).tag = tag;
                (*budget).trust = 0;
                who.budget = place + 1;
                return;
            }
        }
    }
}

/// Charges `count` of a kind. `Err` when they are over the limit and that is enforced.
#[inline(always)]
fn charge(who: &Who, kind: usize, count: u32, now_ns: u64, reason: Reason) -> Result<(), Reason> {
    if who.budget == NONE || admitted(who, kind, count, now_ns) {
        return Ok(());
    }
    policy::over(reason)
}

/// A function of its own for the size of the program.
#[inline(never)]
fn admitted(who: &Who, kind: usize, count: u32, now_ns: u64) -> bool {
    let Ok(settings) = settings::get() else { return true };
    let (budget, mut rate) = match policy::trunk(who.trunk) {
        Some(trunk) => (TRUNK_BUDGETS.get_ptr_mut(trunk_budget(who.trunk, who.class)), trunk.rates[kind]),
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
            if atomic::replace(word, old, new) {
                return true;
            }
        }
    }
    true
}
