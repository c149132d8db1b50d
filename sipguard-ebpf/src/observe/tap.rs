//! What userspace gets to see of packets: events of what was stopped, what a capture asked for, and the last packets of each device.
//! A flood costs a counter: a source and reason has one event in ten seconds, and a CPU a budget of events.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{
    CAPTURE_DROPPED, CAPTURE_PASSED, CAPTURED_ENTRIES, CURSOR_CAPTURED, CURSOR_ENTRIES, CURSOR_EVENTS,
    CURSOR_RECORDED, EVENT_BUDGET_NS, EVENT_BURST, EVENT_ENTRIES, EVENT_INTERVAL_NS, EventBudget,
    GATE_ENTRIES, Gate, Outcome, PLACE_PACKETS, RECORDED_ENTRIES, RECORDED_PLACES, Record, Settings, Taps,
    budget_places,
};
use sipguard_common::{Class, Reason};

use crate::admit::rate;
use crate::cpu::scratch::{self, Scratch};
use crate::cpu::{atomic, settings};
use crate::packet::bytes;

#[map]
static EVENTS: Array<Record> = Array::with_max_entries(EVENT_ENTRIES, BPF_F_MMAPABLE);

#[map]
static CAPTURED: Array<Record> = Array::with_max_entries(CAPTURED_ENTRIES, BPF_F_MMAPABLE);

#[map]
static RECORDED: Array<Record> = Array::with_max_entries(RECORDED_ENTRIES, BPF_F_MMAPABLE);

#[map]
static CURSORS: Array<u64> = Array::with_max_entries(CURSOR_ENTRIES, BPF_F_MMAPABLE);

#[map]
static TAPS: Array<Taps> = Array::with_max_entries(1, 0);

#[map]
static EVENT_GATES: Array<Gate> = Array::with_max_entries(GATE_ENTRIES, 0);

#[map]
static EVENT_BUDGETS: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);

/// The packet at hand is known, nobody asked for packets that pass.
const NOTHING: u32 = 1;
/// Somebody did.
const PASSED: u32 = 2;

/// What is asked for of a packet that is known.
#[inline(always)]
pub fn asked() -> u32 {
    match TAPS.get(0) {
        Some(taps) if taps.capture_until_ns != 0 || taps.records != 0 => PASSED,
        _ => NOTHING,
    }
}

/// Of a packet that passes: nothing, unless it is of a guarded port and somebody asked for such packets.
#[inline(always)]
pub fn passed(ctx: &XdpContext, scratch: *mut Scratch, reason: Reason) {
    // SAFETY: this CPU's map value.
    if !settings::is_replay() && unsafe { (*scratch).who.taps } == PASSED {
        tap_passed(ctx.ctx, u32::from(reason.number()));
    }
}

/// A global function, as those of [`crate::stream`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tap_passed(ctx: *mut xdp_md, reason: u32) -> u32 {
    let (Some(taps), Ok(scratch)) = (TAPS.get_ptr_mut(0), scratch::get()) else { return 0 };
    if wants(taps, scratch, CAPTURE_PASSED) {
        capture(ctx, reason);
    }
    // SAFETY: this CPU's map value.
    let packet = unsafe { &(*scratch).packet };
    // SAFETY: a live map value.
    if unsafe { (*taps).records } != 0 && packet.data_len != 0 {
        record(ctx, scratch, reason);
    }
    0
}

/// Of a packet that is stopped, or would be if the guard did more than monitor, as `outcome` says. Nearly all that a flood brings ends at its gate.
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
    if let Some(taps) = TAPS.get(0)
        && taps.capture_until_ns != 0
    {
        tap_stopped(ctx.ctx, said(reason, outcome));
    }
    // A gap is how TCP is; whoever has one has done nothing.
    if reason != Reason::SequenceGap {
        event(ctx.ctx, scratch, settings, reason, outcome);
    }
}

