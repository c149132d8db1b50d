//! TCP connections: is this exactly the next byte?
//!
//! The rule: every payload byte that reaches the kernel was validated in order exactly once, or is the same as one that was,
//! or is one that the kernel already has and throws away.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{
    ACTION_DROP, FLOW_SEGMENTS, Flow, MODE_MONITOR, Segment as Record, Settings, flow_flags,
};
use sipguard_common::framer::{Stream, leading_line_ends, plausible_start};

use crate::scratch::{self, Key, Packet};
use crate::tcp::{FIN, RST, SYN};
use crate::{bytes, settings, sip, socket};

#[map]
static FLOWS: LruHashMap<Key, Flow> = LruHashMap::with_max_entries(1 << 16, 0);

/// Handshakes whose first payload has not come yet, with the sequence number that it will have. Apart from the flows, so that
/// a flood of SYNs can't push connections out.
#[map]
static HANDSHAKES: LruHashMap<Key, u32> = LruHashMap::with_max_entries(1 << 14, 0);

/// The flow of a key.
#[inline(always)]
pub fn lookup(key: &Key) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(key)
}

/// What [`flow_track`] returns when there are new bytes to validate.
const NEW_BYTES: u32 = u32::MAX;

/// Finds out which bytes of the segment in [`scratch::packet`] are new: `new_at` and `new_len` there. `Err` when there are none.
#[inline(always)]
pub fn track(ctx: &XdpContext) -> Result<(), Reason> {
    match flow_track(ctx.ctx) {
        NEW_BYTES => Ok(()),
        number => Err(Reason::from_number(number as u8).unwrap_or(Reason::Internal)),
    }
}

/// A global function: the verifier looks at it once, for any packet. Returns a reason's number or [`NEW_BYTES`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_track(ctx: *mut xdp_md) -> u32 {
    match scratch::packet().and_then(|packet| follow(&XdpContext::new(ctx), packet)) {
        Ok(()) => NEW_BYTES,
        Err(reason) => u32::from(reason.number()),
    }
}

#[inline(always)]
fn follow(ctx: &XdpContext, packet: &mut Packet) -> Result<(), Reason> {
    if packet.has(SYN | RST) || packet.data_len == 0 {
        control(ctx, packet);
        return Err(Reason::TcpControl);
    }
    let now_ns = settings::now_ns();
    let flow = match lookup(&packet.key) {
        Some(flow) => flow,
        None => open(ctx, packet, now_ns)?,
    };
    // SAFETY: a live map value. A connection's segments come in by one queue, so one CPU at a time is here for it.
    let flow = unsafe { &mut *flow };
    flow.last_ns = now_ns;
    packet.expected = flow.next;
    new_bytes(ctx, packet, flow, now_ns)
}

/// Takes the validated bytes into account.
#[inline(always)]
pub fn advance(hash: u64) -> Result<Reason, Reason> {
    let packet = scratch::packet()?;
    let flow = lookup(&packet.key).ok_or(Reason::Internal)?;
    // SAFETY: as in `follow`.
    let flow = unsafe { &mut *flow };
    let record = Record { seq: flow.next, len: packet.new_len, hash };
    match flow.segment_at & 3 {
        0 => flow.segments[0] = record,
        1 => flow.segments[1] = record,
        2 => flow.segments[2] = record,
        _ => flow.segments[3] = record,
    }
    flow.segment_at = flow.segment_at.wrapping_add(1);
    flow.next = flow.next.wrapping_add(packet.new_len);
    flow.bytes += u64::from(packet.new_len);
    note_fin(packet, flow);
    Ok(Reason::Valid)
}

/// Ends the judgement of a stream: a malformed one as the settings say.
#[inline(always)]
pub fn refuse(reason: Reason) -> Reason {
    if let Ok(packet) = scratch::packet()
        && let Ok(settings) = settings::get()
        && let Some(flow) = lookup(&packet.key)
    {
        // SAFETY: as in `follow`.
        let flow = unsafe { &mut *flow };
        if !reason.is_malformed() {
            // The guard failed, not the stream: what follows passes, counted for the same reason.
            flow.flags |= flow_flags::CUT;
            flow.reason = u32::from(reason.number());
        } else if settings.mode == MODE_MONITOR {
            // Passed and counted; the framer finds its way back at the next start of a message.
            flow.flags |= flow_flags::LOST;
            flow.next = packet.seq.wrapping_add(packet.data_len);
        } else if settings.action == ACTION_DROP {
            flow.flags |= flow_flags::CUT;
            flow.reason = u32::from(reason.number());
        } else {
            let _ = FLOWS.remove(&packet.key);
        }
    }
    reason
}

