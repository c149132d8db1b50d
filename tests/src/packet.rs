//! Frames as they come in on the wire, good ones; tests bend them afterwards.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use etherparse::PacketBuilder;
pub use sipguard_common::wire::tcp::{ACK, FIN, PSH, RST, SYN, URG};
use sipguard_common::wire::{ethernet, ipv4, ipv6, protocol::FRAGMENT, tcp};

/// Offset of the IP header in a frame without VLAN tag.
pub const IP: usize = ethernet::LEN;
/// Offset of the TCP header in a frame of IPv4 without VLAN tag.
pub const TCP4: usize = IP + ipv4::LEN;
/// Offset of the TCP header in a frame of IPv6 without VLAN tag.
pub const TCP6: usize = IP + ipv6::LEN;

/// Sequence number of the first byte that the PBX sends, which every segment acknowledges.
pub const PBX_NEXT: u32 = 0x0102_0304;

/// One direction of a connection: from the device or trunk to the PBX.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Device or trunk.
    pub remote: SocketAddr,
    /// PBX.
    pub local: SocketAddr,
    /// VLAN tags, 0 to 2.
    pub tags: u8,
    /// TCP options, whole words of four bytes.
    pub options: Vec<u8>,
}

impl Peer {
    /// A device at `remote` (`ADDR:PORT`) that speaks to the PBX at `local`.
    ///
    /// # Panics
    /// When one is no address with port: the tests write them down.
    #[must_use]
    pub fn new(remote: &str, local: &str) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no address with port"));
        // Timestamps as every Linux sends them: NOP, NOP, kind 8, length 10.
        let options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        Self { remote: parse(remote), local: parse(local), tags: 0, options }
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(&self, flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
        let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        macro_rules! finish {
            ($step:expr) => {{
                let step = match (self.remote.ip(), self.local.ip()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => $step.ipv4(from.octets(), to.octets(), 64),
                    (IpAddr::V6(from), IpAddr::V6(to)) => $step.ipv6(from.octets(), to.octets(), 64),
                    _ => panic!("one address family a connection"),
                };
                let step = step.tcp(self.remote.port(), self.local.port(), seq, 64_000);
                let step = step.options_raw(&self.options).expect("options fit");
                let mut frame = Vec::new();
                step.write(&mut frame, payload).expect("writing to memory");
                frame
            }};
        }
        let mut frame = match self.tags {
            0 => finish!(step),
            1 => finish!(step.single_vlan(7.try_into().expect("a VLAN number"))),
            _ => finish!(
                step.double_vlan(8.try_into().expect("a VLAN number"), 7.try_into().expect("a VLAN number"))
            ),
        };
        let at = self.tcp_at();
        frame[at + tcp::FLAGS] = flags;
        if flags & ACK != 0 {
            frame[at + tcp::ACK_SEQ..at + tcp::ACK_SEQ + 4].copy_from_slice(&PBX_NEXT.to_be_bytes());
        }
        self.finish_checksum(&mut frame);
        frame
    }

    /// What the PBX sends back: a TCP segment in the other direction, at `seq`, which acknowledges all before `acknowledged`.
    #[must_use]
    pub fn back(&self, flags: u8, seq: u32, acknowledged: u32, payload: &[u8]) -> Vec<u8> {
        let pbx = Peer { remote: self.local, local: self.remote, ..self.clone() };
        let mut frame = pbx.tcp(flags, seq, payload);
        let at = pbx.tcp_at();
        frame[at + tcp::ACK_SEQ..at + tcp::ACK_SEQ + 4].copy_from_slice(&acknowledged.to_be_bytes());
        pbx.finish_checksum(&mut frame);
        frame
    }

    /// The PBX's answer to the SYN before `first`: what [`Peer::tcp`] sends acknowledges it.
    #[must_use]
    pub fn answer(&self, first: u32) -> Vec<u8> {
        self.back(SYN | ACK, PBX_NEXT.wrapping_sub(1), first, b"")
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let step = match (self.remote.ip(), self.local.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => step.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => step.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("one address family a datagram"),
        };
        let mut frame = Vec::new();
        step.udp(self.remote.port(), self.local.port())
            .write(&mut frame, payload)
            .expect("writing to memory");
        frame
    }

    /// A UDP datagram in IP fragments, each with up to `size` bytes of UDP header and payload, a multiple of eight.
    #[must_use]
    pub fn udp_fragments(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let end = 8 + payload.len();
        let parts: Vec<_> = (0..end).step_by(size).map(|at| at..(at + size).min(end)).collect();
        self.udp_parts(payload, 77, &parts)
    }

    /// IP fragments of a UDP datagram, one for each range of bytes of UDP header and payload. The ranges begin at multiples of
    /// eight. `id` says which datagram they are of; IPv4 has 16 bits for it.
    #[must_use]
    pub fn udp_parts(&self, payload: &[u8], id: u32, parts: &[Range<usize>]) -> Vec<Vec<u8>> {
        let whole = self.udp(payload);
        let at = if self.remote.is_ipv4() { TCP4 } else { TCP6 };
        let fragment = |part: &Range<usize>| {
            let piece = &whole[at..][part.clone()];
            let more = u16::from(at + part.end < whole.len());
            let offset = (part.start / 8) as u16;
            let mut frame = whole[..at].to_vec();
            if self.remote.is_ipv4() {
                frame[IP + ipv4::TOTAL_LEN..][..2]
                    .copy_from_slice(&((at - IP + piece.len()) as u16).to_be_bytes());
                frame[IP + ipv4::ID..][..2].copy_from_slice(&(id as u16).to_be_bytes());
                frame[IP + ipv4::FRAGMENT..][..2].copy_from_slice(&(more << 13 | offset).to_be_bytes());
                frame[IP + ipv4::CHECKSUM..][..2].fill(0);
                let checksum = !sum(&frame[IP..at]);
                frame[IP + ipv4::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
            } else {
                frame[IP + ipv6::PAYLOAD_LEN..][..2]
                    .copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
                let udp = std::mem::replace(&mut frame[IP + ipv6::NEXT_HEADER], FRAGMENT);
                frame.extend([udp, 0]);
                frame.extend((offset << 3 | more).to_be_bytes());
                frame.extend(id.to_be_bytes());
            }
            frame.extend(piece);
            frame
        };
        parts.iter().map(fragment).collect()
    }

    /// Offset of the TCP header.
    #[must_use]
    pub fn tcp_at(&self) -> usize {
        usize::from(self.tags) * 4 + if self.remote.is_ipv4() { TCP4 } else { TCP6 }
    }

    /// Writes the checksum anew, over a header that was changed.
    pub fn finish_checksum(&self, frame: &mut [u8]) {
        let at = self.tcp_at();
        frame[at + tcp::CHECKSUM..at + tcp::CHECKSUM + 2].fill(0);
        let sum = tcp_sum(self.remote.ip(), self.local.ip(), &frame[at..]);
        frame[at + tcp::CHECKSUM..at + tcp::CHECKSUM + 2].copy_from_slice(&(!sum).to_be_bytes());
    }
}

/// The ones' complement sum of a TCP segment and its pseudo-header (RFC 9293 section 3.1). 0xffff for one whose checksum is right.
#[must_use]
pub fn tcp_sum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, 6]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    sum(&bytes)
}

/// The ones' complement sum of bytes (RFC 1071). 0xffff for an IPv4 header whose checksum is right.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
