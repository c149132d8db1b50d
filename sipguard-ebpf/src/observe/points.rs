//! Observation points: events about stopped packets, packets that a capture requested, and the last packets of each device. A flood costs
//! one atomic increment per packet: a source and reason has one event in ten seconds, and each CPU has a limited rate of events.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{
    CAPTURE_DROPPED, CAPTURE_PASSED, CAPTURED_ENTRIES, CURSOR_CAPTURED, CURSOR_ENTRIES, CURSOR_EVENTS,
    CURSOR_RECORDED, EVENT_BURST, EVENT_COST_NS, EVENT_ENTRIES, EVENT_INTERVAL_NS, EVENT_LIMITER_ENTRIES,
    EventBucket, EventLimiter, ObserveSettings, Outcome, PACKETS_PER_SLOT, PacketRecord, RECORDED_ENTRIES,
    RECORDED_SLOTS, Settings, bucket_slots,
};
use sipguard_common::{Class, Reason};

use crate::admit::rate;
use crate::cpu::scratch::{self, CLIENT, Scratch};
use crate::cpu::{atomic, settings};
use crate::packet::bytes;

#[map]
static EVENTS: Array<PacketRecord> = Array::with_max_entries(EVENT_ENTRIES, BPF_F_MMAPABLE);

#[map]
static CAPTURED: Array<PacketRecord> = Array::with_max_entries(CAPTURED_ENTRIES, BPF_F_MMAPABLE);

#[map]
static RECORDED: Array<PacketRecord> = Array::with_max_entries(RECORDED_ENTRIES, BPF_F_MMAPABLE);

#[map]
static CURSORS: Array<u64> = Array::with_max_entries(CURSOR_ENTRIES, BPF_F_MMAPABLE);

#[map]
static TAPS: Array<ObserveSettings> = Array::with_max_entries(1, 0);

#[map]
static EVENT_GATES: Array<EventLimiter> = Array::with_max_entries(EVENT_LIMITER_ENTRIES, 0);

#[map]
static EVENT_BUDGETS: PerCpuArray<EventBucket> = PerCpuArray::with_max_entries(1, 0);

/// [`scratch::Sender::observe`]: the packet is parsed, and packets that pass are not requested.
const NOTHING: u32 = 1;
/// [`scratch::Sender::observe`]: packets that pass are requested, by a capture or to be recorded.
const PASSED: u32 = 2;

/// What is requested of a packet that is parsed up to its ports.
#[inline(always)]
pub fn requested() -> u32 {
    match TAPS.get(0) {
        Some(observe) if observe.capture_until_ns != 0 || observe.records != 0 => PASSED,
        _ => NOTHING,
    }
}

/// Observes a packet that passes, if it is of a guarded port and such packets are requested.
#[inline(always)]
pub fn passed(ctx: &XdpContext, scratch: *mut Scratch, reason: Reason) {
    // SAFETY: this CPU's map value.
    if !settings::is_replay() && unsafe { (*scratch).sender.observe } == PASSED {
        observe_passed(ctx.ctx, u32::from(reason.number()));
    }
}

/// A global function: verified once, for any packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn observe_passed(ctx: *mut xdp_md, reason: u32) -> u32 {
    let (Some(observe), Ok(scratch)) = (TAPS.get_ptr_mut(0), scratch::get()) else { return 0 };
    if wants(observe, scratch, CAPTURE_PASSED) {
        capture(ctx, reason);
    }
    // SAFETY: this CPU's map value.
    let packet = unsafe { &(*scratch).packet };
    // SAFETY: a live map value.
    if unsafe { (*observe).records } != 0 && packet.data_len != 0 {
        record(ctx, scratch, reason);
    }
    0
}

/// Observes a packet that is stopped, or that monitor mode lets pass. Most packets of a flood end at the rate limiter of events.
#[inline(always)]
pub fn stopped(
    ctx: &XdpContext,
    scratch: *mut Scratch,
    settings: &Settings,
    reason: Reason,
    outcome: Outcome,
) {
    if settings::is_replay() {
        return;
    }
    if let Some(observe) = TAPS.get(0)
        && observe.capture_until_ns != 0
    {
        observe_stopped(ctx.ctx, verdict_word(reason, outcome));
    }
    // Gaps are normal in TCP, and no event.
    if reason != Reason::SequenceGap {
        event(ctx.ctx, scratch, settings, reason, outcome);
    }
}

/// A global function: verified once, for any packet. `verdict_word` is [`verdict_word`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn observe_stopped(ctx: *mut xdp_md, verdict_word: u32) -> u32 {
    if let (Some(observe), Ok(scratch)) = (TAPS.get_ptr_mut(0), scratch::get())
        && wants(observe, scratch, CAPTURE_DROPPED)
    {
        capture(ctx, verdict_word);
    }
    0
}