/// A global function, as those of [`crate::stream`]. `said` is [`said`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tap_stopped(ctx: *mut xdp_md, said: u32) -> u32 {
    if let (Some(taps), Ok(scratch)) = (TAPS.get_ptr_mut(0), scratch::get())
        && wants(taps, scratch, CAPTURE_DROPPED)
    {
        capture(ctx, said);
    }
    0
}

/// Reason and outcome in one word, as [`store_record`] takes it.
#[inline(always)]
fn said(reason: Reason, outcome: Outcome) -> u32 {
    u32::from(reason.number()) | (outcome as u32) << 8
}

/// Source in words, and its port as it stands in the header, or 0 where it is not known.
#[inline(always)]
fn source(scratch: *mut Scratch) -> ([u32; 4], u32) {
    // SAFETY: this CPU's map value.
    unsafe {
        let port = if (*scratch).who.taps != 0 { (*scratch).packet.key[8] & 0xffff } else { 0 };
        ((*scratch).ip.remote, port)
    }
}

/// Makes an event, unless its source and reason had one just now or the budget is spent.
#[inline(always)]
fn event(ctx: *mut xdp_md, scratch: *mut Scratch, settings: &Settings, reason: Reason, outcome: Outcome) {
    let ([mut r0, r1, r2, r3], mut port) = source(scratch);
    if reason == Reason::BadIpHeader {
        // Whose it is was not read.
        r0 = u32::MAX;
    }
    if !matches!(reason.class(), Class::Malformed | Class::Reset) {
        port = 0;
    }
    r0 ^= port | u32::from(reason.number()) << 16;
    let (tag, _) = budget_places([r0, r1, r2, r3], 0, &settings.hash_keys);
    let Some(gate) = EVENT_GATES.get_ptr_mut((tag >> 16) as u32 & (GATE_ENTRIES - 1)) else { return };
    let now_ns = rate::coarse_ns();
    // SAFETY: a live map value.
    let mine = unsafe { (*gate).tag == tag };
    // SAFETY: as above.
    if mine && now_ns < unsafe { (*gate).next_ns } {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*gate).count, 1) };
        return;
    }
    let count = through(gate, tag, now_ns);
    if count != 0 {
        tap_event(ctx, count << 16 | u64::from(said(reason, outcome)));
    }
}

/// Takes a gate for ten seconds: how many packets there were since the last time, or 0 when the budget is spent.
#[inline(never)]
fn through(gate: *mut Gate, tag: u64, now_ns: u64) -> u64 {
    let Some(budget) = EVENT_BUDGETS.get_ptr_mut(0) else { return 0 };
    // SAFETY: live map values. Of two CPUs at one gate one may take the other's count along.
    unsafe {
        let mine = (*gate).tag == tag;
        if (*budget).tat_ns > now_ns + EVENT_BUDGET_NS * (EVENT_BURST - 1) {
            if mine {
                atomic::add(&raw mut (*gate).count, 1);
            } else {
                (*budget).lost += 1;
            }
            return 0;
        }
        let begin_ns = if (*budget).tat_ns > now_ns { (*budget).tat_ns } else { now_ns };
        (*budget).tat_ns = begin_ns + EVENT_BUDGET_NS;
        let before = atomic::exchange(&raw mut (*gate).count, 0);
        (*gate).next_ns = now_ns + EVENT_INTERVAL_NS;
        if mine {
            return before + 1;
        }
        // The place is another's from here on.
        (*budget).lost += before;
        (*gate).tag = tag;
        1
    }
}

/// A global function, as those of [`crate::stream`]. `said` is [`said`] below the count.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tap_event(ctx: *mut xdp_md, said: u64) -> u32 {
    let Some(number) = next(CURSOR_EVENTS) else { return 0 };
    if let Some(place) = EVENTS.get_ptr_mut(number as u32 & (EVENT_ENTRIES - 1)) {
        store_record(ctx, place, number, said);
    }
    0
}