/// Handshakes and ends. They change state only where the kernel would act on them, or else anyone who knows the 4-tuple could
/// make the guard forget a connection.
#[inline(always)]
fn control(ctx: &XdpContext, packet: &Packet) {
    let key = &packet.key;
    let flow = lookup(key);
    if packet.has(SYN) {
        if let Some(flow) = flow {
            // SAFETY: a live map value.
            let closing = unsafe { (*flow).flags & flow_flags::CLOSING != 0 };
            if !closing && socket::ask(ctx, packet).connected {
                return;
            }
            let _ = FLOWS.remove(key);
        }
        let _ = HANDSHAKES.insert(key, packet.seq.wrapping_add(1), 0);
    } else if packet.has(FIN | RST)
        && let Some(flow) = flow
    {
        // SAFETY: a live map value.
        unsafe {
            if (*flow).next == packet.seq {
                (*flow).flags |= flow_flags::CLOSING;
            }
        }
    }
}

/// Opens a flow for the first payload seen of a connection.
#[inline(always)]
fn open(ctx: &XdpContext, packet: &mut Packet, now_ns: u64) -> Result<*mut Flow, Reason> {
    let settings = settings::get()?;
    let socket = socket::ask(ctx, packet);
    let handshake = HANDSHAKES.get_ptr(&packet.key);
    // SAFETY: a live map value.
    let first = handshake.map(|first| unsafe { *first });
    let (next, fresh) = match (socket.connected, socket.known, first) {
        (true, true, _) => (socket.rcv_nxt, socket.fresh),
        (_, _, Some(first)) => (first, true),
        (true, false, None) => (packet.seq, false),
        (false, _, None) => return Err(Reason::NoConnection),
    };
    packet.expected = next;
    if packet.seq.wrapping_sub(next).cast_signed() > 0 {
        return Err(Reason::SequenceGap);
    }
    let old = next.wrapping_sub(packet.seq);
    if old >= packet.data_len {
        // The kernel has it all.
        return Err(Reason::Retransmission);
    }
    let beginning = if fresh {
        Beginning::Message
    } else {
        beginning(ctx.ctx, packet.data_at + old, packet.data_len - old)
    };
    let adopted = beginning == Beginning::Message;
    let refused = !adopted && !excused(settings, beginning, now_ns);
    if refused && settings.mode != MODE_MONITOR {
        return Err(Reason::UnknownStream);
    }
    let key = &packet.key;
    // SAFETY: `new_flow` is never written, so it is all zeros: a stream before its first byte.
    unsafe { FLOWS.insert(key, &(*scratch::get()?).new_flow, 0) }.map_err(|_| Reason::Internal)?;
    if handshake.is_some() {
        let _ = HANDSHAKES.remove(key);
    }
    let flow = FLOWS.get_ptr_mut(key).ok_or(Reason::Internal)?;
    // SAFETY: a live map value.
    unsafe {
        (*flow).next = if refused { packet.seq.wrapping_add(packet.data_len) } else { next };
        (*flow).first_ns = now_ns;
        (*flow).flags = if adopted { 0 } else { flow_flags::LOST };
    }
    if refused {
        // Monitor mode: counted once as what it is, and followed from here on.
        return Err(Reason::UnknownStream);
    }
    Ok(flow)
}

/// How a payload begins on a connection whose place in the stream is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// With a message, maybe behind keep-alives.
    Message,
    /// It is nothing but CR and LF, a keep-alive or the end of a line: no harm, and no sign of where the stream is.
    LineEnds,
    /// Neither.
    Other,
}

/// Judges `len` bytes of payload at `at` by the first of them. CR and LF alone are no start: they may be the middle of a message.
/// A function of its own for the stack's sake.
#[inline(never)]
fn beginning(ctx: *mut xdp_md, at: u32, len: u32) -> Beginning {
    let Some(head) = first_bytes(ctx, at, len) else { return Beginning::Other };
    let ends = leading_line_ends(head);
    if ends >= len {
        return Beginning::LineEnds;
    }
    match first_bytes(ctx, at + ends, len - ends) {
        Some(behind) if plausible_start(behind) => Beginning::Message,
        _ => Beginning::Other,
    }
}

