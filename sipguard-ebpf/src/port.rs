//! Is it ours: TCP or UDP with a guarded port on either side, SIP or SIP over TLS. With a TCP trunk that the PBX dials, the peer's segments come
//! *from* port 5060.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{PORT_ENTRIES, PORT_WORDS, port_bit};

use crate::bytes;
use crate::ip::{self, Ip};

#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_ENTRIES, 0);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    Udp,
    /// A fragment of UDP without ports, or the first of a datagram for other ports.
    Fragment,
}

/// What the transport header says.
pub struct L4 {
    pub transport: Transport,
    /// Source and destination port as they stand in the header.
    pub ports: u32,
    /// Offset and length of the payload.
    pub data_at: u32,
    pub data_len: u32,
    /// Sequence number and flags of a TCP segment; 0 for UDP.
    pub seq: u32,
    pub flags: u8,
    /// One of the constants of [`crate::fragment`].
    pub fragment: u32,
}

/// First entries of the two bitmaps.
const SIP: u32 = 0;
const TLS: u32 = PORT_WORDS;
/// Bytes of the transport header and payload in a first fragment of UDP, at the least. Every link carries more.
const TINY: u32 = 256;

#[inline(always)]
pub fn guarded(ctx: &XdpContext, ip: &Ip) -> Result<Transport, Reason> {
    if ip.fragment_offset != 0 {
        return later(ip);
    }
    let tcp = match ip.protocol {
        ip::TCP => true,
        ip::UDP => false,
        _ => return Err(Reason::NotGuarded),
    };
    if ip.more_fragments && ip.l4_len < 20 {
        return Err(if tcp { Reason::TcpFragment } else { Reason::TinyFragment });
    }
    if ip.l4_len < 4 {
        return Err(Reason::NotGuarded);
    }
    let ports = bytes::word(ctx, ip.l4_at)?;
    let remote = u16::from_be(ports as u16);
    let local = u16::from_be((ports >> 16) as u16);
    let transport = if is_among(SIP, local) || is_among(SIP, remote) {
        if tcp { Transport::Tcp } else { Transport::Udp }
    } else if tcp && (is_among(TLS, local) || is_among(TLS, remote)) {
        Transport::Tls
    } else if ip.more_fragments && !tcp {
        return Ok(Transport::Fragment);
    } else {
        return Err(Reason::NotGuarded);
    };
    if ip.more_fragments && tcp {
        return Err(Reason::TcpFragment);
    }
    if ip.more_fragments && ip.l4_len < TINY {
        return Err(Reason::TinyFragment);
    }
    Ok(transport)
}

/// A later fragment has no ports. Of TCP it can't complete without the first, and one that would overwrite the TCP header is an
/// attack (RFC 3128). Of IPv6 it may be of UDP whatever it says, for only the first one's word counts (RFC 8200 section 4.5).
#[inline(always)]
fn later(ip: &Ip) -> Result<Transport, Reason> {
    if ip.protocol == ip::TCP && ip.fragment_offset == 1 {
        return Err(Reason::TcpFragment);
    }
    if ip.v6 || ip.protocol == ip::UDP { Ok(Transport::Fragment) } else { Err(Reason::NotGuarded) }
}

/// Whether a port of this machine is guarded.
#[inline(always)]
pub fn is_guarded(port: u16) -> bool {
    is_among(SIP, port) || is_among(TLS, port)
}

#[inline(always)]
fn is_among(bitmap: u32, port: u16) -> bool {
    let (word, bit) = port_bit(port);
    PORTS.get(bitmap + word).is_some_and(|ports| ports & bit != 0)
}
