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

/// What becomes of the next bytes of a connection: the number is [`Flow::state`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The position in the stream is known: the framer validates the bytes.
    InSync = 0,
    /// The position is not known: bytes pass unvalidated until a segment starts with a message.
    Desynchronised = 1,
    /// The stream is not validated any more. Everything that follows has the reason [`Flow::reason`]: the stream was malformed, or the guard
    /// itself failed and it passes.
    Rejected = 2,
    /// The PBX dialled a guarded port and has sent nothing yet: the first bytes from the peer wait until it has.
    AwaitingRequest = 3,
    /// The PBX dialled from a guarded port to another port and has sent nothing yet: bytes pass.
    AwaitingFirstBytes = 4,
    /// The PBX dialled and does not use SIP on it: not guarded.
    NotSip = 5,
}

impl FlowState {
    /// Every state, in the order of the numbers.
    pub const ALL: [FlowState; 6] = [
        FlowState::InSync,
        FlowState::Desynchronised,
        FlowState::Rejected,
        FlowState::AwaitingRequest,
        FlowState::AwaitingFirstBytes,
        FlowState::NotSip,
    ];

    /// The state of a number, as read from the map; `None` for a number that no state has.
    #[must_use]
    pub fn from_number(number: u32) -> Option<FlowState> {
        Self::ALL.get(number as usize).copied()
    }
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The stream is SIP over TLS.
    pub const TLS: u32 = 1;
    /// The position is tentative: it is where something looked like the start of a message, and no message was completed since.
    pub const TENTATIVE: u32 = 2;
    /// The stream was malformed and counted as a violation of its sender.
    pub const VIOLATION: u32 = 4;
    /// The connection was picked up mid-stream, from the PBX's own segments.
    pub const PICKED_UP: u32 = 8;
    /// [`super::Flow::timestamp`] is valid.
    pub const TIMESTAMPS: u32 = 16;
    /// The sender's FIN has followed the last byte.
    pub const FIN_SEEN: u32 = 32;
    /// The connection is this host's own: there is a socket.
    pub const LOCAL: u32 = 64;
    /// The connection begins with a PROXY header: its peer is of a trunk of balancers.
    pub const PROXY: u32 = 128;
    /// [`super::Flow::client`] is valid.
    pub const CLIENT: u32 = 256;
    /// A fault that is only monitored left it uncertain where the messages end: what is no message's start passes.
    pub const FRAMING_LOST: u32 = 512;
}

/// A handshake that the PBX answered or began: the next sequence numbers of both sides once it is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Handshake {
    /// Sequence number of the peer's first byte; 0 until it is known.
    pub peer_next: u32,
    /// Sequence number of the PBX's first byte. Only a peer that received the PBX's segment can acknowledge it.
    pub pbx_next: u32,
    /// [`HANDSHAKE_ANSWERED`], [`HANDSHAKE_DIALLED`] or [`HANDSHAKE_OPEN`].
    pub kind: u32,
    /// From when on the time counts in which the peer's bytes are held back, in units of [`ANSWERED_SHIFT`]; it may lie ahead.
    pub held: u32,
}

/// The PBX answered a SYN.
pub const HANDSHAKE_ANSWERED: u32 = 1;
/// The PBX sent a SYN.
pub const HANDSHAKE_DIALLED: u32 = 2;
/// The PBX sent a SYN, to or from a port that is not guarded, and has acknowledged the answer.
pub const HANDSHAKE_OPEN: u32 = 3;

/// Times in `ANSWERED` and [`Handshake::held`] are of `CLOCK_MONOTONIC`, in units of 2 to this power of nanoseconds (1.05 ms), with the lowest bit set.
pub const ANSWERED_SHIFT: u32 = 20;

/// [`Flow::ended`]: the kernel has closed the socket, or the PBX has reset the connection or acknowledged the sender's FIN.
pub const FLOW_ENDED: u32 = 1;

