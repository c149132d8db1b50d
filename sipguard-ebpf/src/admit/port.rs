//! Is the port guarded: UDP to a guarded port, or from a guarded port of a trunk; TCP with a guarded port on either side, or on a
//! connection that the PBX dialled and uses SIP on. For TCP the peer's port alone is not enough; [`crate::stream`] decides then.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{PORT_ENTRIES, PORT_WORDS, port_bit};
use sipguard_common::wire::protocol;
use sipguard_common::wire::tcp::{self, ACK, SYN};

use crate::packet::bytes;
use crate::packet::ip::Ip;
use crate::stream::{egress, greeting};

#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_ENTRIES, 0);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Tls,
    Udp,
    /// A UDP fragment without ports, or the first fragment of a datagram for other ports.
    Fragment,
}

/// The parsed transport header.
pub struct L4 {
    pub transport: Transport,
    /// Source and destination port in network order.
    pub ports: u32,
    /// Offset in the frame and length of the payload.
    pub data_at: u32,
    pub data_len: u32,
    /// Sequence number and flags of a TCP segment; 0 for UDP.
    pub seq: u32,
    pub flags: u8,
    /// One of the constants of [`crate::message::fragment`].
    pub fragment: u32,
    /// [`OWN`], [`PEER`] or [`NEITHER`].
    pub side: u32,
    /// Acknowledgement number of a TCP segment; 0 for UDP.
    pub acknowledged: u32,
}

/// Neither port is guarded.
pub const NEITHER: u32 = 0;
/// The peer's port is guarded, the PBX's is not.
pub const PEER: u32 = 1;
/// The PBX's port is guarded.
pub const OWN: u32 = 2;

/// First entries of the two bitmaps in `PORTS`.
const SIP: u32 = 0;
const TLS: u32 = PORT_WORDS;
/// Least bytes of UDP header and payload in a first fragment. Every link carries more.
const TINY: u32 = 256;

/// The transport of a packet, and which side's port is guarded. `trunk` is the index of the sender's trunk.
#[inline(always)]
pub fn guarded(ctx: &XdpContext, ip: &Ip, trunk: u32) -> Result<(Transport, u32), Reason> {
    if ip.fragment_offset != 0 {
        return Ok((later(ip)?, OWN));
    }
    let tcp = match ip.protocol {
        protocol::TCP => true,
        protocol::UDP => false,
        _ => return Err(Reason::NotGuarded),
    };
    if ip.l4_len < 4 {
        // Nobody knows for which port it is.
        return Err(match (ip.more_fragments, tcp) {
            (false, _) => Reason::NotGuarded,
            (true, true) => Reason::TcpFragment,
            (true, false) => Reason::TinyFragment,
        });
    }
    let ports = bytes::word(ctx, ip.l4_at)?;
    let remote = u16::from_be(ports as u16);
    let local = u16::from_be((ports >> 16) as u16);
    let found = if tcp { of_tcp(ctx, ip, remote, local) } else { of_udp(remote, local, trunk) };
    let Some((transport, side)) = found else {
        let other = ip.more_fragments && !tcp;
        return if other { Ok((Transport::Fragment, OWN)) } else { Err(Reason::NotGuarded) };
    };
    if ip.more_fragments && !tcp && ip.l4_len < TINY {
        return Err(Reason::TinyFragment);
    }
    Ok((transport, side))
}

#[inline(always)]
fn of_udp(remote: u16, local: u16, trunk: u32) -> Option<(Transport, u32)> {
    if is_among(SIP, local) {
        return Some((Transport::Udp, OWN));
    }
    // A trunk answers from its port to any port that the PBX sent from.
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
    // A SYN-ACK to any connection that the PBX dials, or a segment of one on which it uses SIP or has said nothing yet.
    let flags = bytes::byte(ctx, ip.l4_at + tcp::FLAGS).unwrap_or(0);
    let answers = flags & (SYN | ACK) == SYN | ACK;
    let is_dialled = answers || egress::is_dialled_sip_port(local) || greeting::is_held(local);
    if is_dialled { Some((Transport::Tcp, NEITHER)) } else { None }
}

/// The transport of a fragment without ports. TCP cannot be reassembled without the first fragment, and a fragment that would overwrite the
/// TCP header is an attack (RFC 3128). An IPv6 fragment may be UDP whatever its header says: only the first fragment's next header counts
/// (RFC 8200 section 4.5).
#[inline(always)]
fn later(ip: &Ip) -> Result<Transport, Reason> {
    if ip.protocol == protocol::TCP && ip.fragment_offset == 1 {
        return Err(Reason::TcpFragment);
    }
    if ip.v6 || ip.protocol == protocol::UDP { Ok(Transport::Fragment) } else { Err(Reason::NotGuarded) }
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
