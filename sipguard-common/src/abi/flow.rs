//! The guarded TCP connections.

use bytemuck::{Pod, Zeroable};

use crate::framer::Stream;

/// Segments remembered for the comparison of retransmissions.
pub const FLOW_SEGMENTS: usize = 4;

/// The 4-tuple as the PBX sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowKey {
    /// Address of the device or trunk, IPv4 mapped.
    pub remote: [u8; 16],
    /// Address of the PBX, IPv4 mapped.
    pub local: [u8; 16],
    /// Port of the device or trunk, network order.
    pub remote_port: [u8; 2],
    /// Port of the PBX, network order.
    pub local_port: [u8; 2],
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The stream is not judged any more, and everything that follows ends for [`super::Flow::reason`]: it was malformed, or the guard
    /// itself failed and it passes.
    pub const CUT: u32 = 1;
    /// The framer does not know where it is: bytes pass unjudged until a segment starts with a message.
    pub const LOST: u32 = 2;
    /// A connection to a TLS port.
    pub const TLS: u32 = 4;
    /// The place in the stream was guessed, by what looked like a beginning; until the first message is complete.
    pub const GUESSED: u32 = 8;
    /// The stream was malformed and counted against its sender.
    pub const STRUCK: u32 = 16;
}

/// A validated segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Its length in bytes; 0 marks an empty record.
    pub len: u16,
    /// How many of its first bytes the hash stands for. The others are of a body, whose bytes nobody looks at.
    pub hashed: u16,
    /// Keyed hash of those bytes.
    pub hash: u64,
}

/// One direction (remote to PBX) of one connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// Sequence number of the next byte to validate.
    pub next: u32,
    /// Sequence number of the first byte that was followed.
    pub first: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// [`crate::Reason::number`] of a cut flow.
    pub reason: u8,
    /// Conflicts since a byte was validated last.
    pub conflicts: u8,
    /// Where the next record goes in `segments`, modulo [`FLOW_SEGMENTS`].
    pub segment_at: u16,
    /// The segments validated last.
    pub segments: [Segment; FLOW_SEGMENTS],
    /// The framer's state after the byte before `next`.
    pub stream: Stream,
    /// First segment (`CLOCK_BOOTTIME`, nanoseconds).
    pub first_ns: u64,
    /// First segment of the message that is under way (`CLOCK_BOOTTIME`, nanoseconds).
    pub message_ns: u64,
    /// Segments of that message.
    pub message_segments: u32,
    /// Zero.
    pub pad: u32,
}