/// The sequence numbers of an answered handshake in one word: [`Handshake::peer_next`] in the high half, [`Handshake::pbx_next`] in the low half.
#[must_use]
#[inline(always)]
pub const fn pack_handshake(peer_next: u32, pbx_next: u32) -> u64 {
    (peer_next as u64) << 32 | pbx_next as u64
}

/// A validated segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentRecord {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Its length in bytes; 0 marks an empty record.
    pub len: u16,
    /// How many of its first bytes the hash covers. The others are of a body, which is not inspected.
    pub hashed: u16,
    /// [`Stream::place`] before its first byte.
    pub before: u32,
    /// [`Stream::place`] behind its last byte.
    pub behind: u32,
    /// Keyed hash of those bytes.
    pub hash: u64,
}

/// A [`SegmentRecord`] that left its flow before the receiver had acknowledged it. The key is [`SpillKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SpilledRecord {
    /// The record.
    pub record: SegmentRecord,
    /// [`Flow::first_ns`] of its flow: a later one of the same ports is another.
    pub first_ns: u64,
    /// [`Flow::first`] of its flow, which a flow that is synchronised anew changes.
    pub first: u32,
    /// Zero.
    pub pad: u32,
}

/// Whose record, and of which segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SpillKey {
    /// The flow's key.
    pub flow: FlowKey,
    /// Sequence number of the segment's first byte.
    pub seq: u32,
}

/// One direction (remote to PBX) of a connection whose handshake was verified, or that the kernel or the PBX's segments revealed.
///
/// The program that sees what the PBX sends writes `pending_handshake`, `acked`, `sent`, `egress_known` and `ended`; all other fields are written by
/// the holder of `lock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// 0, or the token of the CPU that processes a segment of the flow.
    pub lock: u64,
    /// A newer handshake of the same ports that the PBX has answered: [`pack_handshake`], or 0.
    pub pending_handshake: u64,
    /// [`pack_handshake`] of the handshake that created the flow, or 0: a repeated SYN-ACK of it is not a newer handshake.
    pub current_handshake: u64,
    /// The PBX's last acknowledgement: the next byte that it accepts (RCV.NXT).
    pub acked: u32,
    /// Sequence number behind the last byte that the PBX sent (SND.NXT).
    pub sent: u32,
    /// 1 once `acked` and `sent` are known.
    pub egress_known: u32,
    /// 0, or [`FLOW_ENDED`].
    pub ended: u32,
    /// Number of a [`FlowState`].
    pub state: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// Sequence number of the next byte to validate.
    pub next: u32,
    /// Sequence number of the first tracked byte.
    pub first: u32,
    /// The peer's last acknowledgement (SND.UNA).
    pub una: u32,
    /// The sender's timestamp in the last validated segment (RFC 7323).
    pub timestamp: u32,
    /// [`crate::Reason::number`] of a rejected flow.
    pub reason: u8,
    /// Conflicts since a byte was validated last.
    pub conflicts: u8,
    /// Index in `segments` of the next record, modulo [`FLOW_SEGMENTS`], which is a power of two.
    pub segment_at: u16,
    /// Slot of the interface of the first segment.
    pub slot: u32,
    /// The segments validated last.
    pub segments: [SegmentRecord; FLOW_SEGMENTS],
    /// The framer's state after the byte before `next`.
    pub stream: Stream,
    /// When the flow was created (`CLOCK_BOOTTIME`, nanoseconds).
    pub first_ns: u64,
    /// Time of the first segment of the incomplete message (`CLOCK_BOOTTIME`, nanoseconds).
    pub message_ns: u64,
    /// Segments of that message.
    pub message_segments: u32,
    /// [`super::Ticket`] of that message, or 0 when it is not counted.
    pub unfinished: u32,
    /// Port of `client`, network order.
    pub client_port: u32,
    /// Address of the client behind a balancer, by the PROXY header: IPv4 mapped, as words in network order.
    pub client: [u32; 4],
    /// Zero.
    pub pad: u32,
}

impl Flow {
    /// Whether the flow is in a state.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, state: FlowState) -> bool {
        self.state == state as u32
    }
}
