//! Where a connection's stream begins: by the word of the kernel, or by the handshake as it was seen.
//!
//! A connection of this host needs no bookkeeping: its socket knows. Only once payload came for a connection that the kernel does
//! not have (the PBX runs in a container or a virtual machine behind a bridge) handshakes are noted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::flow_flags;

use crate::scratch::{Key, Packet};
use crate::tcp::{FIN, RST, SYN};
use crate::{flow, socket};

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
fn are_noted() -> bool {
    FOREIGN.get(0).is_some_and(|foreign| *foreign != 0)
}

/// The place of a connection that is not followed yet.
///
/// # Errors
/// [`Reason::NoConnection`] when neither kernel nor handshake know of it.
#[inline(always)]
pub fn place(ctx: &XdpContext, packet: &Packet) -> Result<Place, Reason> {
    let socket = socket::ask(ctx, packet);
    if socket.known {
        return Ok(Place { next: socket.rcv_nxt, fresh: socket.fresh });
    }
    if let Some(foreign) = FOREIGN.get_ptr_mut(0) {
        // SAFETY: a live map value; every CPU writes the same.
        unsafe { *foreign = 1 };
    }
    if let Some(first) = HANDSHAKES.get_ptr(&packet.key) {
        // SAFETY: a live map value.
        return Ok(Place { next: unsafe { *first }, fresh: true });
    }
    if socket.connected { Ok(Place { next: packet.seq, fresh: false }) } else { Err(Reason::NoConnection) }
}

/// Takes note of a handshake or an end. They change state only where the endpoint would act on them, or else anyone who knows the
/// 4-tuple could make the guard forget a connection.
#[inline(always)]
pub fn note(ctx: &XdpContext, packet: &Packet) {
    if !are_noted() {
        return;
    }
    let key = &packet.key;
    let flow = flow::lookup(key);
    if packet.has(SYN) {
        if let Some(flow) = flow {
            // SAFETY: a live map value.
            let closing = unsafe { (*flow).flags & flow_flags::CLOSING != 0 };
            if !closing && socket::ask(ctx, packet).connected {
                return;
            }
            flow::forget(key);
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
