//! The TCP header (RFC 9293 section 3.1) and checks of it.

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::wire::tcp::{ACK, ACK_SEQ, FIN, LEN, RST, SYN, TIMESTAMP_OPTION, URG};

use super::bytes;
use super::ip::Ip;
use crate::admit::port::{L4, Transport};
use crate::message::fragment;

/// Option kinds without a length byte.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Parses and checks the TCP header.
#[inline(always)]
pub fn parse(ctx: &XdpContext, ip: &Ip, transport: Transport, side: u32) -> Result<L4, Reason> {
    if (ip.l4_len as usize) < LEN {
        return Err(Reason::BadTcpHeader);
    }
    let mut words = [0; 4];
    bytes::words(ctx, ip.l4_at, &mut words)?;
    let [ports, seq, _, fourth] = words;
    let header = usize::from(fourth as u8 >> 4) * 4;
    if header < LEN || header as u32 > ip.l4_len {
        return Err(Reason::BadTcpHeader);
    }
    let segment = L4 {
        transport,
        ports,
        data_at: (ip.l4_at + header) as u32,
        data_len: ip.l4_len - header as u32,
        seq: u32::from_be(seq),
        flags: (fourth >> 8) as u8,
        fragment: fragment::WHOLE,
        side,
        acknowledged: u32::from_be(bytes::word(ctx, ip.l4_at + ACK_SEQ)?),
    };
    check_flags(segment.flags)?;
    if header > LEN && !are_usual(ctx, ip.l4_at + LEN, header - LEN)? {
        check_options(ctx, ip.l4_at + LEN, ip.l4_at + header)?;
    }
    Ok(segment)
}

/// Refuses sets of flags that no TCP sends. Reserved bits are ignored, as the kernel does.
#[inline(always)]
fn check_flags(flags: u8) -> Result<(), Reason> {
    let pair = |two: u8| flags & two == two;
    let unacknowledged = flags & (SYN | RST | ACK) == 0;
    // The kernel removes an urgent byte from the stream, so the PBX would read other bytes than were validated. SIP uses none. Refused without
    // payload too: the kernel remembers the pointer and removes the byte when it comes.
    let urgent = flags & URG != 0;
    if pair(SYN | FIN) || pair(SYN | RST) || pair(FIN | RST) || unacknowledged || urgent {
        return Err(Reason::BadTcpFlags);
    }
    Ok(())
}

/// Whether the `len` bytes of options at offset `at` are those of nearly all segments: a timestamp (RFC 7323 appendix A), or those of a Linux
/// SYN. A shortcut for [`check_options`].
#[inline(always)]
fn are_usual(ctx: &XdpContext, at: usize, len: usize) -> Result<bool, Reason> {
    const TIMESTAMP: u32 = u32::from_ne_bytes(TIMESTAMP_OPTION);
    const SEGMENT_SIZE: u16 = u16::from_ne_bytes([2, 4]);
    const SACK_TIMESTAMP: u32 = u32::from_ne_bytes([4, 2, 8, 10]);
    const WINDOW_SCALE: u16 = u16::from_ne_bytes([1, 3]);
    match len {
        12 => Ok(bytes::word(ctx, at)? == TIMESTAMP),
        20 => {
            let mut words = [0; 5];
            bytes::words(ctx, at, &mut words)?;
            let [first, second, _, _, last] = words;
            let scale = last as u16 == WINDOW_SCALE && (last >> 16) as u8 == 3;
            Ok(first as u16 == SEGMENT_SIZE && second == SACK_TIMESTAMP && scale)
        }
        _ => Ok(false),
    }
}

/// Most options: there are at most 40 bytes, and each takes at least one.
const MOST_OPTIONS: usize = 40;

/// Checks that every option has a length of at least 2 and ends within the header.
#[inline(always)]
fn check_options(ctx: &XdpContext, from: usize, to: usize) -> Result<(), Reason> {
    let mut at = from;
    for _ in 0..MOST_OPTIONS {
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
    if at < to { Err(Reason::BadTcpOptions) } else { Ok(()) }
}
