//! Settings of the whole guard.

use bytemuck::{Pod, Zeroable};

use super::{BanPolicy, CheckSwitches, Denied, Rates};
use crate::framer::{HashKeys, Limits};

/// Drop and reset.
pub const MODE_ENFORCE: u32 = 0;
/// Only count; packets that would be stopped pass.
pub const MODE_MONITOR: u32 = 1;

/// A malformed stream is reset: the segment becomes a RST for the PBX's socket.
pub const ACTION_RESET: u32 = 0;
/// A malformed stream is rejected without a reset: this segment and all that follow are dropped.
pub const ACTION_DROP: u32 = 1;

/// Words of 64 ports in the bitmap of guarded ports.
pub const PORT_WORDS: u32 = 65536 / 64;
/// Entries of `PORTS`: the bitmap of SIP ports, then that of TLS ports.
pub const PORT_ENTRIES: u32 = 2 * PORT_WORDS;

/// The only entry of the `SETTINGS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// [`MODE_ENFORCE`] or [`MODE_MONITOR`].
    pub mode: u32,
    /// [`ACTION_RESET`] or [`ACTION_DROP`].
    pub action: u32,
    /// Until this time (`CLOCK_BOOTTIME`, nanoseconds) the middle of a message on an unknown connection passes.
    pub grace_until_ns: u64,
    /// Limits and checks of the framer.
    pub limits: Limits,
    /// Secrets of the retransmission hash, so that nobody can prepare two segments with one hash.
    pub hash_keys: HashKeys,
    /// What may not be sent: by devices, which belong to no trunk, and by trunks.
    pub denied: [Denied; 2],
    /// Which rules there are, so that empty maps are not looked up: bits of [`rules_in_use`].
    pub rules: u32,
    /// Well-formed messages on connections that the kernel has, after which a source is trusted.
    pub trust_after: u32,
    /// Rate limits of a source that belongs to no trunk.
    pub rates: Rates,
    /// Factor of the rate limits of a trusted source.
    pub trust_factor: u32,
    /// How many TCP connections a source that belongs to no trunk may have open at once; 0 is no limit.
    pub open: u32,
    /// How many messages a source that belongs to no trunk may have begun and not finished on TCP connections; 0 is no limit.
    pub unfinished: u32,
    /// Which limits of a source that belongs to no trunk only count what is over them: bits of [`crate::Reason::limit_bit`].
    pub monitored_limits: u32,
    /// When a sender is banned, and for how long.
    pub bans: BanPolicy,
    /// Which checks are not enforced on senders that belong to no trunk.
    pub checks: CheckSwitches,
}

/// Position of devices in [`Settings::denied`]: senders that belong to no trunk.
pub const CLASS_DEVICES: usize = 0;
/// Position of trunks in [`Settings::denied`].
pub const CLASS_TRUNKS: usize = 1;

/// Bits of [`Settings::rules`].
pub mod rules_in_use {
    /// There are rules of devices, by address and port.
    pub const DEVICES: u32 = 1;
    /// There are rate limits or bans per source.
    pub const RATES: u32 = 2;
    /// There are limits of open connections.
    pub const OPEN: u32 = 4;
    /// There are rules of SIP identities.
    pub const IDENTITIES: u32 = 8;
    /// There are rules of user agents.
    pub const USER_AGENTS: u32 = 16;
    /// There are limits of unfinished messages.
    pub const UNFINISHED: u32 = 32;
}

/// Word and bit of a port in the bitmap of guarded ports.
#[must_use]
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u64) {
    ((port >> 6) as u32, 1 << (port & 63))
}
