//! UDP datagrams in IP fragments.

use bytemuck::{Pod, Zeroable};

use crate::framer::Stream;

/// What identifies the fragments of one datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// Source address, IPv4 mapped.
    pub remote: [u8; 16],
    /// Destination address, IPv4 mapped.
    pub local: [u8; 16],
    /// Identification in network order; of IPv4 the first two bytes.
    pub id: [u8; 4],
}

/// Times in an entry of `EARLY_FRAGMENTS`.
pub const EARLY_SLOTS: usize = 16;

/// [`Datagram::state`]: the header section has not ended yet.
pub const DATAGRAM_OPEN: u32 = 0;
/// [`Datagram::state`]: the header section was valid; later fragments need no validation.
pub const DATAGRAM_JUDGED: u32 = 1;
/// [`Datagram::state`]: refused for [`Datagram::reason`], later fragments too.
pub const DATAGRAM_REFUSED: u32 = 2;

/// A datagram whose header section did not end in its first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Datagram {
    /// The framer's state after the byte before `next`.
    pub stream: Stream,
    /// Until when the kernel may hold fragments of it (`CLOCK_BOOTTIME`, nanoseconds).
    pub until_ns: u64,
    /// 1 while a CPU processes a fragment of it.
    pub busy: u64,
    /// Offset in bytes of the next expected fragment.
    pub next: u32,
    /// Offset in bytes of the datagram's end, by its UDP header.
    pub end: u32,
    /// One of the `DATAGRAM_` constants.
    pub state: u32,
    /// [`crate::Reason::number`] of a refused one.
    pub reason: u32,
    /// Source and destination port, network order.
    pub ports: [u8; 4],
    /// Zero.
    pub pad: u32,
}
