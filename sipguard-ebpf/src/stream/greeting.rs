//! Bytes that a server sends on a connection that the PBX dialled before the PBX has sent any. The PBX's first bytes show whether the connection
//! carries SIP, and a SIP client sends them at once. So the bytes of a server whose port is not guarded are held back for a moment: they come again, and
//! are judged if the PBX speaks SIP. A server that speaks first by its protocol, as of SMTP, sends its bytes again after 200 ms at the earliest
//! (RFC 6298 section 2.4, `TCP_RTO_MIN`), and they pass; the next connections to it lose nothing.
//!
//! The time counts from when the PBX can speak: the connection is open, and the server's window is no smaller than what the PBX's first bytes take.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use aya_ebpf::programs::XdpContext;
use sipguard_common::abi::{ANSWERED_SHIFT, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, Handshake};
use sipguard_common::wire::tcp;

use super::handshake;
use crate::admit::rate;
use crate::cpu::scratch::Packet;
use crate::cpu::settings;
use crate::message::checksum;
use crate::packet::bytes;
use crate::packet::ip::Address;

/// The latest [`Handshake::held`] of the connections that the PBX dialled from a port; 0 when it has said something since. For most packets a look
/// at it is all.
#[map]
static ANSWERED: Array<u32> = Array::with_max_entries(1 << 16, 0);

/// Servers that greet. The value has no meaning.
#[map]
static GREETERS: LruHashMap<Address, u32> = LruHashMap::with_max_entries(1 << 12, 0);

/// How long a server's bytes are held back, in units: 180 ms.
const HOLD: u32 = 172;
/// The same while the server's window is smaller than [`SMALL`]: 4 s. What does not fit the PBX sends after its first timeout, 3 s at the most
/// (`TCP_TIMEOUT_FALLBACK`).
const HOLD_SMALL: u32 = 3800 - HOLD;
/// The same while the server's window is closed, or the connection is not open: two minutes. No client waits for longer.
const HOLD_CLOSED: u32 = 1 << 17;
/// Least bytes of a window in which the PBX's first segment fits.
const SMALL: u16 = 1500;

/// Never 0.
#[inline(always)]
fn now() -> u32 {
    (rate::coarse_ns() >> ANSWERED_SHIFT) as u32 | 1
}

#[inline(always)]
fn entry(local: u16) -> Option<*mut u32> {
    ANSWERED.get_ptr_mut(u32::from(local))
}

/// Whether bytes are held back that a connection with this time has.
#[inline(always)]
fn is_recent(time: u32) -> bool {
    time != 0 && (now().wrapping_sub(time) < HOLD || is_ahead(time))
}

/// Whether a time lies ahead.
#[inline(always)]
fn is_ahead(time: u32) -> bool {
    time != 0 && time.wrapping_sub(now()).wrapping_sub(1) < HOLD_CLOSED
}

/// Sets the time of a connection that the PBX dialled from a port.
#[inline(always)]
fn hold(handshake: &mut Handshake, local: u16, time: u32) {
    handshake.held = time;
    if let Some(latest) = entry(local) {
        // SAFETY: a live map value; one word.
        unsafe {
            if !is_recent(*latest) || time.wrapping_sub(*latest).cast_signed() > 0 {
                *latest = time;
            }
        }
    }
}

/// The PBX has acknowledged the server's SYN: it can speak, if the server's window lets it.
#[inline(always)]
pub fn opened(handshake: &mut Handshake, local: u16) {
    if !is_ahead(handshake.held) {
        hold(handshake, local, now());
    }
}

/// The server has answered with a SYN of its own, and has not acknowledged the PBX's.
#[inline(always)]
pub fn opens(handshake: &mut Handshake, local: u16) {
    hold(handshake, local, now().wrapping_add(HOLD_CLOSED));
}

/// What a segment of the server without payload, of a handshake that the PBX began, says of its window. Not inlined, for the stack.
// own frame: 16 bytes
#[inline(never)]
pub fn window(ctx: &XdpContext, packet: &Packet, handshake: &mut Handshake) {
    let window = bytes::half(ctx, packet.l4_at as usize + tcp::WINDOW).unwrap_or(0);
    // What the PBX does not take opens nothing.
    let taken =
        handshake.kind == HANDSHAKE_DIALLED || packet.seq == handshake.peer_next && !checksum::is_wrong(ctx);
    let wait = match u16::from_be(window) {
        0 => HOLD_CLOSED,
        // In a scaled window it is more, and the server waits in vain.
        1..SMALL => HOLD_SMALL,
        _ if taken && (handshake.kind == HANDSHAKE_DIALLED || is_ahead(handshake.held)) => 0,
        _ => return,
    };
    hold(handshake, local(packet), now().wrapping_add(wait));
}

#[inline(always)]
fn local(packet: &Packet) -> u16 {
    u16::from_be((packet.key[8] >> 16) as u16)
}

/// Whether a server that the PBX dialled from this port is held back.
#[inline(always)]
pub fn is_held(local: u16) -> bool {
    // SAFETY: a live map value; one word.
    entry(local).is_some_and(|time| is_recent(unsafe { *time }))
}

/// Whether the PBX dialled a server from this port, and sent nothing from it since the time of holding back has passed.
#[inline(always)]
pub fn is_awaited(local: u16) -> bool {
    // SAFETY: a live map value; one word.
    entry(local).is_some_and(|time| unsafe { *time } != 0)
}

/// The PBX has sent something from this port, that is not SIP.
#[inline(always)]
pub fn settle(local: u16) {
    if let Some(time) = entry(local) {
        // SAFETY: a live map value; one word.
        unsafe {
            if !is_recent(*time) {
                *time = 0;
            }
        }
    }
}

/// Whether the bytes of a server are held back, on a connection on which the PBX has sent none. A segment without bytes says how large its window is.
// own frame: 32 bytes
#[inline(never)]
pub fn is_held_back(ctx: &XdpContext, packet: &Packet) -> bool {
    if settings::is_replay() || !is_held(local(packet)) {
        return false;
    }
    let Some(handshake) = handshake::get(&packet.key) else { return false };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind == HANDSHAKE_ANSWERED {
        return false;
    }
    if packet.data_len == 0 {
        if packet.acknowledged == handshake.pbx_next {
            window(ctx, packet, handshake);
        }
        return false;
    }
    let [remote @ .., _, _, _, _, _] = packet.key;
    // SAFETY: whether there is an entry, nothing of it.
    is_recent(handshake.held) && unsafe { GREETERS.get(remote) }.is_none()
}

/// The PBX has let a server speak first, and did not answer in SIP.
#[inline(always)]
pub fn learn(server: &Address) {
    // A full map evicts the oldest.
    let _forgotten = GREETERS.insert(server, 0, 0);
}
