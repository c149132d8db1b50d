//! Retransmitted bytes: harmless when they equal those that were validated, or when the kernel already has them.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, FlowState, SegmentRecord};
use sipguard_common::framer::Stream;

use super::payload::{self, Hash, is_recent_pickup};
use super::segments;
use super::socket::{self, Socket};
use crate::admit::rate;
use crate::cpu::scratch::{self, Packet};
use crate::message::sip;

/// Conflicts in a row after which the connection is reset: the kernel has discarded the validated bytes, and the connection cannot continue.
const MAX_CONFLICTS: u8 = 8;

/// Most segments that are compared with one copy, which may join several.
const JOINED: u32 = 64;

/// Result of a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The bytes are the same, or the receiver has them and discards them.
    Harmless,
    /// The kernel has another connection of the same ports.
    Moved,
}

/// Argument of the loop callback.
#[repr(C)]
struct Comparison {
    ctx: *mut xdp_md,
    packet: *mut Packet,
    flow: *mut Flow,
    old: u32,
    /// 1 when the bytes behind `packet.same` differ from [`crate::cpu::scratch::Scratch::record`].
    differs: u32,
}

/// Judges the first `old` bytes of the segment, which are before the next byte of the flow. `Err` when they differ from the validated ones, or there is
/// nothing to compare them with, or they are over a limit.
#[inline(always)]
pub fn judge(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow, old: u32) -> Result<Compared, Reason> {
    packet.same = untracked(packet, flow, old);
    // One of several segments that are repeated at once may differ.
    if compare(ctx.ctx, packet, flow, old) {
        match exchange(ctx, packet, flow) {
            Ok(()) => drop(compare(ctx.ctx, packet, flow, old)),
            Err(Reason::Conflict) => {}
            Err(over) => return Err(over),
        }
    }
    if packet.same >= old {
        return Ok(Compared::Harmless);
    }
    disputed(ctx.ctx, packet, flow, old)
}

/// Goes on with the comparison of the first `old` bytes behind `packet.same`, as far as they are the same. Returns whether those
/// behind differ from [`crate::cpu::scratch::Scratch::record`].
// own frame: 40 bytes
#[inline(never)]
fn compare(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow, old: u32) -> bool {
    let mut comparison = Comparison { ctx, packet, flow, old, differs: 0 };
    // Coalesced retransmissions repeat several segments at once.
    // SAFETY: the callback gets a pointer that lives as long as this call.
    unsafe {
        bpf_loop(JOINED, compare_one as *mut c_void, (&raw mut comparison).cast(), 0);
    }
    comparison.differs != 0
}

/// Compares the bytes from `packet.same` on with the record of the segment that began there. Returns 0 to continue, 1 to stop the loop.
#[inline(never)]
extern "C" fn compare_one(_: u32, comparison: *mut Comparison) -> i64 {
    // SAFETY: the pointer is the one given to `bpf_loop`.
    let comparison = unsafe { &mut *comparison };
    // SAFETY: live map values, which nobody else uses meanwhile.
    let (packet, flow) = unsafe { (&mut *comparison.packet, &*comparison.flow) };
    if packet.same >= comparison.old {
        return 1;
    }
    let left = comparison.old - packet.same;
    let seq = packet.seq.wrapping_add(packet.same);
    let Some(record) = segments::record_at(packet, flow, seq, left) else { return 1 };
    let hashed = u32::from(record.hashed);
    let ctx = &XdpContext::new(comparison.ctx);
    if hashed != 0 && sip::hash(ctx, packet.data_at + packet.same, hashed) != Ok(record.hash) {
        if let Ok(scratch) = scratch::get() {
            // SAFETY: this CPU's map value.
            unsafe { (*scratch).record = record };
            comparison.differs = 1;
        }
        return 1;
    }
    // Of a body a copy may have any part.
    let rest = u32::from(record.len) - seq.wrapping_sub(record.seq);
    packet.same += if rest < left { rest } else { left };
    0
}

