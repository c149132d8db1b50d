//! Would the receiver take this segment? What it would not changes nothing here either, and accuses nobody: a forger knows ports, and maybe
//! where the stream is, but not what the PBX sent.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, flow_flags};

use crate::cpu::scratch::Packet;
use crate::packet::bytes;

/// How far an acknowledgement may lie behind what was acknowledged, or ahead of what the PBX sent, in bytes: no receiver takes one that lies farther
/// behind than its largest window (RFC 5961 section 5.2), and none ahead. Some way ahead is let pass here, since what the PBX sends may have left by
/// another interface.
const REACH: i32 = 1 << 17;
/// Length of the TCP header with a timestamp alone, as nearly all segments have it (RFC 7323 appendix A).
const TIMED_HEADER: u32 = 32;

/// Refuses what the receiver would not take, as far as that is known.
#[inline(always)]
pub fn check(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let ctx = &XdpContext::new(ctx);
    if flow.heard != 0 {
        let ahead = packet.acknowledged.wrapping_sub(flow.sent).cast_signed();
        let behind = flow.una.wrapping_sub(packet.acknowledged).cast_signed();
        if ahead > REACH || behind > REACH {
            return Err(Reason::NotAcceptable);
        }
        acknowledge(packet, flow);
    }
    packet.timed = 0;
    if packet.data_at - packet.l4_at == TIMED_HEADER {
        const TIMESTAMP: u32 = u32::from_ne_bytes([1, 1, 8, 10]);
        if bytes::word(ctx, packet.l4_at as usize + 20)? == TIMESTAMP {
            packet.timestamp = u32::from_be(bytes::word(ctx, packet.l4_at as usize + 24)?);
            packet.timed = 1;
            let older = flow.timestamp.wrapping_sub(packet.timestamp).cast_signed() > 0;
            // What came before is compared in any case.
            let end = packet.seq.wrapping_add(packet.data_len);
            let new = end.wrapping_sub(flow.next).cast_signed() > 0;
            if flow.flags & flow_flags::TIMED != 0 && older && new {
                return Err(Reason::NotAcceptable);
            }
        }
    }
    Ok(())
}

/// Takes note of what the peer acknowledges. Of two CPUs at once one may be lost, which the next segment makes good.
#[inline(always)]
pub fn acknowledge(packet: &Packet, flow: &mut Flow) {
    let more = packet.acknowledged.wrapping_sub(flow.una).cast_signed() > 0;
    let beyond = packet.acknowledged.wrapping_sub(flow.sent).cast_signed() > 0;
    if flow.heard != 0 && more && !beyond {
        flow.una = packet.acknowledged;
    }
}

/// Takes note of what a segment said whose payload was validated.
#[inline(always)]
pub fn note(packet: &Packet, flow: &mut Flow) {
    if packet.timed != 0 {
        flow.timestamp = packet.timestamp;
        flow.flags |= flow_flags::TIMED;
    }
    if flow.heard != 0 && packet.acknowledged.wrapping_sub(flow.sent).cast_signed() > 0 {
        // What the PBX sent left by another interface.
        flow.sent = packet.acknowledged;
    }
}
