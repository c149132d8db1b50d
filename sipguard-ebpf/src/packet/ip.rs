//! IPv4 (RFC 791) and IPv6 (RFC 8200). IPv4 addresses are stored as IPv4-mapped IPv6 addresses, so that there is one key type.

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::wire::protocol::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
use sipguard_common::wire::{ipv4, ipv6};

use super::bytes;
use super::eth::L3;
use crate::cpu::scratch;

/// Four words in network order: an IPv6 address, or `::ffff:a.b.c.d`.
pub type Address = [u32; 4];

/// Third word of an IPv4-mapped address, in network order.
pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// Whether an address is IPv6, and not IPv4 mapped.
#[inline(always)]
pub fn is_v6(address: &Address) -> bool {
    !matches!(address, [0, 0, MAPPED, _])
}

/// The parsed IP header.
#[repr(C)]
pub struct Ip {
    /// Source address.
    pub remote: Address,
    /// Destination address.
    pub local: Address,
    /// Offset of the IP header.
    pub at: usize,
    /// Offset of the transport header.
    pub l4_at: usize,
    /// Of a fragment: offset of the part of the original packet that it carries.
    pub fragment_at: usize,
    /// Bytes from the transport header to the end of the packet, by the IP header (Ethernet padding is not data).
    pub l4_len: u32,
    /// Offset of a fragment's data in 8-byte units.
    pub fragment_offset: u16,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// Whether it is IPv6.
    pub v6: bool,
    /// How many fragment headers of IPv6 there are.
    pub fragment_headers: u8,
}

/// Most extension headers that are parsed; packets with more are refused.
const MAX_EXTENSIONS: usize = 8;

/// Parses the IP header and the extension headers of IPv6.
#[inline(always)]
pub fn parse(ctx: &XdpContext, l3: L3) -> Result<Ip, Reason> {
    if l3.v6 { parse_v6(ctx, l3.at) } else { parse_v4(ctx, l3.at) }
}

#[inline(always)]
fn parse_v4(ctx: &XdpContext, at: usize) -> Result<Ip, Reason> {
    let mut words = [0; ipv4::LEN / 4];
    bytes::words(ctx, at, &mut words)?;
    let [first, second, third, remote, local] = words;
    let (version, header) = (first as u8 >> 4, usize::from(first as u8 & 0x0f) * 4);
    let total = u32::from(u16::from_be((first >> 16) as u16));
    if total == 0 && bytes::frame_len(ctx) > 0xffff {
        // A GSO frame above 64 KiB, which only this machine itself can send (BIG TCP).
        return Err(Reason::Internal);
    }
    let reaches = reaches(ctx, at as u64 + u64::from(total))?;
    if version != 4 || header < ipv4::LEN || total < header as u32 || !reaches {
        return Err(Reason::BadIpHeader);
    }
    let fragment = u16::from_be((second >> 16) as u16);
    Ok(Ip {
        at,
        v6: false,
        fragment_headers: 0,
        protocol: (third >> 8) as u8,
        l4_at: at + header,
        fragment_at: at + header,
        l4_len: total - header as u32,
        fragment_offset: fragment & ipv4::FRAGMENT_OFFSET,
        more_fragments: fragment & ipv4::MORE_FRAGMENTS != 0,
        remote: [0, 0, MAPPED, remote],
        local: [0, 0, MAPPED, local],
    })
}

#[inline(always)]
fn parse_v6(ctx: &XdpContext, at: usize) -> Result<Ip, Reason> {
    let mut words = [0; ipv6::LEN / 4];
    bytes::words(ctx, at, &mut words)?;
    let [first, second, r0, r1, r2, r3, l0, l1, l2, l3] = words;
    let total = u32::from(u16::from_be(second as u16));
    if total == 0 && bytes::frame_len(ctx) > 0xffff {
        // As for IPv4.
        return Err(Reason::Internal);
    }
    let reaches = reaches(ctx, (at + ipv6::LEN) as u64 + u64::from(total))?;
    // Behind hop-by-hop options the kernel takes a length of zero for the rest of the frame.
    if total == 0 || first as u8 >> 4 != 6 || !reaches {
        return Err(Reason::BadIpHeader);
    }
    let mut ip = Ip {
        at,
        v6: true,
        fragment_headers: 0,
        protocol: (second >> 16) as u8,
        l4_at: at + ipv6::LEN,
        fragment_at: 0,
        l4_len: total,
        fragment_offset: 0,
        more_fragments: false,
        remote: [r0, r1, r2, r3],
        local: [l0, l1, l2, l3],
    };
    // The kernel refuses IPv4-mapped addresses on the wire; here they would be taken for IPv4.
    if matches!(ip.remote, [0, 0, MAPPED, _]) || matches!(ip.local, [0, 0, MAPPED, _]) {
        return Err(Reason::BadIpHeader);
    }
    for _ in 0..MAX_EXTENSIONS {
        // A first fragment may end here (against RFC 7112), and the kernel reassembles it nevertheless.
        if ip.l4_len < ipv6::EXTENSION_LEN as u32 && is_extension(ip.protocol) {
            return Err(Reason::BadIpHeader);
        }
        let length = match ip.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                (usize::from(bytes::byte(ctx, ip.l4_at + ipv6::EXTENSION_SIZE)?) + 1) * 8
            }
            AUTHENTICATION => (usize::from(bytes::byte(ctx, ip.l4_at + ipv6::EXTENSION_SIZE)?) + 2) * 4,
            FRAGMENT => {
                ip.fragment_at = ip.l4_at + ipv6::EXTENSION_LEN;
                ip.fragment_headers += 1;
                let fragment = u16::from_be(bytes::half(ctx, ip.l4_at + ipv6::FRAGMENT)?);
                ip.fragment_offset = fragment >> 3;
                ip.more_fragments |= fragment & ipv6::MORE_FRAGMENTS != 0;
                ipv6::EXTENSION_LEN
            }
            _ => return Ok(ip),
        };
        if length as u32 > ip.l4_len || ip.l4_at + length > bytes::MAX_OFFSET - 64 {
            return Err(Reason::BadIpHeader);
        }
        ip.protocol = bytes::byte(ctx, ip.l4_at)?;
        ip.l4_at += length;
        ip.l4_len -= length as u32;
        if ip.fragment_offset != 0 {
            return Ok(ip);
        }
    }
    Err(Reason::BadIpHeader)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT)
}

/// Whether the frame has `end` bytes. The helper for the length is called only for frames of several buffers.
#[inline(always)]
fn reaches(ctx: &XdpContext, end: u64) -> Result<bool, Reason> {
    if end <= bytes::linear_len(ctx) {
        return Ok(true);
    }
    let whole = bytes::frame_len(ctx);
    scratch::set_frame_len(whole)?;
    Ok(end <= whole)
}
