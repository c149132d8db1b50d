//! The second eye: what the PBX sends, as the kernel or a bridge hands it to the interface. It changes nothing and stops nothing.
//!
//! The PBX's word is the only one that a stranger can't forge. Its SYN-ACK says where a connection begins, its acknowledgements what it
//! has taken, its FIN and RST how a connection ends, and its first bytes whether it speaks SIP on a connection that it dialled.
//!
//! A packet whose headers are not all in the first buffer, or that has IPv6 extension headers, goes unseen.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sipguard_common::Reason;
use sipguard_common::abi::{
    FLOW_ENDED, Flow, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, Handshake, PORT_WORDS, flow_flags, flow_state,
    offer, port_bit,
};
use sipguard_common::framer::{leading_line_ends, plausible_record, plausible_start};

use super::{flow, handshake};
use crate::admit::port;
use crate::cpu::scratch::Key;
use crate::cpu::{atomic, settings};
use crate::packet::bytes;
use crate::packet::ip::{MAPPED, TCP};
use crate::packet::tcp::{ACK, FIN, RST, SYN};

#[map]
static SPOKEN: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// How long what passed the guard takes to the PBX and its answer back, at the most, in nanoseconds. As long as the first timeout of a SYN-ACK (RFC 6298
/// section 2.1).
const SETTLED_NS: u64 = 1_000_000_000;

/// Whether the PBX speaks SIP on a connection that it dialled from this port to one that is not guarded.
#[inline(always)]
pub fn is_spoken(local: u16) -> bool {
    let (word, bit) = port_bit(local);
    SPOKEN.get(word).is_some_and(|ports| ports & bit != 0)
}

/// A segment that the PBX sends.
struct Segment {
    key: Key,
    local: u16,
    remote: u16,
    seq: u32,
    acknowledged: u32,
    flags: u8,
    data_at: u32,
    data_len: u32,
}

impl Segment {
    #[inline(always)]
    fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The sequence number behind it.
    #[inline(always)]
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.data_len).wrapping_add(u32::from(self.has(FIN)))
    }
}

/// What the framer and the socket say of the PBX's first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Sip,
    Tls,
    /// CR and LF alone.
    Nothing,
    Other,
}