/// Puts the bytes from `packet.same` on in the place of those of a record that they differ from, if they are well-formed in the same place, and
/// lead to the same place. Then it does not matter which of the two the receiver takes, unless it has a part of one. They differ where the
/// first ones were damaged on their way and the kernel discarded them. `Err` is [`Reason::Conflict`], or which limit they are over.
#[inline(always)]
fn exchange(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let Ok(scratch) = scratch::get() else { return Err(Reason::Conflict) };
    // SAFETY: this CPU's map value.
    let (record, stream) = unsafe { (&(*scratch).record, &mut (*scratch).stream) };
    let acked = flow.acked.wrapping_sub(record.seq);
    let halved = acked != 0 && acked < u32::from(record.len);
    if !flow.is(FlowState::InSync)
        || halved
        || record.before == Stream::NO_PLACE
        || record.behind == Stream::NO_PLACE
    {
        return Err(Reason::Conflict);
    }
    stream.resume(record.before);
    let messages = stream.messages;
    packet.new_at = packet.data_at + packet.same;
    packet.new_len = u32::from(record.len);
    // SAFETY: as above; the framer has changed the stream.
    if sip::validate(ctx).is_err() || unsafe { (*scratch).stream.place() } != record.behind {
        return Err(Reason::Conflict);
    }
    renew(ctx.ctx, packet, flow, messages)
}

/// Puts the copy that was judged just now in the place of the segment whose record it differs from. It counts for the limits, as nobody knows
/// which of the two the receiver takes; `Err` as for [`exchange`]. `messages` is how many the stream had before.
// own frame: 64 bytes
#[inline(never)]
fn renew(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow, messages: u32) -> Result<(), Reason> {
    let Ok(Hash { bytes, hash }) = payload::inspected(&XdpContext::new(ctx), packet, false) else {
        return Err(Reason::Conflict);
    };
    let Ok(scratch) = scratch::get() else { return Err(Reason::Conflict) };
    // SAFETY: this CPU's map value.
    let stream = unsafe { &(*scratch).stream };
    rate::messages(stream, stream.messages.wrapping_sub(messages))?;
    // SAFETY: this CPU's map value.
    let record = SegmentRecord { hashed: bytes as u16, hash, ..unsafe { (*scratch).record } };
    segments::renew(packet, flow, &record);
    packet.same += packet.new_len;
    Ok(())
}

/// What of old bytes that are not the same as those that passed: harmless when the receiver has them.
// own frame: 96 bytes
#[inline(never)]
fn disputed(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow, old: u32) -> Result<Compared, Reason> {
    let mut socket = Socket::NONE;
    socket::lookup(ctx, packet, &mut socket);
    let end = packet.seq.wrapping_add(old);
    let receiver = if socket.has_position {
        socket.rcv_nxt
    } else if flow.egress_known != 0 {
        flow.acked
    } else {
        return Err(Reason::Conflict);
    };
    if receiver.wrapping_sub(end).cast_signed() >= 0 {
        return Ok(Compared::Harmless);
    }
    if socket.has_position && socket.fresh && socket.rcv_nxt != flow.first {
        return Ok(Compared::Moved);
    }
    flow.conflicts = flow.conflicts.saturating_add(1);
    if flow.conflicts < MAX_CONFLICTS {
        return Err(Reason::Conflict);
    }
    packet.expected = receiver;
    flow.state = FlowState::Rejected as u32;
    flow.reason = Reason::OutOfStep.number();
    Err(Reason::OutOfStep)
}

/// How many of the first `old` bytes are before the first tracked byte, on a connection that was picked up just now: they passed unvalidated, and
/// may pass again.
#[inline(always)]
fn untracked(packet: &Packet, flow: &Flow, old: u32) -> u32 {
    let before = flow.first.wrapping_sub(packet.seq);
    if before.cast_signed() <= 0 || !is_recent_pickup(flow) {
        0
    } else if before < old {
        before
    } else {
        old
    }
}
