//! The TCP header (RFC 9293 section 3.1) and its sanity.

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use crate::bytes;
use crate::ip::Ip;

/// A TCP segment.
pub struct Segment {
    /// Source and destination port as they stand in the header.
    pub ports: u32,
    pub seq: u32,
    pub flags: u8,
    /// Offset of the payload.
    pub data_at: u32,
    /// Length of the payload in bytes.
    pub data_len: u32,
}

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

const HEADER: usize = 20;
/// Option kinds without a length byte.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

#[inline(always)]
pub fn parse(ctx: &XdpContext, ip: &Ip) -> Result<Segment, Reason> {
    if (ip.l4_len as usize) < HEADER {
        return Err(Reason::BadTcpHeader);
    }
    let header = usize::from(bytes::byte(ctx, ip.l4_at + 12)? >> 4) * 4;
    if header < HEADER || header as u32 > ip.l4_len {
        return Err(Reason::BadTcpHeader);
    }
    let segment = Segment {
        ports: bytes::word(ctx, ip.l4_at)?,
        seq: u32::from_be(bytes::word(ctx, ip.l4_at + 4)?),
        flags: bytes::byte(ctx, ip.l4_at + 13)?,
        data_at: (ip.l4_at + header) as u32,
        data_len: ip.l4_len - header as u32,
    };
    check_flags(segment.flags, segment.data_len)?;
    check_options(ctx, ip.l4_at + HEADER, ip.l4_at + header)?;
    Ok(segment)
}

/// Sets of flags that no TCP sends. Reserved bits are ignored, as the kernel does.
#[inline(always)]
fn check_flags(flags: u8, data_len: u32) -> Result<(), Reason> {
    let pair = |two: u8| flags & two == two;
    let unacknowledged = flags & (SYN | RST | ACK) == 0;
    // The kernel takes an urgent byte out of the stream, so what the PBX reads would not be what was validated. SIP has none.
    let urgent = flags & URG != 0 && data_len > 0;
    if pair(SYN | FIN) || pair(SYN | RST) || pair(FIN | RST) || unacknowledged || urgent {
        return Err(Reason::BadTcpFlags);
    }
    Ok(())
}

/// Every option's length is at least 2 and stays within the header.
#[inline(always)]
fn check_options(ctx: &XdpContext, from: usize, to: usize) -> Result<(), Reason> {
    let mut at = from;
    for _ in 0..40 {
        if at >= to {
            return Ok(());
        }
        let kind = bytes::byte(ctx, at)?;
        if kind == END_OF_OPTIONS {
            return Ok(());
        }
        let mut length = 1;
        if kind != NO_OPERATION {
            if at + 1 >= to {
                return Err(Reason::BadTcpOptions);
            }
            length = usize::from(bytes::byte(ctx, at + 1)?);
            if length < 2 || at + length > to {
                return Err(Reason::BadTcpOptions);
            }
        }
        at += length;
    }
    Ok(())
}
