//! Rate limits of a source, or of its trunk. Each has two buckets: one for TCP, whose sender was verified by a handshake, and one for UDP,
//! whose sender may be forged. A limit is one 64-bit word, changed by compare and swap, so there is no lock.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sipguard_common::Reason;
use sipguard_common::abi::{
    BUCKET_ENTRIES, COARSE_SHIFT, CONNECTIONS, INVITES, MESSAGES, PACKETS, RATE_REASONS, REGISTERS, Rate,
    RateBucket, Settings, TALLIED, TRUNK_BUCKET_ENTRIES, Tally, bucket_slots, rules_in_use, trunk_bucket,
};
use sipguard_common::framer::Stream;

use super::policy;
use crate::cpu::scratch::{self, DEVICE, Packet, Sender};
use crate::cpu::{atomic, settings};
use crate::packet::ip;

#[map]
static BUDGETS: Array<RateBucket> = Array::with_max_entries(BUCKET_ENTRIES, BPF_F_MMAPABLE);

#[map]
static TRUNK_BUDGETS: Array<RateBucket> = Array::with_max_entries(TRUNK_BUCKET_ENTRIES, 0);

/// Attempts to change a word that other CPUs change too. After so many failures the packet passes.
const ATTEMPTS: usize = 4;

/// `Sender::bucket` of a sender without limits.
pub const NONE: u32 = 0;

/// Finds the bucket of the sender of a packet to a guarded port.
#[inline(always)]
pub fn find(packet: &Packet, sender: &mut Sender, settings: &Settings) {
    (sender.bucket, sender.primary_bucket) = (NONE, NONE);
    if settings.rules & rules_in_use::RATES == 0 || sender.allowed != 0 {
        return;
    }
    sender.class = u32::from(packet.transport != scratch::UDP);
    if limited_trunk(sender) != 0 {
        sender.bucket = NONE + 1;
    } else {
        slot(settings, sender);
    }
}

/// Index of the trunk whose limits apply to a sender, or 0 for those of its source.
#[inline(always)]
pub fn limited_trunk(sender: &Sender) -> u32 {
    if sender.client & DEVICE == 0 { sender.trunk } else { 0 }
}

/// Counts a segment of a verified connection; see [`packet`].
#[inline(always)]
pub fn segment(settings: &Settings) -> Result<(), Reason> {
    packet(this()?, settings)
}

/// The sender of this CPU's packet.
#[inline(always)]
fn this() -> Result<&'static Sender, Reason> {
    // SAFETY: this CPU's map value, which nothing changes once the packet is permitted.
    Ok(unsafe { &*scratch::sender()? })
}

/// Counts a packet against the limit: a datagram for a guarded port, or a segment of a verified connection.
#[inline(always)]
pub fn packet(sender: &Sender, settings: &Settings) -> Result<(), Reason> {
    if sender.bucket == NONE || !is_limited(sender, settings, PACKETS) {
        return Ok(());
    }
    charge(sender, PACKETS, 1, coarse_ns())
}

/// Counts a connection whose handshake was verified. A SYN can be forged and would exhaust the limit of the address it names. Not inlined:
/// it is asked once a connection, in several places.
// own frame: 8 bytes
#[inline(never)]
pub fn connection(settings: &Settings) -> Result<(), Reason> {
    let sender = this()?;
    if sender.bucket == NONE {
        return Ok(());
    }
    let now_ns = coarse_ns();
    tally(sender, now_ns, 1 << 24);
    if !is_limited(sender, settings, CONNECTIONS) {
        return Ok(());
    }
    charge(sender, CONNECTIONS, 1, now_ns)
}

/// Whether there can be a limit of a kind for a sender: a cheap check before the call.
#[inline(always)]
fn is_limited(sender: &Sender, settings: &Settings, kind: usize) -> bool {
    limited_trunk(sender) != 0 || settings.rates[kind].interval_ns != 0
}

