//! TCP connections: is this exactly the next byte?
//!
//! The rule: every payload byte that reaches the kernel was validated in order exactly once, or equals a byte that was, or is one that the
//! PBX already has and discards. A flow begins with a verified handshake and ends with its connection. A segment that the receiver would
//! not accept changes no state and is no violation. docs/internals/streams.md lists which source is trusted for what.

mod acceptable;
mod client;
pub mod egress;
mod find;
mod flow;
pub mod greeting;
mod handshake;
mod payload;
mod pickup;
mod retransmission;
mod segments;
pub mod socket;
mod syn;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_ENDED, Flow, FlowState, flow_flags};
use sipguard_common::wire::tcp::{ACK, FIN, RST, SYN};

pub use flow::{copy as copy_framer, ended};

use crate::admit::{policy, port, rate};
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;
use crate::cpu::stage_result::StageResult;
use crate::packet::bytes;

/// Decides about the segment in [`scratch::packet`].
#[inline(always)]
pub fn decide(ctx: &XdpContext) -> Result<Reason, Reason> {
    Ok(StageResult::from_scalar(stream_decide(ctx.ctx)).final_reason())
}

/// A global function: verified once, for any packet. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stream_decide(ctx: *mut xdp_md) -> u32 {
    // SAFETY: this CPU's map value. This is the only mutable reference to the packet in the stages of a segment.
    StageResult::from(scratch::packet().and_then(|packet| segment(ctx, unsafe { &mut *packet }))).scalar()
}

#[inline(always)]
fn segment(ctx: *mut xdp_md, packet: &mut Packet) -> Result<Reason, Reason> {
    if packet.has(SYN) {
        if packet.data_len != 0 && (packet.side != port::NEITHER || handshake::is_early(packet)) {
            syn::cut_payload(ctx, packet)?;
        }
        return Ok(opening(ctx, packet));
    }
    let flow = match flow::lookup(&packet.key) {
        Some(flow) => flow,
        None => found(ctx, packet)?,
    };
    // SAFETY: a live map value. It is only read until this CPU holds its lock.
    let flow = unsafe { &mut *flow };
    if flow.is(FlowState::NotSip) && flow.pending_handshake == 0 {
        return Err(Reason::NotGuarded);
    }
    packet.transport = if flow.flags & flow_flags::TLS != 0 { scratch::TLS } else { scratch::TCP };
    if flow.flags & flow_flags::CLIENT == 0 {
        policy::permit()?;
    } else if let Some(reason) = client::judged(ctx, packet, flow) {
        return Err(reason);
    }
    if packet.has(RST) {
        return Ok(Reason::TcpControl);
    }
    if flow.is(FlowState::AwaitingFirstBytes) && greeting::is_held_back(&XdpContext::new(ctx), packet) {
        return Err(Reason::EarlyAnswer);
    }
    if packet.data_len == 0 && flow.pending_handshake == 0 && !packet.has(FIN) {
        acceptable::acknowledge(packet, flow);
        return Ok(Reason::TcpControl);
    }
    let token = flow::lock(flow).ok_or(Reason::FlowBusy)?;
    packet.expected = flow.next;
    let judged = segment_of_flow(ctx, packet, flow);
    flow::unlock(flow, token);
    judged
}

/// Whether a TCP segment to a port that is not guarded is of a connection that the PBX dialled: there is a flow or a handshake. Only the IP
/// header is parsed at this point. Always true in a replay, where the PBX's own segments may be missing.
#[inline(always)]
pub fn is_awaited(ctx: &XdpContext) -> bool {
    settings::is_replay() || stream_awaits(ctx.ctx) == 1
}

/// A global function like [`stream_decide`]. Returns 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stream_awaits(ctx: *mut xdp_md) -> u32 {
    let Ok(scratch) = scratch::get() else { return 0 };
    // SAFETY: this CPU's map value.
    let ip = unsafe { &(*scratch).ip };
    let Ok(ports) = bytes::word(&XdpContext::new(ctx), ip.l4_at) else { return 0 };
    let [r0, r1, r2, r3] = ip.remote;
    let [l0, l1, l2, l3] = ip.local;
    let key = [r0, r1, r2, r3, l0, l1, l2, l3, ports];
    u32::from(flow::lookup(&key).is_some() || handshake::get(&key).is_some())
}

/// A segment with SYN. A SYN creates no flow, since anyone can send one; a SYN-ACK to the PBX may lead to one.
// own frame: 12 bytes
#[inline(never)]
fn opening(ctx: *mut xdp_md, packet: &mut Packet) -> Reason {
    match opened(ctx, packet) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn opened(ctx: *mut xdp_md, packet: &mut Packet) -> Result<Reason, Reason> {
    if packet.has(ACK) {
        return handshake::answered(&XdpContext::new(ctx), packet);
    }
    if packet.side != port::OWN {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    if settings::is_replay() {
        handshake::record_unanswered(packet);
    }
    Ok(Reason::TcpControl)
}

/// Creates the flow of a connection. `Err` is the reason when it gets none.
#[inline(always)]
fn found(ctx: *mut xdp_md, packet: &mut Packet) -> Result<*mut Flow, Reason> {
    if packet.side == port::PEER {
        if packet.data_len != 0 && handshake::is_early(packet) {
            return Err(Reason::EarlyAnswer);
        }
    } else if greeting::is_held_back(&XdpContext::new(ctx), packet) {
        return Err(Reason::EarlyAnswer);
    }
    if packet.side != port::OWN {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    find::flow(ctx, packet)?;
    flow::lookup(&packet.key).ok_or(Reason::Internal)
}

/// Decides about a segment of a locked flow.
#[inline(always)]
fn segment_of_flow(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<Reason, Reason> {
    if flow.pending_handshake != 0 {
        handshake::completes(packet, flow)?;
        if flow.pending_handshake == 0 {
            find::record_local(ctx, packet, flow);
        }
    }
    if flow.ended == FLOW_ENDED {
        find::anew(ctx, packet, flow)?;
    }
    if flow.is(FlowState::NotSip) || flow.is(FlowState::AwaitingFirstBytes) {
        return Err(Reason::NotGuarded);
    }
    acceptable::check(ctx, packet, flow)?;
    rate::segment(settings::get()?)?;
    if packet.data_len == 0 {
        flow::record_fin(packet, flow);
        return Ok(Reason::TcpControl);
    }
    let reason = payload::decide(&XdpContext::new(ctx), packet, flow)?;
    flow::record_fin(packet, flow);
    Ok(reason)
}
