//! Observation points: events, packets of a capture, and the last packets of each device. All are rings of [`PacketRecord`] that any number of
//! readers map into their memory. Readers remove nothing, and the writer never waits.

use bytemuck::{Pod, Zeroable};

/// Most bytes of a frame in a record: a whole frame with an MTU of 1500 and two VLAN tags.
pub const RECORD_BYTES: usize = 1536;
/// Entries of `EVENTS`, a power of two.
pub const EVENT_ENTRIES: u32 = 1 << 10;
/// Entries of `CAPTURED`, a power of two.
pub const CAPTURED_ENTRIES: u32 = 1 << 10;
/// Packets kept in each slot of `RECORDED`, a power of two.
pub const PACKETS_PER_SLOT: u32 = 4;
/// Slots of `RECORDED`, a power of two. A device always has the same slot; a few devices may share one.
pub const RECORDED_SLOTS: u32 = 1 << 10;
/// Entries of `RECORDED`.
pub const RECORDED_ENTRIES: u32 = RECORDED_SLOTS * PACKETS_PER_SLOT;
/// Entries of `EVENT_GATES`, a power of two.
pub const EVENT_LIMITER_ENTRIES: u32 = 1 << 12;

/// A source and reason has one event in this many nanoseconds; the next says how many packets there were.
pub const EVENT_INTERVAL_NS: u64 = 10_000_000_000;
/// Nanoseconds between events of one CPU in the long run.
pub const EVENT_COST_NS: u64 = 5_000_000;
/// Events that one CPU may make at once.
pub const EVENT_BURST: u64 = 200;

/// Position in `CURSORS` of the number of events.
pub const CURSOR_EVENTS: u32 = 0;
/// Position in `CURSORS` of the number of captured packets.
pub const CURSOR_CAPTURED: u32 = 1;
/// Position in `CURSORS` of the first slot of `RECORDED`; the others follow.
pub const CURSOR_RECORDED: u32 = 8;
/// Entries of `CURSORS`.
pub const CURSOR_ENTRIES: u32 = CURSOR_RECORDED + RECORDED_SLOTS;

/// A packet, in a ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PacketRecord {
    /// Its number in the ring plus one, in `RECORDED` its number in the slot; 0 while it is being written. A reader that finds another number
    /// afterwards than before has read two packets.
    pub number: u64,
    /// When it came (`CLOCK_BOOTTIME`, nanoseconds).
    pub time_ns: u64,
    /// In an event, packets of its source and reason since the last event of the two, itself included. Else 1.
    pub count: u64,
    /// Length of the frame in bytes.
    pub frame_len: u32,
    /// How many bytes of it are in `bytes`.
    pub captured: u32,
    /// Slot of the interface.
    pub slot: u32,
    /// [`crate::Reason::number`].
    pub reason: u8,
    /// Number of the [`super::Outcome`].
    pub outcome: u8,
    /// Index of the trunk, or 0.
    pub trunk: u8,
    /// Zero.
    pub pad: u8,
    /// Address of the client where a balancer's connection carried the packet: IPv4 mapped, as words in network order; else zeros.
    pub client: [u32; 4],
    /// Port of the client, network order.
    pub client_port: u32,
    /// Zero.
    pub rest: u32,
    /// The frame from its Ethernet header on, as it came.
    pub bytes: [u8; RECORD_BYTES],
}

/// What is recorded in addition to events: the only entry of `TAPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ObserveSettings {
    /// Until when packets are captured (`CLOCK_BOOTTIME`, nanoseconds). A lease that the capturing process renews, so that the capture ends
    /// with the process.
    pub capture_until_ns: u64,
    /// Sources to capture: the address, IPv4 mapped, with zeros behind the prefix.
    pub source: [u8; 16],
    /// The prefix as a mask; all zeros for every source.
    pub mask: [u8; 16],
    /// Port to capture, network order; zero for every port.
    pub port: [u8; 2],
    /// Which packets to capture: [`CAPTURE_DROPPED`], [`CAPTURE_PASSED`] or both.
    pub verdicts: u8,
    /// 1 when the last packets of each device are kept in `RECORDED`.
    pub records: u8,
    /// Zero.
    pub pad: u32,
}

/// Capture what was dropped or reset, or would have been in `monitor` mode.
pub const CAPTURE_DROPPED: u8 = 1;
/// Capture what passed.
pub const CAPTURE_PASSED: u8 = 2;

/// Rate limiter of the events of a source and reason: an entry of `EVENT_GATES`. Userspace does not read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EventLimiter {
    /// Hash of the source and the reason.
    pub tag: u64,
    /// Before this time there is no other event (`CLOCK_MONOTONIC`, nanoseconds).
    pub next_ns: u64,
    /// Packets since the last event.
    pub count: u64,
}

/// Rate limiter of the events of one CPU: an entry of `EVENT_BUDGETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EventBucket {
    /// Theoretical arrival time of the next event (`CLOCK_MONOTONIC`, nanoseconds).
    pub tat_ns: u64,
    /// Packets without an event, because there were too many at once.
    pub lost: u64,
}