/// Counts the `messages` messages that began in this packet.
#[inline(always)]
pub fn messages(stream: &Stream, messages: u32) -> Result<(), Reason> {
    let sender = this()?;
    if sender.primary_bucket == NONE && sender.bucket == NONE {
        return Ok(());
    }
    let (settings, now_ns) = (settings::get()?, coarse_ns());
    // Messages inside TLS are not visible; well-formed records count as well-formed traffic.
    if let Some(primary_bucket) = primary_bucket(sender)
        && (messages != 0 || scratch::transport()? == scratch::TLS)
    {
        // SAFETY: a live map value.
        unsafe { (*primary_bucket).last_well_formed = (now_ns >> COARSE_SHIFT) as u32 };
    }
    let counts = few(messages) | u32::from(stream.registers) << 8 | u32::from(stream.invites) << 16;
    if counts != 0 && sender.bucket != NONE {
        tally(sender, now_ns, counts);
    }
    if stream.registers != 0 && is_limited(sender, settings, REGISTERS) {
        charge(sender, REGISTERS, u32::from(stream.registers), now_ns)?;
    }
    if stream.invites != 0 && is_limited(sender, settings, INVITES) {
        charge(sender, INVITES, u32::from(stream.invites), now_ns)?;
    }
    if messages == 0 || !is_limited(sender, settings, MESSAGES) {
        return Ok(());
    }
    charge(sender, MESSAGES, messages, now_ns)
}

/// At most as many as a byte holds.
#[inline(always)]
fn few(count: u32) -> u32 {
    if count < 255 { count } else { 255 }
}

/// Adds what came to the tallies of a sender with a bucket: messages, REGISTER, INVITE and connections, a byte of `counts` each, the lowest first.
/// Additions that two CPUs lose to each other are accepted.
// own frame: 0 bytes
#[inline(never)]
fn tally(sender: &Sender, now_ns: u64, counts: u32) {
    let bucket = match limited_trunk(sender) {
        0 => BUDGETS.get_ptr_mut(sender.bucket - 1),
        trunk => TRUNK_BUDGETS.get_ptr_mut(trunk_bucket(trunk, sender.class)),
    };
    let Some(bucket) = bucket else { return };
    let window = Tally::window(now_ns);
    for kind in 0..TALLIED.len() {
        let count = counts >> (8 * kind) & 0xff;
        if count != 0 {
            // SAFETY: a live map value.
            unsafe {
                (*bucket).tallies[kind] = Tally((*bucket).tallies[kind]).more(window, count).0;
                (*bucket).totals[kind] = (*bucket).totals[kind].wrapping_add(count);
            }
        }
    }
}

/// The sender's primary bucket, whoever occupies it. The fields about bans in it apply to all sources that share it.
#[inline(always)]
pub fn primary_bucket(sender: &Sender) -> Option<*mut RateBucket> {
    if sender.primary_bucket == NONE { None } else { BUDGETS.get_ptr_mut(sender.primary_bucket - 1) }
}

/// `CLOCK_MONOTONIC` in nanoseconds, with the resolution of a timer tick.
#[inline(always)]
pub fn coarse_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Counts well-formed messages on a connection that the kernel has, towards the sender's trust.
#[inline(always)]
pub fn trust(messages: u32) {
    if let Some(bucket) = of_source() {
        // SAFETY: a live map value. A lost increment between two CPUs is harmless.
        unsafe { (*bucket).trust += u64::from(messages) };
    }
}

/// Resets the trust of the packet's sender.
#[inline(always)]
pub fn distrust() {
    if let Some(bucket) = of_source() {
        // SAFETY: as in `trust`.
        unsafe { (*bucket).trust = 0 };
    }
}

/// The bucket of the packet's source; `None` for a trunk or a sender without limits.
#[inline(always)]
fn of_source() -> Option<*mut RateBucket> {
    let sender = this().ok()?;
    if sender.bucket == NONE || limited_trunk(sender) != 0 {
        None
    } else {
        BUDGETS.get_ptr_mut(sender.bucket - 1)
    }
}

