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

/// What becomes of the next bytes of a connection: [`Flow::state`].
pub mod flow_state {
    /// The framer judges them.
    pub const FOLLOWED: u32 = 0;
    /// The framer does not know where it is: bytes pass unjudged until a segment starts with a message.
    pub const LOST: u32 = 1;
    /// The stream is not judged any more, and everything that follows ends for [`super::Flow::reason`]: it was malformed, or the guard
    /// itself failed and it passes.
    pub const CUT: u32 = 2;
    /// The PBX dialled a port that is guarded and has sent nothing yet: what is no SIP waits until it has.
    pub const EXPECTED: u32 = 3;
    /// The PBX dialled another port from one that is guarded, and has sent nothing yet: bytes pass.
    pub const SILENT: u32 = 4;
    /// The PBX dialled and speaks no SIP: not guarded.
    pub const OTHER: u32 = 5;
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// SIP over TLS.
    pub const TLS: u32 = 1;
    /// The place in the stream was guessed, by what looked like a beginning; until the first message is complete.
    pub const GUESSED: u32 = 2;
    /// The stream was malformed and counted against its sender.
    pub const STRUCK: u32 = 4;
    /// The PBX's own segments told of a connection that was unknown.
    pub const ADOPTED: u32 = 8;
    /// [`super::Flow::timestamp`] is one.
    pub const TIMED: u32 = 16;
    /// The sender's FIN came behind the last byte.
    pub const FINISHED: u32 = 32;
    /// The connection is this host's own: a socket knows it.
    pub const LOCAL: u32 = 64;
}

/// A handshake that the PBX answered or began: how both sides go on when it is true.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Handshake {
    /// Sequence number of the peer's first byte; 0 until it is known.
    pub peer_next: u32,
    /// Sequence number of the PBX's first byte, which only who saw the PBX's segment can acknowledge.
    pub pbx_next: u32,
    /// [`HANDSHAKE_ANSWERED`] or [`HANDSHAKE_DIALLED`].
    pub kind: u32,
}

/// The PBX answered a SYN.
pub const HANDSHAKE_ANSWERED: u32 = 1;
/// The PBX sent a SYN.
pub const HANDSHAKE_DIALLED: u32 = 2;

/// The connection has ended, by the word of the kernel that had it, or of the PBX that resets it or has the sender's FIN.
pub const FLOW_ENDED: u32 = 1;

/// [`Flow::offer`] of an answered handshake.
#[must_use]
#[inline(always)]
pub const fn offer(peer_next: u32, pbx_next: u32) -> u64 {
    (peer_next as u64) << 32 | pbx_next as u64
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

/// One direction (remote to PBX) of one connection, whose handshake was verified or of which the kernel or the PBX told.
///
/// The program that sees what the PBX sends writes `offer`, `acked`, `sent`, `heard` and `ended`; all else is written by whoever
/// holds `lock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// 0, or the token of the CPU that judges a segment of it.
    pub lock: u64,
    /// The PBX answered another handshake of the same ports: [`offer`], or 0.
    pub offer: u64,
    /// [`offer`] of the handshake that began it, or 0: a repeated SYN-ACK of it offers nothing.
    pub begun: u64,
    /// What the PBX acknowledged last: the next byte that it takes.
    pub acked: u32,
    /// Sequence number behind the last byte that the PBX sent.
    pub sent: u32,
    /// 1 once `acked` and `sent` are known.
    pub heard: u32,
    /// 0, or [`FLOW_ENDED`].
    pub ended: u32,
    /// One of [`flow_state`].
    pub state: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// Sequence number of the next byte to validate.
    pub next: u32,
    /// Sequence number of the first byte that was followed.
    pub first: u32,
    /// What the peer has acknowledged of what the PBX sent.
    pub una: u32,
    /// The sender's clock in the last segment that was validated (RFC 7323).
    pub timestamp: u32,
    /// [`crate::Reason::number`] of a cut flow.
    pub reason: u8,
    /// Conflicts since a byte was validated last.
    pub conflicts: u8,
    /// Where the next record goes in `segments`, modulo [`FLOW_SEGMENTS`].
    pub segment_at: u16,
    /// Slot of the interface that it came by first.
    pub slot: u32,
    /// The segments validated last.
    pub segments: [Segment; FLOW_SEGMENTS],
    /// The framer's state after the byte before `next`.
    pub stream: Stream,
    /// When it began (`CLOCK_BOOTTIME`, nanoseconds).
    pub first_ns: u64,
    /// First segment of the message that is under way (`CLOCK_BOOTTIME`, nanoseconds).
    pub message_ns: u64,
    /// Segments of that message.
    pub message_segments: u32,
    /// Zero.
    pub pad: u32,
}
