//! The UDP header (RFC 768).

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use crate::bytes;
use crate::ip::Ip;
use crate::port::{L4, Transport};

const HEADER: u32 = 8;

#[inline(always)]
pub fn parse(ctx: &XdpContext, ip: &Ip) -> Result<L4, Reason> {
    if ip.l4_len < HEADER {
        return Err(Reason::BadUdpHeader);
    }
    let length = u32::from(u16::from_be(bytes::half(ctx, ip.l4_at + 4)?));
    // A first fragment holds less than the datagram.
    if length < HEADER || length > ip.l4_len && !ip.more_fragments {
        return Err(Reason::BadUdpHeader);
    }
    let here = if length < ip.l4_len { length } else { ip.l4_len };
    Ok(L4 {
        transport: Transport::Udp,
        ports: bytes::word(ctx, ip.l4_at)?,
        data_at: ip.l4_at as u32 + HEADER,
        data_len: here - HEADER,
        seq: 0,
        flags: 0,
    })
}
