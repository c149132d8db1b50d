//! The payload of a segment of a flow: the framer validates the new bytes, in order.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{Flow, FlowState, Settings, flow_flags};
use sipguard_common::framer::{Cursor, Stream};
use sipguard_common::{Class, Reason};

use super::pickup::{self, PayloadStart};
use super::retransmission::{self, Compared};
use super::socket::{self, Socket};
use super::{acceptable, client, find, flow, segments};
use crate::admit::{checks, policy, rate, unfinished};
use crate::cpu::scratch::{self, Packet};
use crate::cpu::settings;
use crate::message::{checksum, sip};

/// How long a connection that was picked up mid-stream may continue unvalidated until a sync point, in nanoseconds.
const PICKUP_NS: u64 = 60_000_000_000;

/// Decides about the payload.
#[inline(always)]
pub fn decide(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<Reason, Reason> {
    new_bytes(ctx, packet, flow)?;
    let before = flow.stream.place();
    let hash = validate(ctx, packet, flow).map_err(|reason| refuse(packet, flow, reason))?;
    segments::advance(packet, flow, hash, before);
    acceptable::record(packet, flow);
    Ok(if flow.flags & flow_flags::TLS != 0 { Reason::Tls } else { Reason::Valid })
}

/// Compares the old bytes of the segment, and finds the new ones: `new_at` and `new_len` of the packet.
#[inline(always)]
fn new_bytes(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let ahead = packet.seq.wrapping_sub(flow.next).cast_signed() > 0;
    if flow.is(FlowState::Rejected) {
        after_rejection(ctx.ctx, packet, flow)?;
    } else if ahead && !moved(ctx.ctx, packet, flow) {
        return Err(Reason::SequenceGap);
    }
    if flow.is(FlowState::Desynchronised) {
        go_back(packet, flow);
    }
    let mut old = flow::old_bytes(packet, flow);
    if old > 0 {
        match retransmission::judge(ctx, packet, flow, old)? {
            Compared::Harmless => {}
            Compared::Moved if moved(ctx.ctx, packet, flow) => old = flow::old_bytes(packet, flow),
            Compared::Moved => return Err(Reason::Conflict),
        }
    }
    let new = packet.data_len - old;
    if new == 0 {
        acceptable::renew(packet, flow);
        return Err(Reason::Retransmission);
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = new;
    if flow.is(FlowState::Desynchronised) {
        resynchronise(ctx.ctx, packet, flow)?;
    }
    Ok(())
}

/// Moves a desynchronised flow back to the last acknowledged byte. Bytes behind that passed unvalidated: there is no hash to compare them with,
/// and the receiver may not have them.
#[inline(always)]
fn go_back(packet: &Packet, flow: &mut Flow) {
    let begun = packet.seq.wrapping_sub(flow.acked).cast_signed() < 0;
    let position = if begun { flow.acked } else { packet.seq };
    if flow.egress_known != 0 && position.wrapping_sub(flow.next).cast_signed() < 0 {
        flow.next = position;
    }
}

/// Moves the flow to the receiver's position if that differs: the receiver has more bytes than were tracked, or the kernel has another
/// connection of the same ports. Returns whether it moved.
// own frame: 16 bytes
#[inline(never)]
fn moved(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> bool {
    let mut socket = Socket::NONE;
    socket::lookup(ctx, packet, &mut socket);
    let (next, known, another) = if socket.has_position {
        (socket.rcv_nxt, true, socket.fresh && socket.rcv_nxt != flow.first)
    } else {
        (flow.acked, flow.egress_known != 0 && flow.flags & flow_flags::FIN_SEEN == 0, false)
    };
    let ahead = next.wrapping_sub(flow.next).cast_signed() > 0 && !flow.is(FlowState::Rejected);
    if !known || !another && !ahead || packet.seq.wrapping_sub(next).cast_signed() > 0 {
        return false;
    }
    let kept = if another { 0 } else { flow_flags::CLIENT | flow_flags::FRAMING_LOST };
    flow.flags &= flow_flags::TLS | flow_flags::PICKED_UP | flow_flags::PROXY | kept;
    flow.state = (if another { FlowState::InSync } else { FlowState::Desynchronised }) as u32;
    flow::start(flow, next, another);
    packet.expected = flow.next;
    true
}

/// A segment of a connection whose stream was rejected. Its reset may have been lost, or have had a sequence number that the kernel did not
/// expect. So every segment is reset until the kernel has no such connection. `Ok` is a new connection of the same ports.
// own frame: 16 bytes
#[inline(never)]
pub fn after_rejection(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    if moved(ctx, packet, flow) {
        return Ok(());
    }
    let mut socket = Socket::NONE;
    socket::lookup(ctx, packet, &mut socket);
    if socket.connected {
        flow.flags |= flow_flags::LOCAL;
    } else if flow.flags & flow_flags::LOCAL != 0 {
        return Err(Reason::NoConnection);
    }
    if socket.has_position {
        packet.expected = socket.rcv_nxt;
    } else if flow.egress_known != 0 {
        packet.expected = flow.acked;
    }
    if flow.flags & flow_flags::CLIENT != 0 {
        client::cut();
    }
    Err(Reason::from_number(flow.reason).unwrap_or(Reason::Internal))
}

/// Synchronises a desynchronised flow if the segment begins at a sync point. `Err` is the reason when it does not.
// own frame: 16 bytes
#[inline(never)]
fn resynchronise(ctx: *mut xdp_md, packet: &Packet, flow: &mut Flow) -> Result<(), Reason> {
    let start = pickup::payload_start(&XdpContext::new(ctx), packet);
    let tls = flow.flags & flow_flags::TLS != 0;
    if start == PayloadStart::Message {
        flow.state = FlowState::InSync as u32;
        flow::start(flow, flow.next, false);
        flow.flags |= flow_flags::TENTATIVE;
        return Ok(());
    }
    if flow.flags & (flow_flags::PICKED_UP | flow_flags::LOCAL) == flow_flags::PICKED_UP {
        find::record_local(ctx, packet, flow);
    }
    let settings = settings::get()?;
    let excused = tls
        || start != PayloadStart::Other
        || policy::is_monitored()
        || flow.flags & flow_flags::FRAMING_LOST != 0
        || settings::now_ns() < settings.grace_until_ns
        || is_recent_pickup(flow);
    if !excused {
        return Err(Reason::UnknownStream);
    }
    flow.next = flow.next.wrapping_add(packet.new_len);
    Err(Reason::MidStream)
}

/// Whether a connection of another host was picked up mid-stream just now.
#[inline(always)]
pub fn is_recent_pickup(flow: &Flow) -> bool {
    flow.flags & (flow_flags::PICKED_UP | flow_flags::LOCAL) == flow_flags::PICKED_UP
        && settings::now_ns().wrapping_sub(flow.first_ns) < PICKUP_NS
}

/// Runs the framer over the new bytes. `Ok` is their hash.
#[inline(always)]
fn validate(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<Hash, Reason> {
    if flow.stream.is_within_message() {
        flow::check_pace(flow)?;
    }
    if flow.stream.skip(packet.new_len) {
        return Ok(Hash { bytes: 0, hash: 0 });
    }
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *scratch::get()? };
    flow::copy(&flow.stream, &mut scratch.stream);
    let (at, len) = (packet.new_at, packet.new_len);
    let proxied = scratch.stream.is_proxy();
    if proxied {
        let header = client::header(ctx, flow)?;
        if header == len {
            check_sum(ctx, flow, &scratch.stream)?;
            flow::copy(&scratch.stream, &mut flow.stream);
            return Ok(Hash { bytes: len, hash: sip::hash(ctx, at, len)? });
        }
        (packet.new_at, packet.new_len) = (at + header, len - header);
    }
    let framed = sip::validate(ctx);
    (packet.new_at, packet.new_len) = (at, len);
    if let Err(reason) = framed {
        if reason.is_malformed() && checksum::is_wrong(ctx) {
            return Err(Reason::BadChecksum);
        }
        return Err(reason);
    }
    let hash = inspected(ctx, packet, proxied)?;
    check_sum(ctx, flow, &scratch.stream)?;
    let messages = flow.stream.messages;
    let more = scratch.stream.messages.wrapping_sub(messages);
    rate::messages(&scratch.stream, more)?;
    if more != 0 {
        flow.flags &= !flow_flags::TENTATIVE;
        rate::trust(more);
    }
    flow::copy(&scratch.stream, &mut flow.stream);
    flow::record_pace(flow, messages);
    unfinished::follow(packet, flow);
    Ok(hash)
}

/// A hash of the first bytes of a segment.
pub struct Hash {
    /// How many bytes it covers. The others are of a body, which is not inspected.
    pub bytes: u32,
    pub hash: u64,
}

/// The hash of the bytes that were inspected just now; `all` when that were others than the framer's too.
#[inline(always)]
pub fn inspected(ctx: &XdpContext, packet: &Packet, all: bool) -> Result<Hash, Reason> {
    // SAFETY: this CPU's map value.
    let Cursor { gap, hash, hashed, .. } = unsafe { (*scratch::get()?).payload.cursor };
    if gap != 0 || all {
        let hash = sip::hash(ctx, packet.new_at, packet.new_len)?;
        return Ok(Hash { bytes: packet.new_len, hash });
    }
    Ok(Hash { bytes: if hashed < packet.new_len { hashed } else { packet.new_len }, hash })
}

/// Segments in a row that are dropped for a wrong checksum though they are well-formed. What comes more often was not damaged, and the kernel decides.
const DAMAGED: u8 = 3;

/// Drops a segment that was damaged on its way, where its copy could not be judged again: it begins or ends in a header section, or ends in a
/// body, the length of which may be wrong. Elsewhere [`retransmission::judge`] judges the copy.
#[inline(always)]
fn check_sum(ctx: &XdpContext, flow: &mut Flow, behind: &Stream) -> Result<(), Reason> {
    let whole = flow.stream.place() != Stream::NO_PLACE && !behind.is_within_message();
    if whole || flow.conflicts >= DAMAGED || settings::is_replay() {
        return Ok(());
    }
    if checksum::is_wrong(ctx) {
        flow.conflicts += 1;
        return Err(Reason::BadChecksum);
    }
    Ok(())
}

/// Handles a stream that the framer refuses. Returns the reason with which this segment ends.
#[inline(always)]
fn refuse(packet: &mut Packet, flow: &mut Flow, reason: Reason) -> Reason {
    let Ok(settings) = settings::get() else { return reason };
    if flow.is(FlowState::AwaitingRequest) && reason.class() != Class::Drop {
        // The connection may not carry SIP at all: the PBX's first bytes will show.
        return Reason::EarlyAnswer;
    }
    let only_counts = checks::is_monitored(reason);
    if reason.is_malformed() && !only_counts {
        rate::distrust();
        if flow.flags & (flow_flags::VIOLATION | flow_flags::TENTATIVE) == 0 {
            flow.flags |= flow_flags::VIOLATION;
            packet.violations = 1;
        }
    }
    if reason.class() == Class::Drop && !client::is_cut() {
        // Damaged, or over a limit: the sender's TCP retransmits it.
        return reason;
    }
    unfinished::leave(flow);
    if reason.number() == Reason::Internal.number() {
        // An internal error: what follows passes with the same reason.
        flow.state = FlowState::Rejected as u32;
        flow.reason = reason.number();
    } else if is_failed_pickup(flow, settings) {
        flow.flags &= !flow_flags::TENTATIVE;
        flow.state = FlowState::Desynchronised as u32;
        flow.next = packet.seq.wrapping_add(packet.data_len);
        return Reason::MidStream;
    } else if only_counts || policy::is_monitored() {
        // The framer synchronises again at the next sync point.
        if only_counts {
            flow.flags |= flow_flags::FRAMING_LOST;
        }
        flow.state = FlowState::Desynchronised as u32;
        flow.next = packet.seq.wrapping_add(packet.data_len);
    } else {
        flow.state = FlowState::Rejected as u32;
        flow.reason = reason.number();
    }
    reason
}

/// Whether a tentative sync point was wrong: `ISTER sip:` is the rest of a REGISTER. A segment that could also pass as the middle of a stream
/// then does.
#[inline(always)]
fn is_failed_pickup(flow: &Flow, settings: &Settings) -> bool {
    flow.flags & flow_flags::TENTATIVE != 0
        && (flow.flags & (flow_flags::TLS | flow_flags::FRAMING_LOST) != 0
            || settings::now_ns() < settings.grace_until_ns
            || is_recent_pickup(flow))
}