/// The first 24 bytes of `len` (at least 1) at `at` of the frame, zero padded.
#[inline(always)]
fn first_bytes(ctx: *mut xdp_md, at: u32, len: u32) -> Option<[u64; 3]> {
    let mut head = [0u64; 4];
    let len = if len < 24 { len } else { 24 };
    // SAFETY: 24 bytes at the most, and room for 32.
    let loaded = unsafe { bytes::copy::<31>(ctx, at, len, head.as_mut_ptr().cast()) };
    loaded.then_some([head[0], head[1], head[2]])
}

/// Whether bytes of a stream whose place is not known pass: while there is grace, and always when they are line ends alone.
#[inline(always)]
fn excused(settings: &Settings, beginning: Beginning, now_ns: u64) -> bool {
    beginning == Beginning::LineEnds || now_ns < settings.grace_until_ns
}

/// A FIN behind the last validated byte closes the remote end.
#[inline(always)]
fn note_fin(packet: &Packet, flow: &mut Flow) {
    if packet.has(FIN) && packet.seq.wrapping_add(packet.data_len) == flow.next {
        flow.flags |= flow_flags::CLOSING;
    }
}

/// Finds what is new of the segment, after what is old was compared.
#[inline(always)]
fn new_bytes(ctx: &XdpContext, packet: &mut Packet, flow: &mut Flow, now_ns: u64) -> Result<(), Reason> {
    if flow.flags & flow_flags::CUT != 0 {
        return Err(Reason::from_number(flow.reason as u8).unwrap_or(Reason::Internal));
    }
    if packet.seq.wrapping_sub(flow.next).cast_signed() > 0 {
        return Err(Reason::SequenceGap);
    }
    let distance = flow.next.wrapping_sub(packet.seq);
    let old = if distance < packet.data_len { distance } else { packet.data_len };
    if old > 0 && !is_known(ctx, packet, flow, old) {
        return Err(Reason::Conflict);
    }
    let new = packet.data_len - old;
    if new == 0 {
        note_fin(packet, flow);
        return Err(Reason::Retransmission);
    }
    if flow.flags & flow_flags::LOST != 0 {
        let settings = settings::get()?;
        let beginning = beginning(ctx.ctx, packet.data_at + old, new);
        if beginning != Beginning::Message {
            if !excused(settings, beginning, now_ns) && settings.mode != MODE_MONITOR {
                return Err(Reason::UnknownStream);
            }
            flow.next = flow.next.wrapping_add(new);
            return Err(Reason::MidStream);
        }
        flow.flags &= !flow_flags::LOST;
        flow.stream = Stream::NEW;
    }
    packet.new_at = packet.data_at + old;
    packet.new_len = new;
    Ok(())
}

/// Whether the first `old` bytes are harmless: the kernel has them already, or they are the same as those validated.
#[inline(always)]
fn is_known(ctx: &XdpContext, packet: &Packet, flow: &Flow, old: u32) -> bool {
    // Coalesced retransmissions repeat several segments at once.
    let mut same = 0;
    for _ in 0..FLOW_SEGMENTS {
        if same >= old {
            break;
        }
        let Some(record) = record_at(flow, packet.seq.wrapping_add(same), old - same) else { break };
        match sip::hash(ctx, packet.data_at + same, record.len) {
            Ok(hash) if hash == record.hash => same += record.len,
            _ => break,
        }
    }
    if same >= old {
        return true;
    }
    let socket = socket::ask(ctx, packet);
    let end = packet.seq.wrapping_add(old);
    if socket.known {
        return socket.rcv_nxt.wrapping_sub(end).cast_signed() >= 0;
    }
    // Without the kernel's word, at least the keep-alive probe of one old byte (RFC 9293 section 3.8.4).
    packet.data_len == 1 && end == flow.next
}

/// The record of a segment that starts at `seq` and is no longer than `most`.
#[inline(always)]
fn record_at(flow: &Flow, seq: u32, most: u32) -> Option<Record> {
    flow.segments.iter().copied().find(|record| record.len != 0 && record.seq == seq && record.len <= most)
}
