//! Creates the flow of a connection that has none: from a handshake, or from the kernel's socket.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, FlowState, Settings, flow_flags};
use sipguard_common::wire::tcp::RST;

use super::pickup::{self, PayloadStart};
use super::socket::{self, Socket};
use super::{client, flow, handshake};
use crate::admit::{policy, rate};
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;

/// Creates a flow. `Err` is the reason why there is none.
// own frame: 40 bytes
#[inline(never)]
pub fn flow(ctx: *mut xdp_md, packet: &mut Packet) -> Result<(), Reason> {
    if packet.has(RST) {
        return Err(Reason::TcpControl);
    }
    if let Some(begun) = handshake::begin(packet)? {
        // SAFETY: a live map value; setting the bit late or twice is harmless.
        record_local(ctx, packet, unsafe { &mut *begun });
        return Ok(());
    }
    let position = position(ctx, packet)?;
    let refused = refused(ctx, packet, &position)?;
    let begun = flow::insert(packet)?;
    // SAFETY: a live map value, locked before it is changed.
    let begun = unsafe { &mut *begun };
    let token = flow::lock(begun).ok_or(Reason::FlowBusy)?;
    let outcome = settle(packet, begun, &position, refused);
    flow::unlock(begun, token);
    outcome
}

/// Resets a flow whose connection has ended, for a new connection of the same ports. `Err` is the reason when the kernel has none.
// own frame: 72 bytes
#[inline(never)]
pub fn anew(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let position = position(ctx, packet)?;
    let refused = refused(ctx, packet, &position)?;
    settle(packet, flow, &position, refused)
}

/// Records whether the connection is this host's own: whether there is a socket.
// own frame: 16 bytes
#[inline(never)]
pub fn record_local(ctx: *mut xdp_md, packet: &Packet, flow: &mut Flow) {
    let mut socket = Socket::NONE;
    socket::lookup(ctx, packet, &mut socket);
    if socket.connected || socket.cookie {
        flow.flags |= flow_flags::LOCAL;
    }
}

/// A position in a stream.
struct StreamPosition {
    /// Sequence number of the next byte.
    next: u32,
    /// Whether that is the first byte of the stream.
    fresh: bool,
}

/// The position that the kernel's socket is at. `Err` is [`Reason::NoConnection`] when there is no socket.
#[inline(always)]
fn position(ctx: *mut xdp_md, packet: &Packet) -> Result<StreamPosition, Reason> {
    if packet.data_len == 0 {
        return Err(Reason::TcpControl);
    }
    let mut socket = Socket::NONE;
    socket::lookup(ctx, packet, &mut socket);
    if socket.cookie {
        return Ok(StreamPosition { next: packet.seq, fresh: true });
    }
    if socket.has_position {
        return Ok(StreamPosition { next: socket.rcv_nxt, fresh: socket.fresh });
    }
    if socket.connected {
        Ok(StreamPosition { next: packet.seq, fresh: false })
    } else {
        Err(Reason::NoConnection)
    }
}

/// Finds the new bytes of the packet at a position. `Ok` is whether they are refused as the middle of a message.
#[inline(always)]
fn refused(ctx: *mut xdp_md, packet: &mut Packet, position: &StreamPosition) -> Result<bool, Reason> {
    packet.expected = position.next;
    if packet.seq.wrapping_sub(position.next).cast_signed() > 0 {
        return Err(Reason::SequenceGap);
    }
    let old = position.next.wrapping_sub(packet.seq);
    if old >= packet.data_len {
        // The kernel has all of it.
        return Err(Reason::Retransmission);
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = packet.data_len - old;
    let settings = settings::get()?;
    if position.fresh {
        rate::connection(settings)?;
        return Ok(false);
    }
    let refused = !may_continue(&XdpContext::new(ctx), packet, settings);
    if refused && !policy::is_monitored() {
        return Err(Reason::UnknownStream);
    }
    Ok(refused)
}

/// Sets a flow to a position.
#[inline(always)]
fn settle(packet: &Packet, flow: &mut Flow, position: &StreamPosition, refused: bool) -> Result<(), Reason> {
    flow.pending_handshake = 0;
    flow.current_handshake = 0;
    flow.ended = 0;
    flow.egress_known = 0;
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.flags = flow_flags::LOCAL | client::flags(packet);
    flow.state = (if position.fresh { FlowState::InSync } else { FlowState::Desynchronised }) as u32;
    flow::start(flow, position.next, position.fresh);
    if refused {
        // Monitor mode: counted once, and tracked from here on.
        flow.next = packet.seq.wrapping_add(packet.data_len);
        return Err(Reason::UnknownStream);
    }
    Ok(())
}

/// Whether a stream whose position is unknown may continue: at a sync point, or within the grace time. On a TLS port always, because the
/// content of records is not inspected anyway.
#[inline(always)]
fn may_continue(ctx: &XdpContext, packet: &Packet, settings: &Settings) -> bool {
    packet.transport == scratch::TLS
        || pickup::payload_start(ctx, packet) != PayloadStart::Other
        || settings::now_ns() < settings.grace_until_ns
}
