//! Egress: observes the packets that the PBX sends, as the kernel or a bridge hands them to the interface. It changes and stops none.
//!
//! Only the PBX's own segments cannot be forged by others. Its SYN-ACK says where a connection begins, its acknowledgements what it has
//! received, its FIN and RST that a connection ends, and its first bytes whether it uses SIP on a connection that it dialled.
//!
//! Packets whose headers are not all in the first buffer, and packets with IPv6 extension headers, are not observed.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sipguard_common::Reason;
use sipguard_common::abi::{
    Flow, FlowState, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, HANDSHAKE_OPEN, Handshake, PORT_WORDS,
    flow_flags, pack_handshake, port_bit,
};
use sipguard_common::framer::{leading_line_ends, may_become_record, may_become_start};
use sipguard_common::wire::protocol::TCP;
use sipguard_common::wire::tcp::{ACK, FIN, RST, SYN};
use sipguard_common::wire::{ipv4, ipv6, tcp};

use super::{flow, greeting, handshake};
use crate::admit::port;
use crate::cpu::scratch::FlowWords;
use crate::cpu::{atomic, settings};
use crate::packet::eth::L3;
use crate::packet::ip::{Address, MAPPED};
use crate::packet::{bytes, eth};

#[map]
static SPOKEN: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Longest time from a segment that passed the guard to the PBX's acknowledgement of it, in nanoseconds: the first timeout of a SYN-ACK (RFC 6298
/// section 2.1).
const SETTLED_NS: u64 = 1_000_000_000;

/// What a server's FIN takes in its stream. Who said no more has not greeted.
const FIN_ALONE: u32 = 1;

/// States of a flow as numbers: with the enum the compiler duplicates [`begin`] for each state.
const IN_SYNC: u32 = FlowState::InSync as u32;
const DESYNCHRONISED: u32 = FlowState::Desynchronised as u32;
const AWAITING_REQUEST: u32 = FlowState::AwaitingRequest as u32;
const AWAITING_FIRST_BYTES: u32 = FlowState::AwaitingFirstBytes as u32;
const NOT_SIP: u32 = FlowState::NotSip as u32;

/// Whether the PBX has dialled a port that is not guarded from this port, and uses SIP there.
#[inline(always)]
pub fn is_dialled_sip_port(local: u16) -> bool {
    let (word, bit) = port_bit(local);
    SPOKEN.get(word).is_some_and(|ports| ports & bit != 0)
}

/// A segment that the PBX sends.
struct SentSegment {
    key: FlowWords,
    local: u16,
    remote: u16,
    seq: u32,
    acknowledged: u32,
    flags: u8,
    data_at: u32,
    data_len: u32,
}

impl SentSegment {
    #[inline(always)]
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Address that it goes to.
    #[inline(always)]
    fn server(&self) -> Address {
        let [address @ .., _, _, _, _, _] = self.key;
        address
    }

    /// The sequence number behind the segment.
    #[inline(always)]
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.data_len).wrapping_add(u32::from(self.has(FIN)))
    }
}

/// The protocol that the PBX's first bytes look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OutboundProtocol {
    Sip,
    Tls,
    /// CR and LF alone.
    LineEnds,
    Other,
}

