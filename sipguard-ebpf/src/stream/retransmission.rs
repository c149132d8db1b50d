//! Bytes that came before: harmless when they are the same as those that were validated, or when the kernel already has them.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_SEGMENTS, Flow, Segment as Record, flow_state};

use super::judge::is_adopted_just_now;
use super::socket::{self, Socket};
use crate::cpu::scratch::Packet;
use crate::message::sip;

/// Conflicts in a row after which the connection is given up: the kernel discarded what was validated, and both can't go on.
const PATIENCE: u8 = 8;

/// What is known of bytes that came before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They are the same, or the receiver has them and throws them away.
    Harmless,
    /// The kernel has another connection of the same ports.
    Moved,
    /// They differ from what was validated, or nobody knows.
    Conflict,
    /// They have differed too often.
    OutOfStep,
}

/// Judges the first `old` bytes of the segment, which lie before the next one of the flow. A function of its own for the stack's
/// sake.
#[inline(never)]
pub fn compare(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow, old: u32) -> Compared {
    let ctx = &XdpContext::new(ctx);
    // Coalesced retransmissions repeat several segments at once.
    let mut same = unjudged(packet, flow, old);
    for _ in 0..FLOW_SEGMENTS {
        if same >= old {
            break;
        }
        let Some(record) = record_at(flow, packet.seq.wrapping_add(same), old - same) else { break };
        if record.hashed != 0 {
            match sip::hash(ctx, packet.data_at + same, u32::from(record.hashed)) {
                Ok(hash) if hash == record.hash => {}
                _ => break,
            }
        }
        same += u32::from(record.len);
    }
    if same >= old {
        return Compared::Harmless;
    }
    let mut socket = Socket::NONE;
    socket::ask(ctx.ctx, packet, &mut socket);
    let end = packet.seq.wrapping_add(old);
    let receiver = if socket.known {
        socket.rcv_nxt
    } else if flow.heard != 0 {
        flow.acked
    } else {
        return Compared::Conflict;
    };
    if receiver.wrapping_sub(end).cast_signed() >= 0 {
        return Compared::Harmless;
    }
    if socket.known && socket.fresh && socket.rcv_nxt != flow.first {
        return Compared::Moved;
    }
    flow.conflicts = flow.conflicts.saturating_add(1);
    if flow.conflicts < PATIENCE {
        return Compared::Conflict;
    }
    packet.expected = receiver;
    flow.state = flow_state::CUT;
    flow.reason = Reason::OutOfStep.number();
    Compared::OutOfStep
}

/// How many of the first `old` bytes lie before the first that was followed, on a connection that the PBX told of just now: they passed unjudged,
/// and may do so again.
#[inline(always)]
fn unjudged(packet: &Packet, flow: &Flow, old: u32) -> u32 {
    let before = flow.first.wrapping_sub(packet.seq);
    if before.cast_signed() <= 0 || !is_adopted_just_now(flow) {
        0
    } else if before < old {
        before
    } else {
        old
    }
}

/// The record of a segment that starts at `seq` and is no longer than `most`.
#[inline(always)]
fn record_at(flow: &Flow, seq: u32, most: u32) -> Option<Record> {
    let fits = |record: &Record| record.len != 0 && record.seq == seq && u32::from(record.len) <= most;
    flow.segments.iter().copied().find(fits)
}
