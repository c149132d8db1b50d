//! May it be ours: UDP to a guarded port, or from one of a trunk; TCP of which a port is guarded, or of a connection that the PBX dialled and speaks
//! SIP on. The peer's port alone makes no TCP connection SIP: [`crate::stream`] knows more of it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{PORT_ENTRIES, PORT_WORDS, port_bit};

use crate::packet::bytes;
use crate::packet::ip::{self, Ip};
use crate::packet::tcp::{ACK, SYN};
use crate::stream::out;

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
    /// One of the constants of [`crate::message::fragment`].
    pub fragment: u32,
    /// [`OWN`], [`PEER`] or [`NEITHER`].
    pub side: u32,
    /// What a TCP segment acknowledges; 0 for UDP.
    pub acknowledged: u32,
}

/// Neither port is guarded.
pub const NEITHER: u32 = 0;
/// The peer's port is guarded, and the PBX's is not.
pub const PEER: u32 = 1;
/// The PBX's port is guarded.
pub const OWN: u32 = 2;

/// First entries of the two bitmaps.
const SIP: u32 = 0;
const TLS: u32 = PORT_WORDS;
/// Bytes of the transport header and payload in a first fragment of UDP, at the least. Every link carries more.
const TINY: u32 = 256;

/// What a packet may be, and whose port says so. `trunk` is the index of its sender's.
#[inline(always)]
pub fn guarded(ctx: &XdpContext, ip: &Ip, trunk: u32) -> Result<(Transport, u32), Reason> {
    if ip.fragment_offset != 0 {
        return Ok((later(ip)?, OWN));
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
    let found = if tcp { of_tcp(ctx, ip, remote, local) } else { of_udp(remote, local, trunk) };
    let Some((transport, side)) = found else {
        let other = ip.more_fragments && !tcp;
        return if other { Ok((Transport::Fragment, OWN)) } else { Err(Reason::NotGuarded) };
    };
    if ip.more_fragments && tcp {
        return Err(if side == OWN { Reason::TcpFragment } else { Reason::NotGuarded });
    }
    if ip.more_fragments && ip.l4_len < TINY {
        return Err(Reason::TinyFragment);
    }
    Ok((transport, side))
}

#[inline(always)]
fn of_udp(remote: u16, local: u16, trunk: u32) -> Option<(Transport, u32)> {
    if is_among(SIP, local) {
        return Some((Transport::Udp, OWN));
    }
    // A trunk answers from its port to whichever the PBX called from.
    if trunk != 0 && is_among(SIP, remote) { Some((Transport::Udp, PEER)) } else { None }
}

#[inline(always)]
fn of_tcp(ctx: &XdpContext, ip: &Ip, remote: u16, local: u16) -> Option<(Transport, u32)> {
    if is_among(SIP, local) {
        return Some((Transport::Tcp, OWN));
    }
    if is_among(TLS, local) {
        return Some((Transport::Tls, OWN));
    }
    if is_among(SIP, remote) {
        return Some((Transport::Tcp, PEER));
    }
    if is_among(TLS, remote) {
        return Some((Transport::Tls, PEER));
    }
    // The answer to a connection that the PBX dials, wherever to, or what comes on one that it speaks SIP on.
    let flags = bytes::byte(ctx, ip.l4_at + 13).unwrap_or(0);
    let answers = flags & (SYN | ACK) == SYN | ACK;
    if answers || out::is_spoken(local) { Some((Transport::Tcp, NEITHER)) } else { None }
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

/// Whether a port is one of SIP over TLS.
#[inline(always)]
pub fn is_tls(port: u16) -> bool {
    !is_among(SIP, port) && is_among(TLS, port)
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
