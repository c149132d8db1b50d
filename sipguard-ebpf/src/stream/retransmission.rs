//! Retransmitted bytes: harmless when they equal those that were validated, or when the kernel already has them.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_SEGMENTS, Flow, FlowState, SegmentRecord};

use super::payload::is_recent_pickup;
use super::socket::{self, Socket};
use crate::cpu::scratch::Packet;
use crate::message::sip;

/// Conflicts in a row after which the connection is reset: the kernel has discarded the validated bytes, and the connection cannot continue.
const MAX_CONFLICTS: u8 = 8;

/// Result of a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The bytes are the same, or the receiver has them and discards them.
    Harmless,
    /// The kernel has another connection of the same ports.
    Moved,
    /// They differ from the validated bytes, or there is nothing to compare them with.
    Conflict,
    /// There were too many conflicts in a row.
    OutOfStep,
}

/// Compares the first `old` bytes of the segment, which are before the next byte of the flow.
// own frame: 96 bytes
#[inline(never)]
pub fn compare(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow, old: u32) -> Compared {
    let ctx = &XdpContext::new(ctx);
    // Coalesced retransmissions repeat several segments at once.
    let mut same = untracked(packet, flow, old);
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
    socket::lookup(ctx.ctx, packet, &mut socket);
    let end = packet.seq.wrapping_add(old);
    let receiver = if socket.has_position {
        socket.rcv_nxt
    } else if flow.egress_known != 0 {
        flow.acked
    } else {
        return Compared::Conflict;
    };
    if receiver.wrapping_sub(end).cast_signed() >= 0 {
        return Compared::Harmless;
    }
    if socket.has_position && socket.fresh && socket.rcv_nxt != flow.first {
        return Compared::Moved;
    }
    flow.conflicts = flow.conflicts.saturating_add(1);
    if flow.conflicts < MAX_CONFLICTS {
        return Compared::Conflict;
    }
    packet.expected = receiver;
    flow.state = FlowState::Rejected as u32;
    flow.reason = Reason::OutOfStep.number();
    Compared::OutOfStep
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

/// The record of a segment that starts at `seq` and is no longer than `most`.
#[inline(always)]
fn record_at(flow: &Flow, seq: u32, most: u32) -> Option<SegmentRecord> {
    let fits = |record: &SegmentRecord| record.len != 0 && record.seq == seq && u32::from(record.len) <= most;
    flow.segments.iter().copied().find(fits)
}
