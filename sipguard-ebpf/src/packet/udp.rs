//! The UDP header (RFC 768).

use aya_ebpf::programs::XdpContext;
use sipguard_common::{Reason, wire};

use super::bytes;
use super::ip::Ip;
use crate::admit::port::{L4, OWN, Transport};
use crate::message::fragment;

/// Length of the header in bytes.
pub const HEADER: u32 = wire::udp::LEN as u32;

/// Parses and checks the UDP header.
#[inline(always)]
pub fn parse(ctx: &XdpContext, ip: &Ip, side: u32) -> Result<L4, Reason> {
    if ip.l4_len < HEADER {
        return Err(Reason::BadUdpHeader);
    }
    let mut words = [0; wire::udp::LEN / 4];
    bytes::words(ctx, ip.l4_at, &mut words)?;
    let [ports, second] = words;
    let length = u32::from(u16::from_be(second as u16));
    // A first fragment has less than the datagram.
    if length < HEADER || length > ip.l4_len && !ip.more_fragments {
        return Err(Reason::BadUdpHeader);
    }
    let here = if length < ip.l4_len { length } else { ip.l4_len };
    Ok(L4 {
        transport: Transport::Udp,
        ports,
        data_at: ip.l4_at as u32 + HEADER,
        data_len: here - HEADER,
        seq: 0,
        flags: 0,
        fragment: if ip.more_fragments { fragment::FIRST } else { fragment::WHOLE },
        side,
        acknowledged: 0,
    })
}

/// A fragment without a UDP header, or the first one of a datagram for a port that is not guarded.
#[inline(always)]
pub fn fragment(ip: &Ip) -> L4 {
    L4 {
        transport: Transport::Udp,
        ports: 0,
        data_at: ip.l4_at as u32,
        data_len: ip.l4_len,
        seq: 0,
        flags: 0,
        fragment: if ip.fragment_offset == 0 { fragment::FOREIGN } else { fragment::LATER },
        side: OWN,
        acknowledged: 0,
    }
}
