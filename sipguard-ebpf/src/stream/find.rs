//! The flow of a connection that has none: a handshake makes it, or the kernel's socket knows it.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{Flow, Settings, flow_flags, flow_state};

use super::adopt::{self, Beginning};
use super::socket::{self, Socket};
use super::{flow, handshake};
use crate::admit::{policy, rate};
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;
use crate::packet::tcp::RST;

/// Begins a flow. `Err` is the reason why there is none. A function of its own for the stack's sake.
#[inline(never)]
pub fn flow(ctx: *mut xdp_md, packet: &mut Packet) -> Result<(), Reason> {
    if packet.has(RST) {
        return Err(Reason::TcpControl);
    }
    if let Some(begun) = handshake::begin(packet)? {
        // SAFETY: a live map value; a bit that is noted too late or twice is no harm.
        note_local(ctx, packet, unsafe { &mut *begun });
        return Ok(());
    }
    let place = place(ctx, packet)?;
    let refused = refused(ctx, packet, &place)?;
    let begun = flow::insert(packet)?;
    // SAFETY: a live map value. Who else judges this connection now finds the same.
    let begun = unsafe { &mut *begun };
    let token = flow::lock(begun).ok_or(Reason::FlowBusy)?;
    let outcome = settle(packet, begun, &place, refused);
    flow::unlock(begun, token);
    outcome
}

/// The flow's connection has ended, and its ports may have come again. `Err` is the reason when the kernel knows of none. A function of
/// its own for the stack's sake.
#[inline(never)]
pub fn anew(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let place = place(ctx, packet)?;
    let refused = refused(ctx, packet, &place)?;
    settle(packet, flow, &place, refused)
}

/// Takes note of whether a connection is this host's own. A function of its own for the stack's sake.
#[inline(never)]
pub fn note_local(ctx: *mut xdp_md, packet: &Packet, flow: &mut Flow) {
    let mut socket = Socket::NONE;
    socket::ask(ctx, packet, &mut socket);
    if socket.connected || socket.cookie {
        flow.flags |= flow_flags::LOCAL;
    }
}

/// Where a stream is.
struct Place {
    /// Sequence number of the next byte.
    next: u32,
    /// Whether it is the stream's first.
    fresh: bool,
}

/// The place of a connection by the word of its socket.
///
/// # Errors
/// [`Reason::NoConnection`] when the kernel has none.
#[inline(always)]
fn place(ctx: *mut xdp_md, packet: &Packet) -> Result<Place, Reason> {
    if packet.data_len == 0 {
        return Err(Reason::TcpControl);
    }
    let mut socket = Socket::NONE;
    socket::ask(ctx, packet, &mut socket);
    if socket.cookie {
        return Ok(Place { next: packet.seq, fresh: true });
    }
    if socket.known {
        return Ok(Place { next: socket.rcv_nxt, fresh: socket.fresh });
    }
    if socket.connected { Ok(Place { next: packet.seq, fresh: false }) } else { Err(Reason::NoConnection) }
}

/// What is new of the packet at a place, and whether it is refused as the middle of a message.
#[inline(always)]
fn refused(ctx: *mut xdp_md, packet: &mut Packet, place: &Place) -> Result<bool, Reason> {
    packet.expected = place.next;
    if packet.seq.wrapping_sub(place.next).cast_signed() > 0 {
        return Err(Reason::SequenceGap);
    }
    let old = place.next.wrapping_sub(packet.seq);
    if old >= packet.data_len {
        // The kernel has it all.
        return Err(Reason::Retransmission);
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = packet.data_len - old;
    let settings = settings::get()?;
    if place.fresh {
        rate::connection(settings)?;
        return Ok(false);
    }
    let refused = !is_excused(&XdpContext::new(ctx), packet, settings);
    if refused && !policy::is_monitored() {
        return Err(Reason::UnknownStream);
    }
    Ok(refused)
}

/// Sets a flow to a place.
#[inline(always)]
fn settle(packet: &Packet, flow: &mut Flow, place: &Place, refused: bool) -> Result<(), Reason> {
    flow.offer = 0;
    flow.begun = 0;
    flow.ended = 0;
    flow.heard = 0;
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.flags = flow_flags::LOCAL | if packet.transport == scratch::TLS { flow_flags::TLS } else { 0 };
    flow.state = if place.fresh { flow_state::FOLLOWED } else { flow_state::LOST };
    flow::start(flow, place.next, place.fresh);
    if refused {
        // Monitor mode: counted once as what it is, and followed from here on.
        flow.next = packet.seq.wrapping_add(packet.data_len);
        return Err(Reason::UnknownStream);
    }
    Ok(())
}

/// Whether a stream whose place is not known may go on: it begins a message here, or there is grace. A TLS port has nothing to
/// hide in the middle of a record.
#[inline(always)]
fn is_excused(ctx: &XdpContext, packet: &Packet, settings: &Settings) -> bool {
    packet.transport == scratch::TLS
        || adopt::beginning_of(ctx, packet) != Beginning::Other
        || settings::now_ns() < settings.grace_until_ns
}