/// Whether a capture asked for this packet.
#[inline(always)]
fn wants(taps: *mut Taps, scratch: *mut Scratch, verdict: u8) -> bool {
    // SAFETY: a live map value.
    let taps = unsafe { &mut *taps };
    if taps.capture_until_ns == 0 {
        return false;
    }
    if settings::now_ns() >= taps.capture_until_ns {
        // Whoever asked is gone: packets cost no more than before.
        taps.capture_until_ns = 0;
        return false;
    }
    if taps.verdicts & verdict == 0 {
        return false;
    }
    let (remote, port) = source(scratch);
    let asked = u32::from(u16::from_ne_bytes(taps.port));
    if asked != 0 && asked != port {
        return false;
    }
    let (source, mask) = (words(&taps.source), words(&taps.mask));
    let differs = (remote[0] & mask[0] ^ source[0])
        | (remote[1] & mask[1] ^ source[1])
        | (remote[2] & mask[2] ^ source[2])
        | (remote[3] & mask[3] ^ source[3]);
    differs == 0
}

/// An address in words as they lie in memory.
#[inline(always)]
fn words(address: &[u8; 16]) -> &[u32; 4] {
    // SAFETY: both are 16 bytes, at a multiple of eight in `Taps`.
    unsafe { &*address.as_ptr().cast() }
}

#[inline(always)]
fn capture(ctx: *mut xdp_md, said: u32) {
    let Some(number) = next(CURSOR_CAPTURED) else { return };
    let Some(place) = CAPTURED.get_ptr_mut(number as u32 & (CAPTURED_ENTRIES - 1)) else { return };
    store_record(ctx, place, number, 1 << 16 | u64::from(said));
}

/// Keeps a packet among the last ones of its device.
#[inline(always)]
fn record(ctx: *mut xdp_md, scratch: *mut Scratch, said: u32) {
    let Ok(settings) = settings::get() else { return };
    let ([r0, r1, r2, r3], port) = source(scratch);
    let (tag, _) = budget_places([r0 ^ port, r1, r2, r3], 0, &settings.hash_keys);
    let place = (tag >> 16) as u32 & (RECORDED_PLACES - 1);
    let Some(number) = next(CURSOR_RECORDED + place) else { return };
    let at = place * PLACE_PACKETS + (number as u32 & (PLACE_PACKETS - 1));
    let Some(place) = RECORDED.get_ptr_mut(at) else { return };
    store_record(ctx, place, number, 1 << 16 | u64::from(said));
}

/// Takes the next number of a ring.
#[inline(always)]
fn next(cursor: u32) -> Option<u64> {
    let cursor = CURSORS.get_ptr_mut(cursor)?;
    // SAFETY: a live map value.
    Some(unsafe { atomic::fetch_add(cursor, 1) })
}

/// Writes the packet at hand into a record. `said` is [`said`] below the count.
#[inline(never)]
fn store_record(ctx: *mut xdp_md, record: *mut Record, number: u64, said: u64) {
    let Ok(scratch) = scratch::get() else { return };
    // SAFETY: a live map value, whose readers see by its number that it changes.
    unsafe {
        atomic::exchange(&raw mut (*record).number, 0);
        let frame_len = bytes::frame_len(&XdpContext::new(ctx)) as u32;
        (*record).time_ns = settings::now_ns();
        (*record).count = said >> 16;
        (*record).frame_len = frame_len;
        (*record).slot = settings::slot();
        (*record).reason = said as u8;
        (*record).outcome = (said >> 8) as u8;
        (*record).trunk = (*scratch).who.trunk as u8;
        (*record).captured = copy(ctx, (&raw mut (*record).bytes).cast(), frame_len);
        atomic::exchange(&raw mut (*record).number, number + 1);
    }
}

/// Copies as much of the frame as a record takes: two pieces, since a mask bounds the length of each.
///
/// # Safety
/// `into` has room for [`sipguard_common::abi::RECORD_BYTES`].
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
