//! Ethernet with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use sipguard_common::Reason;
use sipguard_common::wire::ether_type::{IPV4, IPV6, SERVICE_VLAN, VLAN};
use sipguard_common::wire::{ethernet, vlan};

use super::bytes::{self, Frame};

/// The IP header behind the Ethernet header.
pub struct L3 {
    /// Offset of the IP header.
    pub at: usize,
    /// Whether it is IPv6.
    pub v6: bool,
}

/// Finds the IP header. `Err` for other protocols and more than two VLAN tags.
#[inline(always)]
pub fn parse(ctx: &impl Frame) -> Result<L3, Reason> {
    let mut at = ethernet::LEN;
    let mut kind = u16::from_be(bytes::half(ctx, ethernet::TYPE)?);
    for _ in 0..2 {
        if kind == VLAN || kind == SERVICE_VLAN {
            kind = u16::from_be(bytes::half(ctx, at + vlan::TYPE)?);
            at += vlan::LEN;
        }
    }
    match kind {
        IPV4 => Ok(L3 { at, v6: false }),
        IPV6 => Ok(L3 { at, v6: true }),
        // The kernel removes any number of tags of VLAN 0, so the packet could reach it uninspected.
        VLAN | SERVICE_VLAN => Err(Reason::BadIpHeader),
        _ => Err(Reason::NotIp),
    }
}
