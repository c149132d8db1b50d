//! Who is blocked.

use bytemuck::{Pod, Zeroable};

/// [`Block::expires_ns`] of a block without end.
pub const PERMANENT: u64 = u64::MAX;

/// A block of a host or a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Block {
    /// End of the block (`CLOCK_BOOTTIME`, nanoseconds), or [`PERMANENT`]. The kernel side honours it by itself.
    pub expires_ns: u64,
    /// When it was set (`CLOCK_BOOTTIME`, nanoseconds).
    pub created_ns: u64,
    /// Packets that it stopped.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// Prefix length in bits of the IPv4-mapped address; 128 for a host.
    pub bits: u32,
    /// Zero.
    pub pad: u32,
}

impl Block {
    /// Whether the block holds at `now_ns` (`CLOCK_BOOTTIME`, nanoseconds).
    #[must_use]
    #[inline(always)]
    pub const fn holds(&self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }
}
