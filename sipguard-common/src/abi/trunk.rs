//! Trunks, and what classes of senders may not send.

use bytemuck::{Pod, Zeroable};

use super::{CheckSwitches, Rates};
use crate::framer::{Limits, methods};

/// Entries of `TRUNKS`; the first stands for no trunk.
pub const TRUNK_ENTRIES: u32 = 256;

/// Transports, as positions in [`Denied`].
pub const TRANSPORTS: [&str; 3] = ["tcp", "tls", "udp"];

/// Position of TCP in [`TRANSPORTS`].
pub const TCP: usize = 0;
/// Position of TLS in [`TRANSPORTS`].
pub const TLS: usize = 1;
/// Position of UDP in [`TRANSPORTS`].
pub const UDP: usize = 2;

/// What may not be sent, by transport: a set of [`methods`], where [`methods::ALL`] is the transport as a whole. Over TLS methods are not
/// visible.
pub type Denied = [u32; TRANSPORTS.len()];

/// The trunk has the guard's mode.
pub const TRUNK_INHERITS: u32 = 0;
/// Enforce mode for the trunk, whatever the guard's mode.
pub const TRUNK_ENFORCES: u32 = 1;
/// Monitor mode for the trunk, whatever the guard's mode.
pub const TRUNK_MONITORS: u32 = 2;

/// The policy of a trunk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Trunk {
    /// Limits and checks of its messages, when `own_limits` is 1.
    pub limits: Limits,
    /// What it may not send.
    pub denied: Denied,
    /// 1 when `limits` apply instead of the guard's.
    pub own_limits: u32,
    /// [`TRUNK_INHERITS`], [`TRUNK_ENFORCES`] or [`TRUNK_MONITORS`].
    pub mode: u32,
    /// How many TCP connections all its peers together may have open at once; 0 is no limit.
    pub open: u32,
    /// 1 when its peers are balancers, whose connections begin with a PROXY header.
    pub proxy_protocol: u32,
    /// How many messages all its peers together may have begun and not finished on TCP connections; 0 is no limit.
    pub unfinished: u32,
    /// Which of its limits only count what is over them: bits of [`crate::Reason::limit_bit`].
    pub monitored_limits: u32,
    /// Zero.
    pub pad: u32,
    /// Its rate limits, for all its peers together.
    pub rates: Rates,
    /// Which checks are not enforced on it.
    pub checks: CheckSwitches,
}

/// Whether a transport may not be used at all.
#[must_use]
#[inline(always)]
pub const fn is_transport(denied: u32) -> bool {
    denied == methods::ALL
}
