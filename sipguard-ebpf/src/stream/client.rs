//! Clients behind a balancer: the PROXY header of a connection says who they are. Rules, bans and limits are then theirs, and a rule that stops
//! them ends their connection, for the balancer's others have the same source.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{Flow, FlowState, flow_flags};
use sipguard_common::wire::tcp::RST;
use sipguard_common::{Class, Reason};

use super::{flow, payload};
use crate::admit::{policy, port, rate, unfinished};
use crate::cpu::scratch::{self, CUT, Packet};
use crate::cpu::settings;
use crate::message::{checksum, sip};

/// Flags of a connection's flow before its first byte.
// own frame: 0 bytes
#[inline(never)]
pub fn flags(packet: &Packet) -> u32 {
    let tls = if packet.transport == scratch::TLS { flow_flags::TLS } else { 0 };
    let trunk = scratch::trunk().ok().and_then(policy::trunk);
    // Where the PBX dialled, the balancer sends no header.
    let proxy = packet.side == port::OWN && trunk.is_some_and(|trunk| trunk.proxy_protocol != 0);
    if proxy { tls | flow_flags::PROXY } else { tls }
}

/// Whether this packet ends the connection of a client whatever its reason is.
#[inline(always)]
pub fn is_cut() -> bool {
    // SAFETY: this CPU's map value; one word.
    scratch::sender().is_ok_and(|sender| unsafe { (*sender).client } & CUT != 0)
}

/// Applies the rules about the client of a flow. `Some` ends the way of the packet.
// own frame: 32 bytes
#[inline(never)]
pub fn judged(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Option<Reason> {
    if is_another(packet, flow) {
        return policy::permit().err();
    }
    let reason = permit(flow).err()?;
    if packet.has(RST) {
        // The balancer's: it may end its own.
        return Some(Reason::TcpControl);
    }
    if !is_cut() {
        return Some(reason);
    }
    let Some(token) = flow::lock(flow) else { return Some(Reason::FlowBusy) };
    if !flow.is(FlowState::Rejected) {
        flow.state = FlowState::Rejected as u32;
        flow.reason = reason.number();
    }
    packet.expected = flow.next;
    let rejected = payload::after_rejection(ctx, packet, flow);
    flow::unlock(flow, token);
    Some(rejected.err().unwrap_or(reason))
}

/// Whether the packet may be of another connection of the same ports than that of the client.
#[inline(always)]
fn is_another(packet: &Packet, flow: &Flow) -> bool {
    flow.ended != 0 || flow.pending_handshake != 0 && packet.acknowledged == flow.pending_handshake as u32
}

/// Applies the rules about the client of a flow. What stops it ends its connection, if it is enforced.
// own frame: 0 bytes
#[inline(never)]
fn permit(flow: &Flow) -> Result<(), Reason> {
    let permitted = policy::permit_client(&flow.client, flow.client_port);
    if let Err(reason) = permitted
        && reason.class() != Class::Pass
        && !policy::is_monitored()
    {
        cut();
    }
    permitted
}

/// Makes this packet end the connection of a client.
#[inline(always)]
pub fn cut() {
    if let Ok(sender) = scratch::sender() {
        // SAFETY: this CPU's map value; one word.
        unsafe { (*sender).client |= CUT };
    }
}

/// Runs the parser over the new bytes of a connection that begins with a PROXY header. `Ok` is how many of them belong to it. Behind it the client is
/// the sender.
// own frame: 8 bytes
#[inline(never)]
pub fn header(ctx: &XdpContext, flow: &mut Flow) -> Result<u32, Reason> {
    let header = match sip::proxy_header(ctx) {
        Ok(header) => header,
        Err(_) if checksum::is_wrong(ctx) => return Err(Reason::BadChecksum),
        Err(reason) => return Err(reason),
    };
    // SAFETY: this CPU's map value.
    let stream = unsafe { &mut (*scratch::get()?).stream };
    if stream.is_proxy() {
        return Ok(header);
    }
    if let Some((client, port)) = stream.proxy_client() {
        if checksum::is_wrong(ctx) {
            return Err(Reason::BadChecksum);
        }
        flow.client = client;
        flow.client_port = u32::from(port.to_be());
        flow.flags |= flow_flags::CLIENT;
        if let Err(reason) = permit(flow)
            && is_cut()
        {
            return Err(reason);
        }
        let settings = settings::get()?;
        // SAFETY: this CPU's map value, which nothing changes once the client is permitted.
        unfinished::admit(unsafe { &*scratch::sender()? }, settings)?;
        rate::connection(settings)?;
    }
    stream.end_proxy();
    Ok(header)
}