/// Observes an outgoing packet. Never stops it.
#[inline(always)]
pub fn observe(ctx: &TcContext) -> i32 {
    if !settings::is_attached(ctx)
        && let Ok(segment) = parse(ctx)
    {
        take(ctx, &segment);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn take(ctx: &TcContext, segment: &SentSegment) {
    let own = port::is_guarded(segment.local);
    if segment.has(SYN) {
        return handshake_segment(ctx, segment, own);
    }
    let peer = port::is_guarded(segment.remote);
    if !own && !peer && (!is_dialled_sip_port(segment.local) || flow::lookup(&segment.key).is_none()) {
        return if segment.data_len != 0 {
            first_unguarded_bytes(ctx, segment);
        } else if greeting::is_awaited(segment.local) {
            silent(segment);
        };
    }
    let found = flow::lookup(&segment.key);
    let found = if found.is_none() { unknown(ctx, segment, own) } else { found };
    let Some(flow) = found else { return };
    // SAFETY: a live map value. Only this program writes these fields, and each is one word.
    let flow = unsafe { &mut *flow };
    if is_spoofed_local(ctx, flow) {
        return;
    }
    if segment.has(RST) {
        // A RST without ACK answers a segment that was not accepted, with a sequence number that the segment's sender chose. With DNAT it may come
        // from the translating machine, without the PBX's knowledge.
        if segment.has(ACK) && flow.egress_known != 0 && segment.seq == flow.sent {
            flow::end(flow);
        }
        return;
    }
    if flow.pending_handshake != 0 && segment.seq == flow.pending_handshake as u32 {
        // Of the next connection of the same ports, which is not open yet.
        return;
    }
    record_acknowledgement(segment, flow);
    if segment.data_len != 0
        && (flow.is(FlowState::AwaitingRequest) || flow.is(FlowState::AwaitingFirstBytes))
    {
        first_outbound_bytes(ctx, segment, flow);
    }
}

/// Whether a forwarded packet has the address of a PBX that is this host: then its source is forged.
#[inline(always)]
fn is_spoofed_local(ctx: &TcContext, flow: &Flow) -> bool {
    // SAFETY: the context of this program.
    flow.flags & flow_flags::LOCAL != 0 && unsafe { (*ctx.skb.skb).ingress_ifindex != 0 }
}

/// Whether a SYN-ACK belongs to the handshake that created the flow. The PBX repeats it when the SYN comes twice, and a device could use that
/// to rewind its stream. If the PBX has acknowledged nothing after [`SETTLED_NS`], the segments were lost behind the guard, and the
/// SYN-ACK counts as new.
#[inline(always)]
fn repeats(segment: &SentSegment, flow: &Flow, offered: u64) -> bool {
    let lost =
        flow.acked == segment.acknowledged && settings::now_ns().wrapping_sub(flow.first_ns) > SETTLED_NS;
    flow.current_handshake == offered && flow.ended == 0 && !lost
}

/// A SYN or SYN-ACK of the PBX.
#[inline(always)]
fn handshake_segment(ctx: &TcContext, segment: &SentSegment, own: bool) {
    let pbx_next = segment.seq.wrapping_add(1);
    let found = flow::lookup(&segment.key);
    // SAFETY: a live map value.
    if found.is_some_and(|flow| is_spoofed_local(ctx, unsafe { &*flow })) {
        return;
    }
    if !segment.has(ACK) {
        // A new connection: the old one of the same ports is gone.
        flow::forget(&segment.key);
        if segment.data_len != 0 {
            // TCP Fast Open (RFC 7413): where the PBX's stream goes on the server's answer says, which nobody vouches for.
            return handshake::forget(&segment.key);
        }
        return handshake::record(
            &segment.key,
            &Handshake { peer_next: 0, pbx_next, kind: HANDSHAKE_DIALLED, held: 0 },
        );
    }
    if !own {
        return simultaneous_open(segment, pbx_next);
    }
    match found {
        // SAFETY: a live map value; one word.
        Some(flow) => unsafe {
            let offered = pack_handshake(segment.acknowledged, pbx_next);
            if !repeats(segment, &*flow, offered) {
                (&raw mut (*flow).pending_handshake).write_volatile(offered);
            }
        },
        None => {
            let handshake =
                Handshake { peer_next: segment.acknowledged, pbx_next, kind: HANDSHAKE_ANSWERED, held: 0 };
            handshake::record(&segment.key, &handshake);
        }
    }
}

/// Simultaneous open: the PBX answers a SYN of a peer that it dialled (RFC 9293 section 3.5, figure 7).
#[inline(always)]
fn simultaneous_open(segment: &SentSegment, pbx_next: u32) {
    let Some(handshake) = handshake::get(&segment.key) else { return };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind != HANDSHAKE_DIALLED || handshake.pbx_next != pbx_next {
        return;
    }
    handshake.peer_next = segment.acknowledged;
    if port::is_guarded(segment.remote) {
        begin(segment, AWAITING_REQUEST);
        return handshake::forget(&segment.key);
    }
    handshake.kind = HANDSHAKE_OPEN;
    greeting::opens(handshake, segment.local);
}

/// A segment without payload on a connection without a guarded port: the PBX acknowledges the server's answer, and from here on the server may not
/// change where its stream begins; or it ends the connection on which it has said nothing.
#[inline(always)]
fn silent(segment: &SentSegment) {
    let Some(handshake) = handshake::get(&segment.key) else { return };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind == HANDSHAKE_ANSWERED || handshake.pbx_next != segment.seq || !segment.has(ACK) {
        return;
    }
    if handshake.kind == HANDSHAKE_DIALLED {
        open(handshake, segment);
    } else if segment.has(FIN | RST) {
        if segment.acknowledged.wrapping_sub(handshake.peer_next) > FIN_ALONE {
            greeting::learn(&segment.server());
        }
        handshake::forget(&segment.key);
    }
}

#[inline(always)]
fn open(handshake: &mut Handshake, segment: &SentSegment) {
    handshake.peer_next = segment.acknowledged;
    handshake.kind = HANDSHAKE_OPEN;
    greeting::opened(handshake, segment.local);
}

/// Records what the PBX has acknowledged and sent.
#[inline(always)]
fn record_acknowledgement(segment: &SentSegment, flow: &mut Flow) {
    let end = segment.end();
    if flow.egress_known == 0 {
        flow.una = segment.seq;
    }
    if flow.egress_known == 0 || end.wrapping_sub(flow.sent).cast_signed() > 0 {
        flow.sent = end;
    }
    if !segment.has(ACK) {
        return;
    }
    if flow.egress_known == 0 || segment.acknowledged.wrapping_sub(flow.acked).cast_signed() > 0 {
        flow.acked = segment.acknowledged;
    }
    flow.egress_known = 1;
    if flow.flags & flow_flags::FIN_SEEN != 0 && segment.acknowledged == flow.next.wrapping_add(1) {
        // The PBX has the sender's FIN: it accepts no more data.
        flow::end(flow);
    }
}

/// A segment of a connection without a flow. It acknowledges the answer to the PBX's SYN, which creates a flow; or the connection is older than
/// the guard or was evicted, and is picked up mid-stream.
#[inline(always)]
fn unknown(ctx: &TcContext, segment: &SentSegment, own: bool) -> Option<*mut Flow> {
    if segment.has(RST) || !segment.has(ACK) {
        return None;
    }
    let mut state = DESYNCHRONISED;
    if let Some(handshake) = handshake::get(&segment.key) {
        // SAFETY: a live map value.
        let handshake = unsafe { &mut *handshake };
        let first = handshake.pbx_next == segment.seq;
        if first != (handshake.kind == HANDSHAKE_DIALLED) {
            // The PBX answers an invalid segment during a handshake.
            return None;
        }
        if first && own {
            state = AWAITING_FIRST_BYTES;
            open(handshake, segment);
        } else if first {
            state = AWAITING_REQUEST;
        }
    }
    if state == DESYNCHRONISED
        && !own
        && (segment.data_len == 0 || detect_protocol(ctx, segment) != OutboundProtocol::Sip)
    {
        return None;
    }
    begin(segment, state);
    if state == AWAITING_REQUEST {
        handshake::forget(&segment.key);
    }
    flow::lookup(&segment.key)
}

/// Bytes of the PBX on a connection without a guarded port: if they are its first ones, they say whether it uses SIP there.
#[inline(always)]
fn first_unguarded_bytes(ctx: &TcContext, segment: &SentSegment) {
    let protocol = detect_protocol(ctx, segment);
    if protocol != OutboundProtocol::Sip && !greeting::is_awaited(segment.local) {
        return;
    }
    let Some(heard) = dialled(segment) else { return greeting::settle(segment.local) };
    if protocol == OutboundProtocol::LineEnds {
        // What follows them shows it.
        return spoke_line_ends(segment);
    }
    handshake::forget(&segment.key);
    if protocol != OutboundProtocol::Sip {
        if heard > FIN_ALONE {
            greeting::learn(&segment.server());
        }
        return greeting::settle(segment.local);
    }
    // If the peer has sent bytes before, those were not validated.
    begin(segment, if heard == 0 { IN_SYNC } else { DESYNCHRONISED });
    let (word, bit) = port_bit(segment.local);
    if let Some(ports) = SPOKEN.get_ptr_mut(word) {
        // SAFETY: a live map value.
        unsafe { atomic::or(ports, bit) };
    }
}

#[inline(always)]
fn spoke_line_ends(segment: &SentSegment) {
    if let Some(handshake) = handshake::get(&segment.key) {
        // SAFETY: a live map value; one word.
        unsafe { (*handshake).pbx_next = segment.end() };
    }
}

/// How many bytes of a server the PBX has, with its FIN; `None` unless the segment has the PBX's first bytes on a connection that it dialled.
#[inline(always)]
fn dialled(segment: &SentSegment) -> Option<u32> {
    let handshake = handshake::get(&segment.key)?;
    // SAFETY: a live map value.
    let Handshake { peer_next, pbx_next, kind, .. } = unsafe { *handshake };
    if kind == HANDSHAKE_ANSWERED || pbx_next != segment.seq {
        return None;
    }
    // Before the PBX's acknowledgement nothing passes.
    Some(if kind == HANDSHAKE_DIALLED { 0 } else { segment.acknowledged.wrapping_sub(peer_next) })
}

/// Creates a flow at the PBX's position.
#[inline(always)]
fn begin(segment: &SentSegment, state: u32) {
    let Ok(flow) = flow::insert_key(&segment.key) else { return };
    // SAFETY: a live map value, locked before it is changed.
    let flow = unsafe { &mut *flow };
    let Some(token) = flow::lock(flow) else { return };
    let tls = port::is_tls(segment.local) || !port::is_guarded(segment.local) && port::is_tls(segment.remote);
    flow.flags = if tls { flow_flags::TLS } else { 0 };
    if state == DESYNCHRONISED {
        flow.flags |= flow_flags::PICKED_UP;
    }
    flow.state = state;
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.pending_handshake = 0;
    flow.current_handshake = 0;
    flow.egress_known = 0;
    flow.ended = 0;
    record_acknowledgement(segment, flow);
    flow::start(flow, segment.acknowledged, state != DESYNCHRONISED);
    flow::unlock(flow, token);
}

/// The PBX's first bytes on a connection that it dialled from or to a guarded port.
#[inline(always)]
fn first_outbound_bytes(ctx: &TcContext, segment: &SentSegment, flow: &mut Flow) {
    let protocol = detect_protocol(ctx, segment);
    if protocol == OutboundProtocol::LineEnds {
        return;
    }
    if flow.is(FlowState::AwaitingFirstBytes) {
        handshake::forget(&segment.key);
    }
    let Some(token) = flow::lock(flow) else { return };
    // A TLS port expects TLS, any other SIP.
    let wanted =
        if flow.flags & flow_flags::TLS != 0 { OutboundProtocol::Tls } else { OutboundProtocol::Sip };
    let silent = flow.is(FlowState::AwaitingFirstBytes);
    if protocol != wanted && protocol != OutboundProtocol::Sip {
        if silent && segment.acknowledged.wrapping_sub(flow.next) > FIN_ALONE {
            greeting::learn(&segment.server());
        }
        flow.state = NOT_SIP;
    } else {
        if protocol == OutboundProtocol::Sip {
            flow.flags &= !flow_flags::TLS;
        }
        flow.state = IN_SYNC;
        if silent && flow.next != segment.acknowledged {
            flow.state = DESYNCHRONISED;
            flow::start(flow, segment.acknowledged, false);
        }
    }
    flow::unlock(flow, token);
}

/// The protocol of a payload, by its first bytes.
#[inline(always)]
fn detect_protocol(ctx: &TcContext, segment: &SentSegment) -> OutboundProtocol {
    let len = if segment.data_len < 24 { segment.data_len } else { 24 };
    let Some(head) = bytes::head(ctx, segment.data_at, len) else { return OutboundProtocol::Other };
    if leading_line_ends(head) >= len {
        OutboundProtocol::LineEnds
    } else if may_become_start(head, len) {
        OutboundProtocol::Sip
    } else if may_become_record(head, len) {
        OutboundProtocol::Tls
    } else {
        OutboundProtocol::Other
    }
}

/// Reads the headers of TCP over IPv4 or IPv6. `Err` stands for every packet that is not observed.
#[inline(always)]
fn parse(ctx: &TcContext) -> Result<SentSegment, Reason> {
    let half = |at| bytes::half(ctx, at).map(u16::from_be);
    let (byte, word) = (|at| bytes::byte(ctx, at), |at| bytes::word(ctx, at));
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the context of this program.
    let len = unsafe { (*skb).len };
    let L3 { at, v6 } = eth::parse(ctx)?;
    // `packet_end` is where the packet ends by its IP header; 0 where the header does not say.
    let (remote, local, l4_at, packet_end) = if v6 {
        if byte(at + ipv6::NEXT_HEADER)? != TCP {
            return Err(Reason::NotGuarded);
        }
        let stated = usize::from(half(at + ipv6::PAYLOAD_LEN)?);
        let (from, to) = (at + ipv6::SOURCE, at + ipv6::DESTINATION);
        let remote = [word(to)?, word(to + 4)?, word(to + 8)?, word(to + 12)?];
        let local = [word(from)?, word(from + 4)?, word(from + 8)?, word(from + 12)?];
        (remote, local, at + ipv6::LEN, if stated == 0 { 0 } else { at + ipv6::LEN + stated })
    } else {
        let fragment = half(at + ipv4::FRAGMENT)? & (ipv4::FRAGMENT_OFFSET | ipv4::MORE_FRAGMENTS);
        if byte(at + ipv4::PROTOCOL)? != TCP || fragment != 0 {
            return Err(Reason::NotGuarded);
        }
        let stated = usize::from(half(at + ipv4::TOTAL_LEN)?);
        let remote = [0, 0, MAPPED, word(at + ipv4::DESTINATION)?];
        let local = [0, 0, MAPPED, word(at + ipv4::SOURCE)?];
        let header = usize::from(byte(at + ipv4::VERSION)? & 0x0f) * 4;
        (remote, local, at + header, if stated == 0 { 0 } else { at + stated })
    };
    let ports = word(l4_at + tcp::PORTS)?;
    let [seq, acknowledged] = [word(l4_at + tcp::SEQ)?, word(l4_at + tcp::ACK_SEQ)?].map(u32::from_be);
    let [offset, flags] = half(l4_at + tcp::DATA_OFFSET)?.to_be_bytes();
    let data_at = (l4_at + usize::from(offset >> 4) * 4) as u32;
    // The length in the IP header of a packet that is segmented later (GSO) is zero or too large.
    let end = if packet_end == 0 || packet_end as u32 > len { len } else { packet_end as u32 };
    // In the order of the peer's segments: its address and port first.
    let ports = ports.rotate_left(16);
    Ok(SentSegment {
        key: [remote[0], remote[1], remote[2], remote[3], local[0], local[1], local[2], local[3], ports],
        local: u16::from_be((ports >> 16) as u16),
        remote: u16::from_be(ports as u16),
        seq,
        acknowledged,
        flags,
        data_at,
        data_len: end.saturating_sub(data_at),
    })
}
