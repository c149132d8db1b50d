//! Would the receiver accept this segment? One that it would not changes no state here and is no violation: it may be forged, by someone who
//! knows the ports and perhaps the position in the stream, but not what the PBX sent.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, flow_flags};
use sipguard_common::wire::tcp;

use crate::cpu::scratch::Packet;
use crate::packet::bytes;

/// How many bytes an acknowledgement may be behind the newest one, or ahead of what the PBX sent. A receiver accepts none that is further
/// behind than its largest window (RFC 5961 section 5.2), and none ahead. Some bytes ahead are accepted here, because the PBX may have sent
/// them over another interface.
const REACH: i32 = 1 << 17;

/// Refuses a segment that the receiver would not accept, as far as that is known.
#[inline(always)]
pub fn check(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let ctx = &XdpContext::new(ctx);
    if flow.egress_known != 0 {
        let ahead = packet.acknowledged.wrapping_sub(flow.sent).cast_signed();
        let behind = flow.una.wrapping_sub(packet.acknowledged).cast_signed();
        if ahead > REACH || behind > REACH {
            return Err(Reason::NotAcceptable);
        }
        acknowledge(packet, flow);
    }
    packet.timed = 0;
    if packet.data_at - packet.l4_at == tcp::TIMESTAMP_LEN as u32 {
        const OPTION: u32 = u32::from_ne_bytes(tcp::TIMESTAMP_OPTION);
        if bytes::word(ctx, packet.l4_at as usize + tcp::LEN)? == OPTION {
            packet.timestamp = u32::from_be(bytes::word(ctx, packet.l4_at as usize + tcp::TIMESTAMP)?);
            packet.timed = 1;
            let older = flow.timestamp.wrapping_sub(packet.timestamp).cast_signed() > 0;
            // Old bytes are compared in any case.
            let end = packet.seq.wrapping_add(packet.data_len);
            let new = end.wrapping_sub(flow.next).cast_signed() > 0;
            if flow.flags & flow_flags::TIMESTAMPS != 0 && older && new && !is_awaited_copy(packet, flow) {
                return Err(Reason::NotAcceptable);
            }
        }
    }
    Ok(())
}

/// Records the peer's acknowledgement. If two CPUs write at once one may be lost; the next segment corrects that.
#[inline(always)]
pub fn acknowledge(packet: &Packet, flow: &mut Flow) {
    let more = packet.acknowledged.wrapping_sub(flow.una).cast_signed() > 0;
    let beyond = packet.acknowledged.wrapping_sub(flow.sent).cast_signed() > 0;
    if flow.egress_known != 0 && more && !beyond {
        flow.una = packet.acknowledged;
    }
}

/// Whether the segment begins with bytes that passed and that the receiver still waits for.
#[inline(always)]
fn is_awaited_copy(packet: &Packet, flow: &Flow) -> bool {
    flow.egress_known != 0
        && flow.acked.wrapping_sub(packet.seq) < packet.data_len
        && flow.acked.wrapping_sub(flow.next).cast_signed() < 0
}

/// Takes over the clock of a copy that the receiver waits for: in the first one it may have been damaged.
#[inline(always)]
pub fn renew(packet: &Packet, flow: &mut Flow) {
    if packet.timed != 0 && is_awaited_copy(packet, flow) {
        flow.timestamp = packet.timestamp;
    }
}

/// Records timestamp and acknowledgement of a segment whose payload was validated.
#[inline(always)]
pub fn record(packet: &Packet, flow: &mut Flow) {
    if packet.timed != 0 {
        flow.timestamp = packet.timestamp;
        flow.flags |= flow_flags::TIMESTAMPS;
    }
    if flow.egress_known != 0 && packet.acknowledged.wrapping_sub(flow.sent).cast_signed() > 0 {
        // The PBX sent these bytes over another interface.
        flow.sent = packet.acknowledged;
    }
}
