//! TCP connections: is this exactly the next byte?
//!
//! The rule: every payload byte that reaches the kernel was validated in order exactly once, or is the same as one that was,
//! or is one that the PBX already has and throws away. A flow begins with a verified handshake and ends with its connection; what a
//! receiver would not take changes nothing and accuses nobody. docs/internals/streams.md says who is the word on what.

mod acceptable;
mod adopt;
mod find;
mod flow;
mod handshake;
mod judge;
pub mod out;
mod retransmission;
pub mod socket;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{FLOW_ENDED, Flow, flow_flags, flow_state};

pub use flow::{copy as copy_framer, ended};

use crate::admit::{policy, port, rate};
use crate::cpu::ending::Ending;
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;
use crate::packet::bytes;
use crate::packet::tcp::{ACK, FIN, RST, SYN};

/// Judges the segment in [`scratch::packet`].
#[inline(always)]
pub fn judge(ctx: &XdpContext) -> Result<Reason, Reason> {
    Ok(Ending::of(stream_judge(ctx.ctx)).end())
}

/// A global function: the verifier looks at it once, for any packet. Returns an [`Ending`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stream_judge(ctx: *mut xdp_md) -> u32 {
    // SAFETY: this CPU's map value. This is the only reference by which the rooms of a segment change it.
    Ending::from(scratch::packet().and_then(|packet| segment(ctx, unsafe { &mut *packet }))).scalar()
}

#[inline(always)]
fn segment(ctx: *mut xdp_md, packet: &mut Packet) -> Result<Reason, Reason> {
    if packet.has(SYN) {
        return Ok(opening(packet));
    }
    let flow = match flow::lookup(&packet.key) {
        Some(flow) => flow,
        None => found(ctx, packet)?,
    };
    // SAFETY: a live map value. Who holds its lock changes it; until then it is only read.
    let flow = unsafe { &mut *flow };
    if flow.state == flow_state::OTHER && flow.offer == 0 {
        return Err(Reason::NotGuarded);
    }
    packet.transport = if flow.flags & flow_flags::TLS != 0 { scratch::TLS } else { scratch::TCP };
    policy::permit()?;
    if packet.has(RST) {
        return Ok(Reason::TcpControl);
    }
    if packet.data_len == 0 && flow.offer == 0 && !packet.has(FIN) {
        acceptable::acknowledge(packet, flow);
        return Ok(Reason::TcpControl);
    }
    let token = flow::lock(flow).ok_or(Reason::FlowBusy)?;
    packet.expected = flow.next;
    let judged = of_flow(ctx, packet, flow);
    flow::unlock(flow, token);
    judged
}

/// Whether a TCP segment to a port that is not guarded, whose IP header was read and no more, is of a connection that the PBX dialled: there is a flow,
/// or a handshake. In a replay nobody saw the PBX dial.
#[inline(always)]
pub fn is_awaited(ctx: &XdpContext) -> bool {
    settings::is_replay() || stream_awaits(ctx.ctx) == 1
}

/// A global function, as [`stream_judge`]. Returns 1 or 0.
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

/// A SYN begins nothing by itself, for anyone can send one; the answer to one that the PBX sent may. A function of its own for the stack's
/// sake.
#[inline(never)]
fn opening(packet: &mut Packet) -> Reason {
    match opened(packet) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn opened(packet: &mut Packet) -> Result<Reason, Reason> {
    if packet.has(ACK) {
        return handshake::answered(packet);
    }
    if packet.side != port::OWN {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    if settings::is_replay() {
        handshake::note_unanswered(packet);
    }
    Ok(Reason::TcpControl)
}

/// The flow of a connection that has none yet. `Err` when it is to have none.
#[inline(always)]
fn found(ctx: *mut xdp_md, packet: &mut Packet) -> Result<*mut Flow, Reason> {
    if packet.side == port::PEER && packet.data_len != 0 && handshake::is_early(packet) {
        return Err(Reason::EarlyAnswer);
    }
    if packet.side != port::OWN {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    find::flow(ctx, packet)?;
    flow::lookup(&packet.key).ok_or(Reason::Internal)
}

/// The segment of a flow that is locked.
#[inline(always)]
fn of_flow(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<Reason, Reason> {
    if flow.offer != 0 {
        handshake::completes(packet, flow)?;
        if flow.offer == 0 {
            find::note_local(ctx, packet, flow);
        }
    }
    if flow.ended == FLOW_ENDED {
        find::anew(ctx, packet, flow)?;
    }
    if flow.state == flow_state::OTHER || flow.state == flow_state::SILENT {
        return Err(Reason::NotGuarded);
    }
    acceptable::check(ctx, packet, flow)?;
    rate::segment(settings::get()?)?;
    if packet.data_len == 0 {
        flow::note_fin(packet, flow);
        return Ok(Reason::TcpControl);
    }
    let reason = judge::payload(&XdpContext::new(ctx), packet, flow)?;
    flow::note_fin(packet, flow);
    Ok(reason)
}