/// Reason and outcome in the low 16 bits, as [`store_record`] takes them.
#[inline(always)]
fn verdict_word(reason: Reason, outcome: Outcome) -> u32 {
    u32::from(reason.number()) | (outcome as u32) << 8
}

/// Source address as words in network order, and its port in network order, or 0 where it is not known.
#[inline(always)]
fn source(scratch: *mut Scratch) -> ([u32; 4], u32) {
    // SAFETY: this CPU's map value.
    let (sender, ip) = unsafe { (&(*scratch).sender, &(*scratch).ip) };
    if sender.observe == 0 {
        return (ip.remote, 0);
    }
    let [r0, r1, r2, r3, port] = sender.source;
    ([r0, r1, r2, r3], port)
}

/// Writes an event, unless its source and reason had one in the last ten seconds or this CPU's rate is used up.
#[inline(always)]
fn event(ctx: *mut xdp_md, scratch: *mut Scratch, settings: &Settings, reason: Reason, outcome: Outcome) {
    let ([mut r0, r1, r2, r3], mut port) = source(scratch);
    if reason == Reason::BadIpHeader {
        // The source was not read.
        r0 = u32::MAX;
    }
    if !matches!(reason.class(), Class::Malformed | Class::Reset) {
        port = 0;
    }
    r0 ^= port | u32::from(reason.number()) << 16;
    let (tag, _) = bucket_slots([r0, r1, r2, r3], 0, &settings.hash_keys);
    let Some(limiter) = EVENT_GATES.get_ptr_mut((tag >> 16) as u32 & (EVENT_LIMITER_ENTRIES - 1)) else {
        return;
    };
    let now_ns = rate::coarse_ns();
    // SAFETY: a live map value.
    let same_key = unsafe { (*limiter).tag == tag };
    // SAFETY: as above.
    if same_key && now_ns < unsafe { (*limiter).next_ns } {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*limiter).count, 1) };
        return;
    }
    let count = admit_event(limiter, tag, now_ns);
    if count != 0 {
        observe_event(ctx, count << 16 | u64::from(verdict_word(reason, outcome)));
    }
}

/// Claims a limiter for the next ten seconds. Returns how many packets there were since its last event, this one included, or 0 when this
/// CPU's rate is used up.
// own frame: 4 bytes
#[inline(never)]
fn admit_event(limiter: *mut EventLimiter, tag: u64, now_ns: u64) -> u64 {
    let Some(bucket) = EVENT_BUDGETS.get_ptr_mut(0) else { return 0 };
    // SAFETY: live map values. If two CPUs use one limiter at once, one may include the other's count.
    unsafe {
        let same_key = (*limiter).tag == tag;
        if (*bucket).tat_ns > now_ns + EVENT_COST_NS * (EVENT_BURST - 1) {
            if same_key {
                atomic::add(&raw mut (*limiter).count, 1);
            } else {
                (*bucket).lost += 1;
            }
            return 0;
        }
        let begin_ns = if (*bucket).tat_ns > now_ns { (*bucket).tat_ns } else { now_ns };
        (*bucket).tat_ns = begin_ns + EVENT_COST_NS;
        let before = atomic::exchange(&raw mut (*limiter).count, 0);
        (*limiter).next_ns = now_ns + EVENT_INTERVAL_NS;
        if same_key {
            return before + 1;
        }
        // The entry now belongs to another source and reason.
        (*bucket).lost += before;
        (*limiter).tag = tag;
        1
    }
}

/// A global function: verified once, for any packet. `verdict_word` is [`verdict_word`] below the count.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn observe_event(ctx: *mut xdp_md, verdict_word: u64) -> u32 {
    let Some(number) = next(CURSOR_EVENTS) else { return 0 };
    if let Some(slot) = EVENTS.get_ptr_mut(number as u32 & (EVENT_ENTRIES - 1)) {
        store_record(ctx, slot, number, verdict_word);
    }
    0
}

/// Whether a capture requested this packet.
#[inline(always)]
fn wants(observe: *mut ObserveSettings, scratch: *mut Scratch, verdict: u8) -> bool {
    // SAFETY: a live map value.
    let observe = unsafe { &mut *observe };
    if observe.capture_until_ns == 0 {
        return false;
    }
    if settings::now_ns() >= observe.capture_until_ns {
        // The capturing process is gone: switch the capture off.
        observe.capture_until_ns = 0;
        return false;
    }
    if observe.verdicts & verdict == 0 {
        return false;
    }
    let (remote, port) = source(scratch);
    if is_asked(observe, &remote, port) {
        return true;
    }
    // The balancer of a client.
    // SAFETY: this CPU's map value.
    let (sender, packet) = unsafe { (&(*scratch).sender, &(*scratch).packet) };
    let [r0, r1, r2, r3, ..] = packet.key;
    sender.client & CLIENT != 0 && is_asked(observe, &[r0, r1, r2, r3], packet.key[8] & 0xffff)
}