/// Finds the bucket of a source; [`NONE`] when other active sources occupy both slots. All addresses of an IPv6 /64 share one bucket.
#[inline(always)]
fn slot(settings: &Settings, sender: &mut Sender) {
    let [r0, r1, mut r2, mut r3, _] = sender.source;
    if ip::is_v6(&[r0, r1, r2, r3]) {
        (r2, r3) = (0, 0);
    }
    let (tag, slots) = bucket_slots([r0, r1, r2, r3], sender.class, &settings.hash_keys);
    sender.primary_bucket = slots[0] + 1;
    for slot in slots {
        let Some(bucket) = BUDGETS.get_ptr_mut(slot) else { return };
        // SAFETY: a live map value.
        if unsafe { (*bucket).tag } == tag {
            sender.bucket = slot + 1;
            return;
        }
    }
    take(tag, slots, sender);
}

/// Takes one of two slots whose owner is idle, that of which less came lately. Not inlined: most sources have a bucket already.
#[inline(never)]
fn take(tag: u64, slots: [u32; 2], sender: &mut Sender) {
    let (now_ns, mut least) = (coarse_ns(), u64::MAX);
    for slot in slots {
        let Some(bucket) = BUDGETS.get_ptr_mut(slot) else { return };
        // SAFETY: a live map value.
        unsafe {
            let lately = Tally((*bucket).tallies[0]).lately(now_ns);
            if lately < least && (*bucket).tat_ns.iter().all(|tat_ns| *tat_ns <= now_ns) {
                least = lately;
                sender.bucket = slot + 1;
            }
        }
    }
    let Some(bucket) = BUDGETS.get_ptr_mut(sender.bucket.wrapping_sub(1)) else { return };
    let [r0, r1, mut r2, mut r3, _] = sender.source;
    if ip::is_v6(&[r0, r1, r2, r3]) {
        (r2, r3) = (0, 0);
    }
    // SAFETY: a live map value. Two sources that take a slot at once both use it for a moment.
    unsafe {
        (*bucket).tag = tag;
        (*bucket).trust = 0;
        (*bucket).remote = [r0, r1, r2, r3];
        (*bucket).tallies = [0; TALLIED.len()];
        (*bucket).totals = [0; TALLIED.len()];
    }
}

/// Counts `count` of a kind. `Err` when they are over the limit and the limit is enforced.
#[inline(always)]
fn charge(sender: &Sender, kind: usize, count: u32, now_ns: u64) -> Result<(), Reason> {
    if sender.bucket == NONE || admitted(sender, kind, count, now_ns) {
        return Ok(());
    }
    policy::over(RATE_REASONS[kind])
}

/// Whether `count` of a kind are within the limit (GCRA). Not inlined, for the size of the program.
#[inline(never)]
fn admitted(sender: &Sender, kind: usize, count: u32, now_ns: u64) -> bool {
    let Ok(settings) = settings::get() else { return true };
    let index = limited_trunk(sender);
    let (bucket, mut rate) = match policy::trunk(index) {
        Some(trunk) => (TRUNK_BUDGETS.get_ptr_mut(trunk_bucket(index, sender.class)), trunk.rates[kind]),
        None => (BUDGETS.get_ptr_mut(sender.bucket - 1), settings.rates[kind]),
    };
    let Some(bucket) = bucket else { return true };
    if rate.interval_ns == 0 {
        return true;
    }
    // SAFETY: a live map value.
    unsafe {
        if index == 0 && settings.trust_factor > 1 && (*bucket).trust >= u64::from(settings.trust_after) {
            rate = Rate {
                interval_ns: rate.interval_ns / u64::from(settings.trust_factor),
                tolerance_ns: rate.tolerance_ns,
            };
        }
        let word = &raw mut (*bucket).tat_ns[kind];
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
