//! TCP connections: is this exactly the next byte?
//!
//! The rule: every payload byte that reaches the kernel was validated in order exactly once, or is the same as one that was,
//! or is one that the kernel already has and throws away.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{FLOW_SEGMENTS, Flow, Segment as Record, Settings, flow_flags};
use sipguard_common::framer::Stream;
use sipguard_common::{Class, Reason};

use crate::adopt::{self, Beginning};
use crate::handshake;
use crate::retransmission::{self, Compared};
use crate::scratch::{self, Key, Packet};
use crate::tcp::{RST, SYN};
use crate::{checksum, policy, rate, settings, sip, socket};

#[map]
static FLOWS: LruHashMap<Key, Flow> = LruHashMap::with_max_entries(1 << 16, 0);

/// The flow of a key.
#[inline(always)]
pub fn lookup(key: &Key) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(key)
}

/// Judges the segment in [`scratch::packet`].
#[inline(always)]
pub fn judge(ctx: &XdpContext) -> Result<Reason, Reason> {
    let packet = scratch::packet()?;
    if packet.has(SYN | RST) || packet.data_len == 0 {
        if packet.has(SYN) {
            handshake::note(packet);
        }
        return Ok(Reason::TcpControl);
    }
    Reason::from_number(flow_judge(ctx.ctx) as u8).ok_or(Reason::Internal)
}

/// A global function: the verifier looks at it once, for any packet. Returns a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_judge(ctx: *mut xdp_md) -> u32 {
    match scratch::packet().and_then(|packet| follow(&XdpContext::new(ctx), packet)) {
        Ok(reason) | Err(reason) => u32::from(reason.number()),
    }
}

#[inline(always)]
fn follow(ctx: &XdpContext, packet: &mut Packet) -> Result<Reason, Reason> {
    let flow = match lookup(&packet.key) {
        Some(flow) => flow,
        None => {
            if let Some(reason) = open(ctx.ctx, packet) {
                return Err(reason);
            }
            lookup(&packet.key).ok_or(Reason::Internal)?
        }
    };
    // SAFETY: a live map value. A connection's segments come in by one queue, so one CPU at a time is here for it.
    let flow = unsafe { &mut *flow };
    packet.expected = flow.next;
    new_bytes(ctx, packet, flow)?;
    let hashed = validate(ctx, packet, flow).map_err(|reason| refuse(packet, flow, reason))?;
    advance(packet, flow, hashed);
    Ok(if flow.flags & flow_flags::TLS != 0 { Reason::Tls } else { Reason::Valid })
}

