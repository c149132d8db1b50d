//! Ethernet with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use super::bytes;

/// What stands behind the Ethernet header.
pub struct L3 {
    /// Offset of the IP header.
    pub at: usize,
    /// Whether it is IPv6.
    pub v6: bool,
}

const HEADER: usize = 14;
const TAG: usize = 4;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_SERVICE: u16 = 0x88a8;

#[inline(always)]
pub fn parse(ctx: &XdpContext) -> Result<L3, Reason> {
    let mut at = HEADER;
    let mut kind = u16::from_be(bytes::half(ctx, 12)?);
    for _ in 0..2 {
        if kind == VLAN || kind == VLAN_SERVICE {
            kind = u16::from_be(bytes::half(ctx, at + 2)?);
            at += TAG;
        }
    }
    match kind {
        IPV4 => Ok(L3 { at, v6: false }),
        IPV6 => Ok(L3 { at, v6: true }),
        // The kernel takes off as many tags of VLAN 0 as there are.
        VLAN | VLAN_SERVICE => Err(Reason::BadIpHeader),
        _ => Err(Reason::NotIp),
    }
}
