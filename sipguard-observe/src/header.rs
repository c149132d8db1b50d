//! Whose packet it is. Judged is it by the program; this only sorts, so what it can't read is nobody's.

use std::ops::Range;

use sipguard_common::wire::protocol::{DESTINATION, FRAGMENT, HOP_BY_HOP, MOBILITY, ROUTING, TCP, UDP};
use sipguard_common::wire::tcp::{ACK, SYN};
use sipguard_common::wire::{ether_type, ethernet, ipv4, ipv6, tcp, udp, vlan};
use sipguard_core::address::Mapped;

/// Extension headers of IPv6 that have a length in units of eight bytes.
const EXTENSIONS: [u8; 4] = [HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY];

/// From where to where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source address.
    pub from: Mapped,
    /// Destination address.
    pub to: Mapped,
    /// Source and destination port; 0 where they are not known.
    pub ports: [u16; 2],
}

/// What the headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// From where to where.
    pub ends: Ends,
    /// Whether it is TCP.
    pub tcp: bool,
    /// TCP's flags.
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// Id of the datagram that it is a fragment of.
    pub fragment: Option<u32>,
    /// Where the payload of TCP or UDP is in the frame; empty where there is none.
    pub payload: Range<usize>,
    /// Whether it is a whole UDP datagram in an IPv4 packet as nearly all are: without options, and no shorter or longer than it says.
    pub plain: bool,
}

impl Header {
    /// Of an Ethernet frame, as far as it was captured. `None` when it is not IP or too short to have addresses.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<Header> {
        let (kind, at) = network(frame)?;
        let mut header = Header::default();
        let l4 = match kind {
            ether_type::IPV4 => header.ipv4(frame, at)?,
            ether_type::IPV6 => header.ipv6(frame, at)?,
            _ => return None,
        };
        if let Some((protocol, at, end)) = l4 {
            header.transport(frame, protocol, at, end.min(frame.len()));
        }
        Some(header)
    }

    /// Whether it opens a connection.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// Whether it is the first of a handshake.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Fills in the addresses. `Some` of it is the protocol, and from where to where it is; `None` for a later fragment.
    fn ipv4(&mut self, frame: &[u8], at: usize) -> Option<Option<(u8, usize, usize)>> {
        let head = frame.get(at..at + ipv4::LEN)?;
        self.ends.from = v4(&head[ipv4::SOURCE..ipv4::DESTINATION]);
        self.ends.to = v4(&head[ipv4::DESTINATION..]);
        let place = half(head, ipv4::FRAGMENT)?;
        if place & (ipv4::FRAGMENT_OFFSET | ipv4::MORE_FRAGMENTS) != 0 {
            self.fragment = Some(u32::from(half(head, ipv4::ID)?));
        }
        let total = usize::from(half(head, ipv4::TOTAL_LEN)?);
        self.plain = head[ipv4::VERSION] == 0x45
            && head[ipv4::PROTOCOL] == UDP
            && self.fragment.is_none()
            && total >= ipv4::LEN + udp::LEN
            && at + total <= frame.len();
        let l4 = at + usize::from(head[ipv4::VERSION] & 15) * 4;
        Some((place & ipv4::FRAGMENT_OFFSET == 0).then_some((head[ipv4::PROTOCOL], l4, at + total)))
    }

    fn ipv6(&mut self, frame: &[u8], at: usize) -> Option<Option<(u8, usize, usize)>> {
        let head = frame.get(at..at + ipv6::LEN)?;
        self.ends.from.copy_from_slice(&head[ipv6::SOURCE..ipv6::DESTINATION]);
        self.ends.to.copy_from_slice(&head[ipv6::DESTINATION..]);
        let end = at + ipv6::LEN + usize::from(half(head, ipv6::PAYLOAD_LEN)?);
        let (mut next, mut at) = (head[ipv6::NEXT_HEADER], at + ipv6::LEN);
        // As many as anyone sends.
        for _ in 0..8 {
            let Some(extension) = frame.get(at..at + ipv6::EXTENSION_LEN) else { break };
            if next == FRAGMENT {
                self.fragment = Some(word(extension, ipv6::FRAGMENT_ID)?);
                if half(extension, ipv6::FRAGMENT)? & ipv6::FRAGMENT_OFFSET != 0 {
                    return Some(None);
                }
                at += ipv6::EXTENSION_LEN;
            } else if EXTENSIONS.contains(&next) {
                at += ipv6::EXTENSION_LEN + usize::from(extension[ipv6::EXTENSION_SIZE]) * 8;
            } else {
                break;
            }
            next = extension[0];
        }
        Some(Some((next, at, end)))
    }

    fn transport(&mut self, frame: &[u8], protocol: u8, at: usize, end: usize) {
        let (Some(from), Some(to)) = (half(frame, at), half(frame, at + 2)) else { return };
        if protocol != TCP && protocol != UDP {
            return;
        }
        self.ends.ports = [from, to];
        let mut data = at + udp::LEN;
        if protocol == TCP {
            self.tcp = true;
            let Some(head) = frame.get(at..at + tcp::LEN) else { return };
            let Some(seq) = word(head, tcp::SEQ) else { return };
            self.seq = seq;
            self.flags = head[tcp::FLAGS];
            data = at + usize::from(head[tcp::DATA_OFFSET] >> 4) * 4;
        }
        if data < end {
            self.payload = data..end;
        }
    }
}

/// EtherType of an Ethernet frame behind its VLAN tags, and where its IP header is.
#[must_use]
pub fn network(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ethernet::LEN;
    let mut kind = half(frame, ethernet::TYPE)?;
    for _ in 0..2 {
        if ether_type::is_vlan(kind) {
            kind = half(frame, at + vlan::TYPE)?;
            at += vlan::LEN;
        }
    }
    Some((kind, at))
}

fn half(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn word(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

fn v4(bytes: &[u8]) -> Mapped {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(bytes);
    mapped
}
