//! Bytes that a server sends on a connection that the PBX dialled before the PBX has sent any. The PBX's first bytes show whether the connection
//! carries SIP, and a SIP client sends them at once. So the bytes of a server whose port is not guarded are held back for a moment: they come again, and
//! are judged if the PBX speaks SIP. A server that speaks first by its protocol, as of SMTP, sends its bytes again after 200 ms at the earliest
//! (RFC 6298 section 2.4, `TCP_RTO_MIN`), and they pass; the next connections to it lose nothing.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use sipguard_common::abi::ANSWERED_SHIFT;

use crate::admit::rate;
use crate::cpu::scratch::Packet;
use crate::cpu::settings;
use crate::packet::ip::Address;

/// When a port that is not guarded answered a SYN of the PBX last, by the PBX's port, in units of [`ANSWERED_SHIFT`]; 0 when the PBX has said
/// something since.
#[map]
static ANSWERED: Array<u32> = Array::with_max_entries(1 << 16, 0);

/// Servers that greet. The value has no meaning.
#[map]
static GREETERS: LruHashMap<Address, u32> = LruHashMap::with_max_entries(1 << 12, 0);

/// How long a server's bytes are held back, in units: 180 ms.
const HOLD: u32 = 172;

/// Never 0.
#[inline(always)]
fn now() -> u32 {
    (rate::coarse_ns() >> ANSWERED_SHIFT) as u32 | 1
}

#[inline(always)]
fn entry(local: u16) -> Option<*mut u32> {
    ANSWERED.get_ptr_mut(u32::from(local))
}

/// A server has answered a SYN of the PBX.
#[inline(always)]
pub fn answered(local: u16) {
    if let Some(time) = entry(local) {
        // SAFETY: a live map value; one word.
        unsafe { *time = now() };
    }
}

/// Whether a server answered the PBX on this port a moment ago.
#[inline(always)]
pub fn is_answered(local: u16) -> bool {
    // SAFETY: a live map value; one word.
    entry(local).is_some_and(|time| is_recent(unsafe { *time }))
}

#[inline(always)]
fn is_recent(time: u32) -> bool {
    time != 0 && now().wrapping_sub(time) < HOLD
}

/// Whether a server answered the PBX on this port, and nothing was sent from it since the time of holding back has passed.
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

/// Whether the bytes of a server are held back while the PBX has sent none.
// own frame: 16 bytes
#[inline(never)]
pub fn is_held_back(packet: &Packet) -> bool {
    let [remote @ .., _, _, _, _, ports] = packet.key;
    packet.data_len != 0
        && !settings::is_replay()
        && is_answered(u16::from_be((ports >> 16) as u16))
        // SAFETY: whether there is an entry, nothing of it.
        && unsafe { GREETERS.get(remote) }.is_none()
}

/// The PBX has let a server speak first, and did not answer in SIP.
#[inline(always)]
pub fn learn(server: &Address) {
    // A full map evicts the oldest.
    let _forgotten = GREETERS.insert(server, 0, 0);
}
