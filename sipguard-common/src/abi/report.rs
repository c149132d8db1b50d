//! What the program reports: counters, offenders, interfaces.

use bytemuck::{Pod, Zeroable};

/// Interfaces that can be attached at once.
pub const IFACE_SLOTS: u32 = 16;
/// Counters per interface and outcome; [`crate::Reason::COUNT`] may grow to this.
pub const REASON_SLOTS: u32 = 88;
/// Bytes kept of an offender's segment.
pub const SAMPLE_BYTES: usize = 1024;
/// Where the line at fault begins further back in the segment, the sample has so many bytes from there on.
pub const SAMPLE_BEHIND: u32 = 256;
/// [`Offender::fault_at`] where it is not known.
pub const NO_FAULT: u32 = 1 << 31;

/// The outcome for a packet. A reason has a separate counter for each.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed where its reason is of [`crate::Class::Pass`], and was dropped where it is not.
    Plain = 0,
    /// It was turned into a reset of its connection.
    Reset = 1,
    /// `monitor` mode let it pass; else it would have been dropped.
    WouldDrop = 2,
    /// `monitor` mode let it pass; else it would have been turned into a reset.
    WouldReset = 3,
}

impl Outcome {
    /// In the order of their numbers.
    pub const ALL: [Outcome; 4] = [Outcome::Plain, Outcome::Reset, Outcome::WouldDrop, Outcome::WouldReset];

    /// Of a packet that is stopped by a reset or by a drop, or would be if `monitored` were false.
    #[must_use]
    #[inline(always)]
    pub const fn new(resets: bool, monitored: bool) -> Outcome {
        match (resets, monitored) {
            (false, false) => Outcome::Plain,
            (true, false) => Outcome::Reset,
            (false, true) => Outcome::WouldDrop,
            (true, true) => Outcome::WouldReset,
        }
    }

    /// The outcome of a number; only the lowest two bits are used.
    #[must_use]
    pub const fn from_number(number: u8) -> Outcome {
        Self::ALL[(number & 3) as usize]
    }
}

/// Entries of `COUNTERS`.
pub const COUNTER_ENTRIES: u32 = IFACE_SLOTS * REASON_SLOTS * Outcome::ALL.len() as u32;

/// Index in `COUNTERS` of an interface's slot, an outcome and a reason's number.
#[must_use]
#[inline(always)]
pub const fn counter_index(slot: u32, outcome: Outcome, reason: u8) -> u32 {
    (slot * Outcome::ALL.len() as u32 + outcome as u32) * REASON_SLOTS + reason as u32
}

/// Entries of `TRUNK_COUNTERS`.
pub const TRUNK_COUNTER_ENTRIES: u32 = super::TRUNK_ENTRIES * REASON_SLOTS * Outcome::ALL.len() as u32;

/// Index in `TRUNK_COUNTERS` of a trunk, an outcome and a reason's number.
#[must_use]
#[inline(always)]
pub const fn trunk_counter_index(trunk: u32, outcome: Outcome, reason: u8) -> u32 {
    counter_index(trunk, outcome, reason)
}

/// One counter of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
}

/// What the program returns in a replay: the XDP action in the lowest byte, and above it the verdict. Otherwise it returns the action alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayVerdict(pub u32);

impl ReplayVerdict {
    /// A reason's number, the index of a trunk (0 for none), and what became of the packet.
    #[must_use]
    #[inline(always)]
    pub const fn new(reason: u8, trunk: u32, outcome: Outcome) -> ReplayVerdict {
        ReplayVerdict((reason as u32) << 8 | (trunk & 0xff) << 16 | (outcome as u32) << 24)
    }

    /// The XDP action.
    #[must_use]
    pub const fn action(self) -> u32 {
        self.0 & 0xff
    }

    /// [`crate::Reason::number`].
    #[must_use]
    pub const fn reason(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Index of the trunk, or 0.
    #[must_use]
    pub const fn trunk(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// What became of the packet.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        Outcome::from_number((self.0 >> 24) as u8)
    }
}

/// A sender of malformed traffic, and a reason: one remote address, port and reason. Port 0 has all that came from the address with this reason,
/// so that its sum stays when entries of ports go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct OffenderKey {
    /// Remote address, IPv4 mapped.
    pub address: [u8; 16],
    /// Remote port, network order. It distinguishes devices behind a NAT.
    pub port: [u8; 2],
    /// [`crate::Reason::number`].
    pub reason: u8,
    /// Zero.
    pub pad: u8,
}

/// What an offender sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Offender {
    /// Faulty segments.
    pub packets: u64,
    /// First time (`CLOCK_BOOTTIME`, nanoseconds).
    pub first_ns: u64,
    /// Last time (`CLOCK_BOOTTIME`, nanoseconds).
    pub last_ns: u64,
    /// How many came lately, as [`super::Tally`] of `CLOCK_BOOTTIME`.
    pub tally: u64,
    /// How many of them passed, since monitor mode or a check that only counts let them.
    pub passed: u64,
    /// How many bytes of `sample` are used.
    pub sample_len: u32,
    /// Slot of the interface that it came in by.
    pub slot: u32,
    /// Offset in the first faulty segment of the first byte of `sample`.
    pub sample_at: u32,
    /// Offset in that segment of the line at fault, two's complement: negative where the line began in an earlier one. [`NO_FAULT`] where it is not known.
    pub fault_at: u32,
    /// Bytes of the first faulty segment.
    pub sample: [u8; SAMPLE_BYTES],
}

/// [`Iface::clsact`]: a filter of a `clsact` qdisc that was created for it.
pub const CLSACT_MADE: u32 = 1;
/// [`Iface::clsact`]: a filter of a `clsact` qdisc that existed before.
pub const CLSACT_FOUND: u32 = 2;

/// An attached interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Iface {
    /// Name when it was attached, NUL padded (`IFNAMSIZ`).
    pub name: [u8; 16],
    /// Interface index; 0 marks a free slot.
    pub ifindex: u32,
    /// Why native mode failed: an `errno`, or 0 when it was not tried or worked.
    pub native_errno: u32,
    /// When it was attached (`CLOCK_BOOTTIME`, nanoseconds).
    pub attached_ns: u64,
    /// 1 when the operator requested generic mode.
    pub generic_wanted: u32,
    /// How the egress program is attached where it is not by a link: [`CLSACT_MADE`] or [`CLSACT_FOUND`], else 0.
    pub clsact: u32,
    /// Cookie of its network namespace; 0 where that is not known.
    pub netns: u64,
}
