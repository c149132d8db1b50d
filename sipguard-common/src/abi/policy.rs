//! Who is who: rules of hosts, prefixes, devices, SIP identities and user agents.

use bytemuck::{Pod, Zeroable};

/// [`Rule::expires_ns`] of a rule without end.
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
    /// What comes from there is stopped.
    pub const BLOCK: u16 = 1;
    /// What comes from there is not stopped by a block of a shorter prefix, and by nothing automatic.
    pub const ALLOW: u16 = 2;
    /// The block stops nothing: what it would stop is counted as that and goes on.
    pub const MONITOR: u16 = 4;
}

/// An address and a port: one device, also where others share its address.
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

/// The rule of a host, a prefix, a device, an identity or a user agent. At most one of [`rule_flags::BLOCK`] and [`rule_flags::ALLOW`] is set; none where the
/// entry says nothing but whose trunk it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rule {
    /// End of the block or the allowance (`CLOCK_BOOTTIME`, nanoseconds), or [`PERMANENT`]. The kernel side honours it by itself.
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
    /// Whether the rule holds at `now_ns` (`CLOCK_BOOTTIME`, nanoseconds).
    #[must_use]
    #[inline(always)]
    pub const fn is_active(&self, now_ns: u64) -> bool {
        now_ns < self.expires_ns
    }
}