/// Looks at a packet that leaves, and lets it go on its way.
#[inline(always)]
pub fn note(ctx: &TcContext) -> i32 {
    if !settings::is_attached(ctx)
        && let Ok(segment) = parse(ctx)
    {
        take(ctx, &segment);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn take(ctx: &TcContext, segment: &Segment) {
    let own = port::is_guarded(segment.local);
    if segment.has(SYN) {
        return shakes(ctx, segment, own);
    }
    let peer = port::is_guarded(segment.remote);
    if !own && !peer && (!is_spoken(segment.local) || flow::lookup(&segment.key).is_none()) {
        if segment.data_len != 0 && speech(ctx, segment) == Speech::Sip {
            speaks_up(segment);
        }
        return;
    }
    let found = flow::lookup(&segment.key);
    let found = if found.is_none() { unknown(ctx, segment, own) } else { found };
    let Some(flow) = found else { return };
    // SAFETY: a live map value. These fields are this program's own, and each is one word.
    let flow = unsafe { &mut *flow };
    if is_anothers(ctx, flow) {
        return;
    }
    if segment.has(RST) {
        // One without an ACK answers a segment that was not taken, with a number that its sender chose; with DNAT it may be the
        // translating machine's, of which the PBX knows nothing.
        if segment.has(ACK) && flow.heard != 0 && segment.seq == flow.sent {
            flow.ended = FLOW_ENDED;
        }
        return;
    }
    if flow.offer != 0 && segment.seq == flow.offer as u32 {
        // Of the connection that has these ports next, and is not open yet.
        return;
    }
    hear(segment, flow);
    if segment.data_len != 0 && (flow.state == flow_state::EXPECTED || flow.state == flow_state::SILENT) {
        says_first(ctx, segment, flow);
    }
}

/// Whether a packet that came in by some interface is sent in the name of a PBX that is this host.
#[inline(always)]
fn is_anothers(ctx: &TcContext, flow: &Flow) -> bool {
    // SAFETY: the context of this program.
    flow.flags & flow_flags::LOCAL != 0 && unsafe { (*ctx.skb.skb).ingress_ifindex != 0 }
}

/// Whether a SYN-ACK is of the handshake that began the flow: the PBX may send it again for a SYN that came twice, and a device could rewind
/// its stream with it. Once the PBX has had time to take what passed, and took nothing, it was lost behind the guard, and the handshake goes on.
#[inline(always)]
fn repeats(segment: &Segment, flow: &Flow, offered: u64) -> bool {
    let lost =
        flow.acked == segment.acknowledged && settings::now_ns().wrapping_sub(flow.first_ns) > SETTLED_NS;
    flow.begun == offered && flow.ended == 0 && !lost
}

/// The first segment of a handshake, of either direction.
#[inline(always)]
fn shakes(ctx: &TcContext, segment: &Segment, own: bool) {
    let pbx_next = segment.seq.wrapping_add(1);
    let found = flow::lookup(&segment.key);
    // SAFETY: a live map value.
    if found.is_some_and(|flow| is_anothers(ctx, unsafe { &*flow })) {
        return;
    }
    if !segment.has(ACK) {
        // Who dials has no older connection of the same ports.
        flow::forget(&segment.key);
        return handshake::note(&segment.key, &Handshake { peer_next: 0, pbx_next, kind: HANDSHAKE_DIALLED });
    }
    if !own {
        return crosses(segment, pbx_next);
    }
    match found {
        // SAFETY: a live map value; one word.
        Some(flow) => unsafe {
            let offered = offer(segment.acknowledged, pbx_next);
            if !repeats(segment, &*flow, offered) {
                (&raw mut (*flow).offer).write_volatile(offered);
            }
        },
        None => {
            let handshake = Handshake { peer_next: segment.acknowledged, pbx_next, kind: HANDSHAKE_ANSWERED };
            handshake::note(&segment.key, &handshake);
        }
    }
}

/// The PBX answers where it dialled, since the peer dialled as well (RFC 9293 section 3.5, figure 7).
#[inline(always)]
fn crosses(segment: &Segment, pbx_next: u32) {
    let Some(handshake) = handshake::get(&segment.key) else { return };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind != HANDSHAKE_DIALLED || handshake.pbx_next != pbx_next {
        return;
    }
    handshake.peer_next = segment.acknowledged;
    if port::is_guarded(segment.remote) {
        begin(segment, flow_state::EXPECTED);
        handshake::forget(&segment.key);
    }
}

/// Takes note of what the PBX has, and of what it sent.
#[inline(always)]
fn hear(segment: &Segment, flow: &mut Flow) {
    let end = segment.end();
    if flow.heard == 0 {
        flow.una = segment.seq;
    }
    if flow.heard == 0 || end.wrapping_sub(flow.sent).cast_signed() > 0 {
        flow.sent = end;
    }
    if !segment.has(ACK) {
        return;
    }
    if flow.heard == 0 || segment.acknowledged.wrapping_sub(flow.acked).cast_signed() > 0 {
        flow.acked = segment.acknowledged;
    }
    flow.heard = 1;
    if flow.flags & flow_flags::FINISHED != 0 && segment.acknowledged == flow.next.wrapping_add(1) {
        // It has the sender's FIN: it takes nothing any more.
        flow.ended = FLOW_ENDED;
    }
}

/// A connection that has no flow: the PBX acknowledges the answer to its SYN, which begins one; or it is older than the guard, or forgotten.
#[inline(always)]
fn unknown(ctx: &TcContext, segment: &Segment, own: bool) -> Option<*mut Flow> {
    if segment.has(RST) || !segment.has(ACK) {
        return None;
    }
    let mut state = flow_state::LOST;
    if let Some(handshake) = handshake::get(&segment.key) {
        // SAFETY: a live map value.
        let Handshake { pbx_next, kind, .. } = unsafe { *handshake };
        let first = pbx_next == segment.seq;
        if first != (kind == HANDSHAKE_DIALLED) {
            // The PBX answers nonsense in the middle of a handshake.
            return None;
        }
        if first {
            state = if own { flow_state::SILENT } else { flow_state::EXPECTED };
        }
    }
    if state == flow_state::LOST && !own && (segment.data_len == 0 || speech(ctx, segment) != Speech::Sip) {
        return None;
    }
    begin(segment, state);
    if state != flow_state::LOST {
        handshake::forget(&segment.key);
    }
    flow::lookup(&segment.key)
}

/// The PBX speaks SIP on a connection of which no port is guarded. It does so when these are its first bytes.
#[inline(always)]
fn speaks_up(segment: &Segment) {
    let Some(handshake) = handshake::get(&segment.key) else { return };
    // SAFETY: a live map value.
    let Handshake { peer_next, pbx_next, kind } = unsafe { *handshake };
    if kind != HANDSHAKE_DIALLED || pbx_next != segment.seq {
        return;
    }
    // What the peer sent before went unjudged.
    let fresh = peer_next != 0 && peer_next == segment.acknowledged;
    begin(segment, if fresh { flow_state::FOLLOWED } else { flow_state::LOST });
    handshake::forget(&segment.key);
    let (word, bit) = port_bit(segment.local);
    if let Some(ports) = SPOKEN.get_ptr_mut(word) {
        // SAFETY: a live map value.
        unsafe { atomic::or(ports, bit) };
    }
}

/// Begins a flow where the PBX is.
#[inline(always)]
fn begin(segment: &Segment, state: u32) {
    let Ok(flow) = flow::insert_key(&segment.key) else { return };
    // SAFETY: a live map value, locked before it is changed.
    let flow = unsafe { &mut *flow };
    let Some(token) = flow::lock(flow) else { return };
    let tls = port::is_tls(segment.local) || !port::is_guarded(segment.local) && port::is_tls(segment.remote);
    flow.flags = if tls { flow_flags::TLS } else { 0 };
    if state == flow_state::LOST {
        flow.flags |= flow_flags::ADOPTED;
    }
    flow.state = state;
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.offer = 0;
    flow.begun = 0;
    flow.heard = 0;
    flow.ended = 0;
    hear(segment, flow);
    flow::start(flow, segment.acknowledged, state != flow_state::LOST);
    flow::unlock(flow, token);
}

/// The PBX's first bytes on a connection that it dialled from, or to, a guarded port.
#[inline(always)]
fn says_first(ctx: &TcContext, segment: &Segment, flow: &mut Flow) {
    let speech = speech(ctx, segment);
    if speech == Speech::Nothing {
        return;
    }
    let Some(token) = flow::lock(flow) else { return };
    // What was asked for is what a TLS port takes.
    let wanted = if flow.flags & flow_flags::TLS != 0 { Speech::Tls } else { Speech::Sip };
    let silent = flow.state == flow_state::SILENT;
    if speech != wanted && speech != Speech::Sip {
        flow.state = flow_state::OTHER;
    } else {
        if speech == Speech::Sip {
            flow.flags &= !flow_flags::TLS;
        }
        flow.state = flow_state::FOLLOWED;
        if silent && flow.next != segment.acknowledged {
            flow.state = flow_state::LOST;
            flow::start(flow, segment.acknowledged, false);
        }
    }
    flow::unlock(flow, token);
}

/// How a payload begins.
#[inline(always)]
fn speech(ctx: &TcContext, segment: &Segment) -> Speech {
    let len = if segment.data_len < 24 { segment.data_len } else { 24 };
    let Some(head) = bytes::head(ctx, segment.data_at, len) else { return Speech::Other };
    if leading_line_ends(head) >= len {
        Speech::Nothing
    } else if plausible_start(head) {
        Speech::Sip
    } else if plausible_record(head) {
        Speech::Tls
    } else {
        Speech::Other
    }
}

const ETHERNET: usize = 14;
const TAG: usize = 4;

/// Reads the headers of TCP over IPv4 or IPv6. `Err` is what goes unseen.
#[inline(always)]
fn parse(ctx: &TcContext) -> Result<Segment, Reason> {
    let half = |at| bytes::half(ctx, at).map(u16::from_be);
    let (byte, word) = (|at| bytes::byte(ctx, at), |at| bytes::word(ctx, at));
    let skb: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: the context of this program.
    let len = unsafe { (*skb).len };
    let mut at = ETHERNET;
    let mut kind = half(12)?;
    for _ in 0..2 {
        if kind == 0x8100 || kind == 0x88a8 {
            kind = half(at + 2)?;
            at += TAG;
        }
    }
    let (remote, local, l4_at, said) = match kind {
        0x0800 => {
            let fragment = half(at + 6)? & 0x3fff;
            if byte(at + 9)? != TCP || fragment != 0 {
                return Err(Reason::NotGuarded);
            }
            let said = usize::from(half(at + 2)?);
            let remote = [0, 0, MAPPED, word(at + 16)?];
            let local = [0, 0, MAPPED, word(at + 12)?];
            let header = usize::from(byte(at)? & 0x0f) * 4;
            (remote, local, at + header, if said == 0 { 0 } else { at + said })
        }
        0x86dd => {
            let next = byte(at + 6)?;
            if next != TCP {
                return Err(Reason::NotGuarded);
            }
            let said = usize::from(half(at + 4)?);
            let remote = [word(at + 24)?, word(at + 28)?, word(at + 32)?, word(at + 36)?];
            let local = [word(at + 8)?, word(at + 12)?, word(at + 16)?, word(at + 20)?];
            (remote, local, at + 40, if said == 0 { 0 } else { at + 40 + said })
        }
        _ => return Err(Reason::NotGuarded),
    };
    let ports = word(l4_at)?;
    let [seq, acknowledged] = [word(l4_at + 4)?, word(l4_at + 8)?].map(u32::from_be);
    let [offset, flags] = half(l4_at + 12)?.to_be_bytes();
    let data_at = (l4_at + usize::from(offset >> 4) * 4) as u32;
    // Segments that are cut later say nothing, or too little, of their length.
    let end = if said == 0 || said as u32 > len { len } else { said as u32 };
    // As the peer's segments have it: its address and port first.
    let ports = ports.rotate_left(16);
    Ok(Segment {
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
