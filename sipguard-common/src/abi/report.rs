//! What the kernel side tells: counters, offenders, interfaces.

use bytemuck::{Pod, Zeroable};

/// Interfaces that can be attached at once.
pub const IFACE_SLOTS: u32 = 16;
/// Counters of one interface; [`crate::Reason::COUNT`] may grow to this.
pub const REASON_SLOTS: u32 = 64;
/// Bytes kept of an offender's segment.
pub const SAMPLE_BYTES: usize = 64;

/// Entries of `COUNTERS`.
pub const COUNTER_ENTRIES: u32 = IFACE_SLOTS * REASON_SLOTS * 2;

/// Index in `COUNTERS` of an interface's slot and a reason's number. What `monitor` mode let pass although its reason would have
/// stopped it is counted apart.
#[must_use]
#[inline(always)]
pub const fn counter_index(slot: u32, let_pass: bool, reason: u8) -> u32 {
    (slot * 2 + let_pass as u32) * REASON_SLOTS + reason as u32
}

/// Entries of `TRUNK_COUNTERS`.
pub const TRUNK_COUNTER_ENTRIES: u32 = super::TRUNK_ENTRIES * REASON_SLOTS * 2;

/// Index in `TRUNK_COUNTERS` of a trunk and a reason's number; see [`counter_index`].
#[must_use]
#[inline(always)]
pub const fn trunk_counter_index(trunk: u32, let_pass: bool, reason: u8) -> u32 {
    (trunk * 2 + let_pass as u32) * REASON_SLOTS + reason as u32
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

/// What the program returns in a replay: XDP's action in the lowest byte, and above it what was judged. Elsewhere it returns the action alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told(pub u32);

impl Told {
    /// A reason's number, the index of a trunk (0 for none), and whether `monitor` mode let pass what would have been stopped.
    #[must_use]
    #[inline(always)]
    pub const fn new(reason: u8, trunk: u32, let_pass: bool) -> Told {
        Told((reason as u32) << 8 | (trunk & 0xff) << 16 | (let_pass as u32) << 24)
    }

    /// XDP's action.
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

    /// Whether `monitor` mode let it pass.
    #[must_use]
    pub const fn let_pass(self) -> bool {
        self.0 >> 24 != 0
    }
}

/// Whose malformed traffic it was: one remote address, port and reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct OffenderKey {
    /// Remote address, IPv4 mapped.
    pub address: [u8; 16],
    /// Remote port, network order. Behind a NAT it is what tells one device from its neighbours.
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
    /// How many bytes of `sample` are meant.
    pub sample_len: u32,
    /// Slot of the interface that it came in by.
    pub slot: u32,
    /// The first bytes of the first faulty segment.
    pub sample: [u8; SAMPLE_BYTES],
}

/// An attached interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Iface {
    /// Name when it was attached, NUL padded (`IFNAMSIZ`).
    pub name: [u8; 16],
    /// Interface index; 0 marks a free slot.
    pub ifindex: u32,
    /// Why native mode could not be had: an `errno`, or 0 when it was not tried or worked.
    pub native_errno: u32,
    /// When it was attached (`CLOCK_BOOTTIME`, nanoseconds).
    pub attached_ns: u64,
    /// 1 when generic mode was asked for by the operator.
    pub generic_wanted: u32,
    /// Zero.
    pub pad: u32,
    /// Cookie of its network namespace; 0 where that is not known.
    pub netns: u64,
}
