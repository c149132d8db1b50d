//! The payload of a segment of a flow: what of it is new goes through the framer, in order.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{Flow, Settings, flow_flags, flow_state};
use sipguard_common::{Class, Reason};

use super::adopt::{self, Beginning};
use super::retransmission::{self, Compared};
use super::socket::{self, Socket};
use super::{acceptable, find, flow};
use crate::admit::{policy, rate};
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;
use crate::message::{checksum, sip};

/// How long a connection that the PBX's own segments told of may go on unjudged until a message begins, in nanoseconds.
const ADOPTION_NS: u64 = 60_000_000_000;

/// Judges it.
#[inline(always)]
pub fn payload(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<Reason, Reason> {
    new_bytes(ctx, packet, flow)?;
    let hashed = validate(ctx, packet, flow).map_err(|reason| refuse(packet, flow, reason))?;
    flow::advance(packet, flow, hashed);
    acceptable::note(packet, flow);
    Ok(if flow.flags & flow_flags::TLS != 0 { Reason::Tls } else { Reason::Valid })
}

/// Finds what is new of the segment, after what is old was compared: `new_at` and `new_len` of the packet.
#[inline(always)]
fn new_bytes(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let ahead = packet.seq.wrapping_sub(flow.next).cast_signed() > 0;
    if flow.state == flow_state::CUT {
        after_the_cut(ctx.ctx, packet, flow)?;
    } else if ahead && !moved(ctx.ctx, packet, flow) {
        return Err(Reason::SequenceGap);
    }
    if flow.state == flow_state::LOST {
        go_back(packet, flow);
    }
    let mut old = flow::old_bytes(packet, flow);
    if old > 0 {
        match retransmission::compare(ctx.ctx, packet, flow, old) {
            Compared::Harmless => {}
            Compared::Moved if moved(ctx.ctx, packet, flow) => old = flow::old_bytes(packet, flow),
            Compared::OutOfStep => return Err(Reason::OutOfStep),
            _ => return Err(Reason::Conflict),
        }
    }
    let new = packet.data_len - old;
    if new == 0 {
        return Err(Reason::Retransmission);
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = new;
    if flow.state == flow_state::LOST {
        find_again(ctx.ctx, packet, flow)?;
    }
    Ok(())
}

/// What passed unjudged and was not acknowledged is not old: there is nothing to compare it with, and the receiver may not have it.
#[inline(always)]
fn go_back(packet: &Packet, flow: &mut Flow) {
    let begun = packet.seq.wrapping_sub(flow.acked).cast_signed() < 0;
    let place = if begun { flow.acked } else { packet.seq };
    if flow.heard != 0 && place.wrapping_sub(flow.next).cast_signed() < 0 {
        flow.next = place;
    }
}

/// Whether the receiver is elsewhere than the flow: it has more bytes than were followed, or the kernel has another connection of the same
/// ports. The flow then goes on where the receiver is. A function of its own for the stack's sake, as those below.
#[inline(never)]
fn moved(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> bool {
    let mut socket = Socket::NONE;
    socket::ask(ctx, packet, &mut socket);
    let (next, known, another) = if socket.known {
        (socket.rcv_nxt, true, socket.fresh && socket.rcv_nxt != flow.first)
    } else {
        (flow.acked, flow.heard != 0 && flow.flags & flow_flags::FINISHED == 0, false)
    };
    let ahead = next.wrapping_sub(flow.next).cast_signed() > 0 && flow.state != flow_state::CUT;
    if !known || !another && !ahead || packet.seq.wrapping_sub(next).cast_signed() > 0 {
        return false;
    }
    flow.flags &= flow_flags::TLS | flow_flags::ADOPTED;
    flow.state = if another { flow_state::FOLLOWED } else { flow_state::LOST };
    flow::start(flow, next, another);
    packet.expected = flow.next;
    true
}

/// What comes on a connection whose stream was refused. Its reset may have been lost, or not have been where the kernel expected
/// it; so there is one for every segment, until the kernel has no such connection. `Ok` is a new connection of the same ports.
#[inline(never)]
fn after_the_cut(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    if moved(ctx, packet, flow) {
        return Ok(());
    }
    let mut socket = Socket::NONE;
    socket::ask(ctx, packet, &mut socket);
    if socket.connected {
        flow.flags |= flow_flags::LOCAL;
    } else if flow.flags & flow_flags::LOCAL != 0 {
        return Err(Reason::NoConnection);
    }
    if socket.known {
        packet.expected = socket.rcv_nxt;
    } else if flow.heard != 0 {
        packet.expected = flow.acked;
    }
    Err(Reason::from_number(flow.reason).unwrap_or(Reason::Internal))
}

/// Looks for the place in the stream of a flow that lost it. `Err` is the reason when it is not here.
#[inline(never)]
fn find_again(ctx: *mut xdp_md, packet: &Packet, flow: &mut Flow) -> Result<(), Reason> {
    let beginning = adopt::beginning_of(&XdpContext::new(ctx), packet);
    let tls = flow.flags & flow_flags::TLS != 0;
    if beginning == Beginning::Message {
        flow.state = flow_state::FOLLOWED;
        flow::start(flow, flow.next, false);
        flow.flags |= flow_flags::GUESSED;
        return Ok(());
    }
    if flow.flags & (flow_flags::ADOPTED | flow_flags::LOCAL) == flow_flags::ADOPTED {
        find::note_local(ctx, packet, flow);
    }
    let settings = settings::get()?;
    let excused = tls
        || beginning != Beginning::Other
        || policy::is_monitored()
        || settings::now_ns() < settings.grace_until_ns
        || is_adopted_just_now(flow);
    if !excused {
        return Err(Reason::UnknownStream);
    }
    flow.next = flow.next.wrapping_add(packet.new_len);
    Err(Reason::MidStream)
}

/// Whether a connection that is not this host's own was told of by the PBX just now.
#[inline(always)]
pub fn is_adopted_just_now(flow: &Flow) -> bool {
    flow.flags & (flow_flags::ADOPTED | flow_flags::LOCAL) == flow_flags::ADOPTED
        && settings::now_ns().wrapping_sub(flow.first_ns) < ADOPTION_NS
}

/// Takes the new bytes through the framer. `Ok` is how many of them the hash in the scratch space stands for.
#[inline(always)]
fn validate(ctx: &XdpContext, packet: &Packet, flow: &mut Flow) -> Result<u32, Reason> {
    if flow.stream.is_within_message() {
        flow::check_pace(flow)?;
    }
    if flow.stream.skip(packet.new_len) {
        return Ok(0);
    }
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *scratch::get()? };
    flow::copy(&flow.stream, &mut scratch.stream);
    if let Err(reason) = sip::validate(ctx) {
        if reason.is_malformed() && checksum::is_wrong(ctx) {
            return Err(Reason::BadChecksum);
        }
        return Err(reason);
    }
    let messages = flow.stream.messages;
    let more = scratch.stream.messages.wrapping_sub(messages);
    rate::messages(&scratch.stream, more)?;
    if more != 0 {
        flow.flags &= !flow_flags::GUESSED;
        rate::trust(more);
    }
    flow::copy(&scratch.stream, &mut flow.stream);
    flow::note_pace(flow, messages);
    let cursor = &mut scratch.walk.cursor;
    if cursor.gap != 0 {
        sip::hash(ctx, packet.new_at, packet.new_len)?;
        return Ok(packet.new_len);
    }
    Ok(if cursor.hashed < packet.new_len { cursor.hashed } else { packet.new_len })
}

/// Ends the judgement of a stream, as the settings say.
#[inline(always)]
fn refuse(packet: &mut Packet, flow: &mut Flow, reason: Reason) -> Reason {
    let Ok(settings) = settings::get() else { return reason };
    if flow.state == flow_state::EXPECTED && reason.class() != Class::Drop {
        // It may be no SIP at all: what the PBX says will tell.
        return Reason::EarlyAnswer;
    }
    if reason.is_malformed() {
        rate::distrust();
        if flow.flags & (flow_flags::STRUCK | flow_flags::GUESSED) == 0 {
            flow.flags |= flow_flags::STRUCK;
            packet.strikes = 1;
        }
    }
    if reason.class() == Class::Drop {
        // Damaged, or over a limit: the sender's TCP repeats it.
    } else if reason.number() == Reason::Internal.number() {
        // The guard failed, not the stream: what follows passes, counted for the same reason.
        flow.state = flow_state::CUT;
        flow.reason = reason.number();
    } else if is_wrong_guess(flow, settings) {
        flow.flags &= !flow_flags::GUESSED;
        flow.state = flow_state::LOST;
        flow.next = packet.seq.wrapping_add(packet.data_len);
        return Reason::MidStream;
    } else if policy::is_monitored() {
        // The framer finds its way back at the next beginning.
        flow.state = flow_state::LOST;
        flow.next = packet.seq.wrapping_add(packet.data_len);
    } else {
        flow.state = flow_state::CUT;
        flow.reason = reason.number();
    }
    reason
}

/// Whether what looked like a beginning was none: `ISTER sip:` is the rest of a REGISTER. What could pass anyway, as the middle
/// of a stream, then does.
#[inline(always)]
fn is_wrong_guess(flow: &Flow, settings: &Settings) -> bool {
    flow.flags & flow_flags::GUESSED != 0
        && (flow.flags & flow_flags::TLS != 0
            || settings::now_ns() < settings.grace_until_ns
            || is_adopted_just_now(flow))
}