/// Finds what is new of the segment, after what is old was compared: `new_at` and `new_len` of the packet.
#[inline(always)]
fn new_bytes(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let ahead = packet.seq.wrapping_sub(flow.next).cast_signed() > 0;
    if flow.flags & flow_flags::CUT != 0 {
        if let Some(reason) = after_the_cut(ctx.ctx, packet, flow) {
            return Err(reason);
        }
    } else if ahead && !restarted(ctx.ctx, packet, flow) {
        return Err(Reason::SequenceGap);
    }
    let mut old = old_bytes(packet, flow);
    if old > 0 {
        match retransmission::compare(ctx.ctx, packet, flow, old) {
            Compared::Harmless => {}
            Compared::Earlier if restarted(ctx.ctx, packet, flow) => old = old_bytes(packet, flow),
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
    if flow.flags & flow_flags::LOST != 0
        && let Some(reason) = find_again(ctx.ctx, packet, flow)
    {
        return Err(reason);
    }
    Ok(())
}

/// How many bytes of the segment lie before the next one of the flow.
#[inline(always)]
fn old_bytes(packet: &Packet, flow: &Flow) -> u32 {
    let distance = flow.next.wrapping_sub(packet.seq);
    if distance < packet.data_len { distance } else { packet.data_len }
}

/// Whether the kernel says that the flow is of an earlier connection of the same ports, or that it is ahead of what was followed;
/// the flow then starts anew where the kernel is. A function of its own for the stack's sake, as those below.
#[inline(never)]
fn restarted(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> bool {
    let socket = socket::ask(&XdpContext::new(ctx), packet);
    if !socket.known {
        let begins = !socket.connected && handshake::begins(packet);
        if begins {
            flow.flags &= flow_flags::TLS;
            start(flow, packet.seq, true);
            packet.expected = flow.next;
            handshake::forget(&packet.key);
        }
        return begins;
    }
    let another = socket.fresh && socket.rcv_nxt != flow.first;
    let ahead = socket.rcv_nxt.wrapping_sub(flow.next).cast_signed() > 0 && flow.flags & flow_flags::CUT == 0;
    if !another && !ahead || packet.seq.wrapping_sub(socket.rcv_nxt).cast_signed() > 0 {
        return false;
    }
    let tls = flow.flags & flow_flags::TLS;
    flow.flags = if another { tls } else { tls | flow_flags::LOST };
    start(flow, socket.rcv_nxt, another);
    packet.expected = flow.next;
    true
}

/// What comes on a connection whose stream was refused. Its reset may have been lost, or not have been where the kernel expected
/// it; so there is one for every segment, until the kernel has no such connection. `None` is a new connection of the same ports.
#[inline(never)]
fn after_the_cut(ctx: *mut xdp_md, packet: &mut Packet, flow: &mut Flow) -> Option<Reason> {
    if restarted(ctx, packet, flow) {
        return None;
    }
    let socket = socket::ask(&XdpContext::new(ctx), packet);
    if socket.local || !socket.connected && !handshake::are_noted() {
        return Some(Reason::NoConnection);
    }
    if socket.known {
        packet.expected = socket.rcv_nxt;
    }
    Some(Reason::from_number(flow.reason).unwrap_or(Reason::Internal))
}

/// Sets a flow to a place in the sequence; `known` when it is the beginning of the stream.
#[inline(always)]
fn start(flow: &mut Flow, next: u32, known: bool) {
    flow.next = next;
    flow.first = next;
    flow.conflicts = 0;
    flow.message_segments = 0;
    for record in &mut flow.segments {
        record.len = 0;
    }
    flow.stream.phase = Stream::NEW.phase;
    if flow.flags & flow_flags::TLS != 0 {
        flow.stream.begin_tls(known);
    }
}

/// Opens a flow for the first payload seen of a connection. `Some` is the reason why there is none.
#[inline(never)]
fn open(ctx: *mut xdp_md, packet: &mut Packet) -> Option<Reason> {
    open_at(&XdpContext::new(ctx), packet).err()
}

#[inline(always)]
fn open_at(ctx: &XdpContext, packet: &mut Packet) -> Result<(), Reason> {
    let place = handshake::place(ctx, packet)?;
    packet.expected = place.next;
    if packet.seq.wrapping_sub(place.next).cast_signed() > 0 {
        return Err(Reason::SequenceGap);
    }
    let old = place.next.wrapping_sub(packet.seq);
    if place.noted && old > 0 {
        // Nothing comes before the first byte; the handshake was another's.
        return Err(Reason::SequenceGap);
    }
    if old >= packet.data_len {
        // The kernel has it all.
        return Err(Reason::Retransmission);
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = packet.data_len - old;
    let settings = settings::get()?;
    let refused = !place.fresh && !is_excused(ctx, packet, settings);
    if refused && !policy::is_monitored() {
        return Err(Reason::UnknownStream);
    }
    // SAFETY: `new_flow` is never written, so it is all zeros: a stream before its first byte.
    unsafe { FLOWS.insert(&packet.key, &(*scratch::get()?).new_flow, 0) }.map_err(|_| Reason::Internal)?;
    handshake::forget(&packet.key);
    let flow = lookup(&packet.key).ok_or(Reason::Internal)?;
    // SAFETY: a live map value.
    unsafe {
        (*flow).first_ns = settings::now_ns();
        let tls = if packet.transport == scratch::TLS { flow_flags::TLS } else { 0 };
        (*flow).flags = if place.fresh { tls } else { tls | flow_flags::LOST };
        start(&mut *flow, place.next, place.fresh);
        if refused {
            // Monitor mode: counted once as what it is, and followed from here on.
            (*flow).next = packet.seq.wrapping_add(packet.data_len);
            return Err(Reason::UnknownStream);
        }
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

/// Looks for the place in the stream of a flow that lost it. `Some` is the reason when it is not here.
#[inline(never)]
fn find_again(ctx: *mut xdp_md, packet: &Packet, flow: &mut Flow) -> Option<Reason> {
    let beginning = adopt::beginning_of(&XdpContext::new(ctx), packet);
    let tls = flow.flags & flow_flags::TLS != 0;
    if beginning == Beginning::Message {
        flow.flags &= !flow_flags::LOST;
        start(flow, flow.next, false);
        flow.flags |= flow_flags::GUESSED;
        return None;
    }
    let Ok(settings) = settings::get() else { return Some(Reason::Internal) };
    let excused = tls
        || beginning != Beginning::Other
        || policy::is_monitored()
        || settings::now_ns() < settings.grace_until_ns;
    if !excused {
        return Some(Reason::UnknownStream);
    }
    flow.next = flow.next.wrapping_add(packet.new_len);
    Some(Reason::MidStream)
}

/// Takes the new bytes through the framer. `Ok` is how many of them the hash in the scratch space stands for.
#[inline(always)]
fn validate(ctx: &XdpContext, packet: &Packet, flow: &mut Flow) -> Result<u32, Reason> {
    if flow.stream.is_within_message() {
        check_pace(flow)?;
    }
    if flow.stream.skip(packet.new_len) {
        return Ok(0);
    }
    // SAFETY: this CPU's map value.
    let scratch = unsafe { &mut *scratch::get()? };
    copy(&flow.stream, &mut scratch.stream);
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
        if !handshake::are_noted() {
            rate::trust(more);
        }
    }
    copy(&scratch.stream, &mut flow.stream);
    note_pace(flow, messages);
    let cursor = &mut scratch.walk.cursor;
    if cursor.gap != 0 {
        sip::hash(ctx, packet.new_at, packet.new_len)?;
        return Ok(packet.new_len);
    }
    Ok(if cursor.hashed < packet.new_len { cursor.hashed } else { packet.new_len })
}

/// Copies what counts, word by word: an assignment would go over the stack.
#[inline(always)]
pub fn copy(from: &Stream, to: &mut Stream) {
    let words = from.words();
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), core::ptr::from_mut(to).cast::<u64>());
    // SAFETY: both are streams, whose words these are.
    let word = |k: usize| unsafe { to.add(k).write_volatile(from.add(k).read()) };
    (0..Stream::FEWEST_WORDS).for_each(word);
    if words > Stream::FEWEST_WORDS {
        (Stream::FEWEST_WORDS..Stream::WORDS).for_each(word);
    }
}

/// A message that goes on for longer, or in more segments, than the limits allow.
#[inline(always)]
fn check_pace(flow: &Flow) -> Result<(), Reason> {
    let limits = policy::limits()?;
    let late = limits.message_ms != 0
        && settings::now_ns().wrapping_sub(flow.message_ns) > u64::from(limits.message_ms) * 1_000_000;
    let many = limits.message_segments != 0 && flow.message_segments >= limits.message_segments;
    if late || many { Err(Reason::SlowMessage) } else { Ok(()) }
}

/// Takes note of a message that is not complete yet; `before` messages were when the segment came.
#[inline(always)]
fn note_pace(flow: &mut Flow, before: u32) {
    if !flow.stream.is_within_message() {
        flow.message_segments = 0;
    } else if flow.message_segments == 0 || flow.stream.messages != before {
        flow.message_segments = 1;
        flow.message_ns = settings::now_ns();
    } else {
        flow.message_segments += 1;
    }
}

/// Takes the validated bytes into account.
#[inline(always)]
fn advance(packet: &Packet, flow: &mut Flow, hashed: u32) {
    let hash = match scratch::get() {
        // SAFETY: this CPU's map value.
        Ok(scratch) => unsafe { (*scratch).walk.cursor.hash },
        Err(_) => 0,
    };
    let record = Record { seq: flow.next, len: packet.new_len as u16, hashed: hashed as u16, hash };
    flow.segments[usize::from(flow.segment_at) % FLOW_SEGMENTS] = record;
    flow.segment_at = flow.segment_at.wrapping_add(1);
    flow.next = flow.next.wrapping_add(packet.new_len);
    flow.conflicts = 0;
}

/// Ends the judgement of a stream, as the settings say.
#[inline(always)]
fn refuse(packet: &mut Packet, flow: &mut Flow, reason: Reason) -> Reason {
    let Ok(settings) = settings::get() else { return reason };
    if reason.is_malformed() {
        rate::distrust();
        if flow.flags & (flow_flags::STRUCK | flow_flags::LOST | flow_flags::GUESSED) == 0 {
            flow.flags |= flow_flags::STRUCK;
            packet.strikes = 1;
        }
    }
    if reason.class() == Class::Drop {
        // Damaged, or over a limit: the sender's TCP repeats it.
    } else if reason.number() == Reason::Internal.number() {
        // The guard failed, not the stream: what follows passes, counted for the same reason.
        flow.flags |= flow_flags::CUT;
        flow.reason = reason.number();
    } else if is_wrong_guess(flow, settings) {
        flow.flags = flow.flags & !flow_flags::GUESSED | flow_flags::LOST;
        flow.next = packet.seq.wrapping_add(packet.data_len);
        return Reason::MidStream;
    } else if policy::is_monitored() {
        // The framer finds its way back at the next beginning.
        flow.flags |= flow_flags::LOST;
        flow.next = packet.seq.wrapping_add(packet.data_len);
    } else {
        flow.flags |= flow_flags::CUT;
        flow.reason = reason.number();
    }
    reason
}

/// Whether what looked like a beginning was none: `ISTER sip:` is the rest of a REGISTER. What could pass anyway, as the middle
/// of a stream, then does.
#[inline(always)]
fn is_wrong_guess(flow: &Flow, settings: &Settings) -> bool {
    flow.flags & flow_flags::GUESSED != 0
        && (flow.flags & flow_flags::TLS != 0 || settings::now_ns() < settings.grace_until_ns)
}
