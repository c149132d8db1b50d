//! Whose packet it is. Judged is it by the program; this only sorts, so what it can't read is nobody's.

use std::ops::Range;

use crate::address::Mapped;

const VLANS: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Extension headers of IPv6 that have a length in units of eight bytes.
const EXTENSIONS: [u8; 4] = [0, 43, 60, 135];
const FRAGMENT: u8 = 44;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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
        let mut at = 12;
        let mut kind = half(frame, at)?;
        for _ in 0..2 {
            if VLANS.contains(&kind) {
                at += 4;
                kind = half(frame, at)?;
            }
        }
        let mut header = Header::default();
        let l4 = match kind {
            0x0800 => header.ipv4(frame, at + 2)?,
            0x86dd => header.ipv6(frame, at + 2)?,
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
        let head = frame.get(at..at + 20)?;
        self.ends.from = v4(&head[12..16]);
        self.ends.to = v4(&head[16..20]);
        let place = u16::from_be_bytes([head[6], head[7]]);
        if place & 0x3fff != 0 {
            self.fragment = Some(u32::from(u16::from_be_bytes([head[4], head[5]])));
        }
        let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
        self.plain = head[0] == 0x45
            && head[9] == UDP
            && self.fragment.is_none()
            && total >= 28
            && at + total <= frame.len();
        let l4 = at + usize::from(head[0] & 15) * 4;
        Some((place & 0x1fff == 0).then_some((head[9], l4, at + total)))
    }

    fn ipv6(&mut self, frame: &[u8], at: usize) -> Option<Option<(u8, usize, usize)>> {
        let head = frame.get(at..at + 40)?;
        self.ends.from.copy_from_slice(&head[8..24]);
        self.ends.to.copy_from_slice(&head[24..40]);
        let end = at + 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (mut next, mut at) = (head[6], at + 40);
        // As many as anyone sends.
        for _ in 0..8 {
            let Some(extension) = frame.get(at..at + 8) else { break };
            if next == FRAGMENT {
                self.fragment =
                    Some(u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]));
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                    return Some(None);
                }
                at += 8;
            } else if EXTENSIONS.contains(&next) {
                at += 8 + usize::from(extension[1]) * 8;
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
        let mut data = at + 8;
        if protocol == TCP {
            self.tcp = true;
            let Some(head) = frame.get(at..at + 20) else { return };
            self.seq = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            self.flags = head[13];
            data = at + usize::from(head[12] >> 4) * 4;
        }
        if data < end {
            self.payload = data..end;
        }
    }
}

fn half(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn v4(bytes: &[u8]) -> Mapped {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(bytes);
    mapped
}
