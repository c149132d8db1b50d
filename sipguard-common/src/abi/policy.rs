//! Rules of hosts, prefixes, devices, SIP identities and user agents.

use bytemuck::{Pod, Zeroable};

/// [`Rule::expires_ns`] of a permanent rule.
pub const PERMANENT: u64 = u64::MAX;

/// Rules of hosts that the map has room for.
pub const HOST_ENTRIES: u32 = 1 << 20;
/// Rules of prefixes.
pub const PREFIX_ENTRIES: u32 = 1 << 18;
/// Rules of devices.
pub const DEVICE_ENTRIES: u32 = 1 << 16;
/// Rules of SIP identities.
pub const IDENTITY_ENTRIES: u32 = 1 << 16;
/// Rules of user agents.
pub const USER_AGENT_ENTRIES: u32 = 1 << 12;

/// Bits of [`Rule::flags`].
pub mod rule_flags {
    /// Packets from there are stopped.
    pub const BLOCK: u16 = 1;
    /// Packets from there are not stopped by a block of a shorter prefix, nor by limits and bans.
    pub const ALLOW: u16 = 2;
    /// The block is in monitor mode: packets that it would stop are counted and continue.
    pub const MONITOR: u16 = 4;
}

/// An address and a port: one device, even where several share an address behind a NAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct DeviceKey {
    /// Address, IPv4 mapped.
    pub address: [u8; 16],
    /// Port, network order.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 2],
}

/// The rule of a host, a prefix, a device, an identity or a user agent. At most one of [`rule_flags::BLOCK`] and [`rule_flags::ALLOW`] is set; neither
/// where the entry only assigns a trunk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rule {
    /// End of the block or the allowance (`CLOCK_BOOTTIME`, nanoseconds), or [`PERMANENT`]. The program checks it itself.
    pub expires_ns: u64,
    /// Packets that it stopped, or would have stopped.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// Prefix length in bits: of the IPv4-mapped address (128 for a host), or of the user agent; 0 for an identity.
    pub bits: u16,
    /// [`rule_flags`].
    pub flags: u16,
    /// Index of the trunk whose peer it is, or 0.
    pub trunk: u16,
    /// Zero.
    pub pad: u16,
}

impl Rule {
    /// Whether the rule is active at `now_ns` (`CLOCK_BOOTTIME`, nanoseconds).
    #[must_use]
    #[inline(always)]
    pub const fn is_active(&self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }
}
