//! Where a connection's stream begins: by the word of the kernel, or by the handshake as it was seen.
//!
//! A connection of this host needs no bookkeeping: its socket knows. Only once payload came for a connection that the kernel does
//! not have (the PBX runs in a container or a virtual machine behind a bridge) handshakes are noted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use crate::scratch::{Key, Packet};
use crate::socket;

/// Handshakes whose first payload has not come yet, with the sequence number that it will have. Apart from the flows, so that
/// a flood of SYNs can't push connections out.
#[map]
static HANDSHAKES: LruHashMap<Key, u32> = LruHashMap::with_max_entries(1 << 14, 0);

#[map]
static FOREIGN: Array<u32> = Array::with_max_entries(1, 0);

/// Where a stream begins.
pub struct Place {
    /// Sequence number of the next byte.
    pub next: u32,
    /// Whether it is the stream's first.
    pub fresh: bool,
    /// Whether that is known from a handshake alone.
    pub noted: bool,
}

/// A flow was opened: what was noted of its handshake is not needed any more, and must not speak for it once it is forgotten.
#[inline(always)]
pub fn forget(key: &Key) {
    if are_noted() {
        let _ = HANDSHAKES.remove(key);
    }
}

/// Whether handshakes are noted.
#[inline(always)]
pub fn are_noted() -> bool {
    FOREIGN.get(0).is_some_and(|foreign| *foreign != 0)
}

/// The place of a connection that is not followed yet.
///
/// # Errors
/// [`Reason::NoConnection`] when neither kernel nor handshake know of it.
#[inline(always)]
pub fn place(ctx: &XdpContext, packet: &Packet) -> Result<Place, Reason> {
    let socket = socket::ask(ctx, packet);
    if socket.cookie {
        return Ok(Place { next: packet.seq, fresh: true, noted: false });
    }
    if socket.local {
        return Err(Reason::NoConnection);
    }
    if socket.known {
        return Ok(Place { next: socket.rcv_nxt, fresh: socket.fresh, noted: false });
    }
    if let Some(foreign) = FOREIGN.get_ptr_mut(0) {
        // SAFETY: a live map value; every CPU writes the same.
        unsafe { *foreign = 1 };
    }
    if let Some(first) = HANDSHAKES.get_ptr(&packet.key) {
        // SAFETY: a live map value.
        return Ok(Place { next: unsafe { *first }, fresh: true, noted: true });
    }
    if socket.connected {
        Ok(Place { next: packet.seq, fresh: false, noted: false })
    } else {
        Err(Reason::NoConnection)
    }
}

/// Whether the segment is the first of a connection whose handshake was noted.
#[inline(always)]
pub fn begins(packet: &Packet) -> bool {
    // SAFETY: a live map value.
    are_noted() && HANDSHAKES.get_ptr(&packet.key).is_some_and(|first| unsafe { *first == packet.seq })
}

/// Takes note of a handshake. It changes nothing about a flow of the same ports: anyone who knows them could send a SYN, which an
/// established endpoint ignores.
#[inline(always)]
pub fn note(packet: &Packet) {
    if are_noted() {
        let _ = HANDSHAKES.insert(&packet.key, packet.seq.wrapping_add(1), 0);
    }
}