/// Whether a capture requested a source.
// own frame: 0 bytes
#[inline(never)]
fn is_asked(observe: &ObserveSettings, remote: &[u32; 4], port: u32) -> bool {
    let asked = u32::from(u16::from_ne_bytes(observe.port));
    if asked != 0 && asked != port {
        return false;
    }
    let (source, mask) = (words(&observe.source), words(&observe.mask));
    let differs = (remote[0] & mask[0] ^ source[0])
        | (remote[1] & mask[1] ^ source[1])
        | (remote[2] & mask[2] ^ source[2])
        | (remote[3] & mask[3] ^ source[3]);
    differs == 0
}

/// An address as words in network order.
#[inline(always)]
fn words(address: &[u8; 16]) -> &[u32; 4] {
    // SAFETY: both are 16 bytes, at an offset that is a multiple of eight in `ObserveSettings`.
    unsafe { &*address.as_ptr().cast() }
}

/// Writes the packet into the ring of captures.
#[inline(always)]
fn capture(ctx: *mut xdp_md, verdict_word: u32) {
    let Some(number) = next(CURSOR_CAPTURED) else { return };
    let Some(slot) = CAPTURED.get_ptr_mut(number as u32 & (CAPTURED_ENTRIES - 1)) else { return };
    store_record(ctx, slot, number, 1 << 16 | u64::from(verdict_word));
}

/// Writes the packet into the ring of the last packets of its device.
#[inline(always)]
fn record(ctx: *mut xdp_md, scratch: *mut Scratch, verdict_word: u32) {
    let Ok(settings) = settings::get() else { return };
    let ([r0, r1, r2, r3], port) = source(scratch);
    let (tag, _) = bucket_slots([r0 ^ port, r1, r2, r3], 0, &settings.hash_keys);
    let slot = (tag >> 16) as u32 & (RECORDED_SLOTS - 1);
    let Some(number) = next(CURSOR_RECORDED + slot) else { return };
    let at = slot * PACKETS_PER_SLOT + (number as u32 & (PACKETS_PER_SLOT - 1));
    let Some(slot) = RECORDED.get_ptr_mut(at) else { return };
    store_record(ctx, slot, number, 1 << 16 | u64::from(verdict_word));
}

/// The next number of a ring.
#[inline(always)]
fn next(cursor: u32) -> Option<u64> {
    let cursor = CURSORS.get_ptr_mut(cursor)?;
    // SAFETY: a live map value.
    Some(unsafe { atomic::fetch_add(cursor, 1) })
}

/// Writes the packet into a record. `verdict_word` has [`verdict_word`] in its low 16 bits and the count above.
// own frame: 32 bytes
#[inline(never)]
fn store_record(ctx: *mut xdp_md, record: *mut PacketRecord, number: u64, verdict_word: u64) {
    let Ok(scratch) = scratch::get() else { return };
    // SAFETY: a live map value; readers detect by its number that it changes.
    unsafe {
        atomic::exchange(&raw mut (*record).number, 0);
        let frame_len = bytes::frame_len(&XdpContext::new(ctx)) as u32;
        (*record).time_ns = settings::now_ns();
        (*record).count = verdict_word >> 16;
        (*record).frame_len = frame_len;
        (*record).slot = settings::slot();
        (*record).reason = verdict_word as u8;
        (*record).outcome = (verdict_word >> 8) as u8;
        (*record).trunk = (*scratch).sender.trunk as u8;
        let named = (*scratch).sender.client & CLIENT != 0;
        let [c0, c1, c2, c3, port] = (*scratch).sender.source;
        (*record).client = if named { [c0, c1, c2, c3] } else { [0; 4] };
        (*record).client_port = if named { port } else { 0 };
        (*record).captured = copy(ctx, (&raw mut (*record).bytes).cast(), frame_len);
        atomic::exchange(&raw mut (*record).number, number + 1);
    }
}

/// Copies as much of the frame as fits into a record: two pieces, because a mask bounds the length of each. Returns the bytes copied.
///
/// # Safety
/// `into` has [`sipguard_common::abi::RECORD_BYTES`] bytes.
#[inline(always)]
unsafe fn copy(ctx: *mut xdp_md, into: *mut u8, frame_len: u32) -> u32 {
    const FIRST: u32 = 1024;
    const SECOND: u32 = 512;
    let first = if frame_len < FIRST { frame_len } else { FIRST };
    // SAFETY: the caller's, with the two pieces' sizes.
    unsafe {
        if first == 0 || !bytes::copy::<{ FIRST - 1 }>(&XdpContext::new(ctx), 0, first, into) {
            return 0;
        }
        if frame_len <= FIRST {
            return first;
        }
        let rest = frame_len - FIRST;
        let second = if rest < SECOND { rest } else { SECOND };
        if bytes::copy::<{ SECOND - 1 }>(&XdpContext::new(ctx), FIRST, second, into.add(FIRST as usize)) {
            first + second
        } else {
            first
        }
    }
}
