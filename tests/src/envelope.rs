//! Ethernet and IP around a transport segment, with everything open to be bent.

use std::{
    net::IpAddr,
    ops::Range,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::packet::sum;

/// The Ethernet address of the PBX's interface.
pub const PBX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The Ethernet address that the raw sender pretends to have.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

/// IPv6 extension headers that are in use.
pub use sipguard_common::wire::protocol as extension;
use sipguard_common::wire::{ether_type, ipv4};

/// What a frame is, apart from its transport segment.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who sends it, as it says.
    pub from: IpAddr,
    /// The PBX.
    pub to: IpAddr,
    /// Destination of the frame.
    pub to_mac: [u8; 6],
    /// Identifiers of 802.1Q tags, the outermost first.
    pub tags: Vec<u16>,
    /// IPv4 options, whole words of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: their number, and their bytes with anything as the first.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Says in the IP header that there is no payload (total length 0 for IPv4).
    pub zero_length: bool,
    /// Whether the IPv4 header's checksum is wrong.
    pub bad_checksum: bool,
    /// Bytes behind the end of the packet.
    pub padding: Vec<u8>,
}

impl Envelope {
    /// A plain one.
    #[must_use]
    pub fn new(from: IpAddr, to: IpAddr) -> Self {
        Self {
            from,
            to,
            to_mac: PBX_MAC,
            tags: vec![],
            options: vec![],
            extensions: vec![],
            zero_length: false,
            bad_checksum: false,
            padding: vec![],
        }
    }

    /// The frame around a transport segment of a protocol.
    #[must_use]
    pub fn seal(&self, protocol: u8, segment: &[u8]) -> Vec<u8> {
        let (first, extensions) = chain(&self.extensions, protocol);
        self.frame(first, &[&extensions[..], segment].concat(), 99, 0)
    }

    /// One IP fragment for each range of bytes of the segment; the ranges begin at multiples of 8. Extension headers are a part
    /// of the fragmented packet.
    #[must_use]
    pub fn fragments(&self, protocol: u8, segment: &[u8], parts: &[Range<usize>]) -> Vec<Vec<u8>> {
        // What is left of one packet must not meet another's fragments.
        static PACKETS: AtomicU16 = AtomicU16::new(1000);
        let packet = PACKETS.fetch_add(1, Ordering::Relaxed);
        let (first, extensions) = chain(&self.extensions, protocol);
        let whole = [&extensions[..], segment].concat();
        let fragment = |part: &Range<usize>| {
            let (bytes, more) = (&whole[part.clone()], part.end < whole.len());
            let offset = (part.start / 8) as u16;
            if self.from.is_ipv4() {
                return self.frame(first, bytes, packet, offset | (u16::from(more) << 13));
            }
            let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
            let mut header = vec![first, 0, high, low];
            header.extend(u32::from(packet).to_be_bytes());
            self.frame(extension::FRAGMENT, &[&header[..], bytes].concat(), 0, 0)
        };
        parts.iter().map(fragment).collect()
    }

    fn frame(&self, protocol: u8, body: &[u8], packet: u16, fragment: u16) -> Vec<u8> {
        let mut frame = [&self.to_mac[..], &SENDER_MAC].concat();
        for tag in &self.tags {
            frame.extend(ether_type::VLAN.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = 5 + self.options.len() / 4;
                let total = if self.zero_length { 0 } else { (words * 4 + body.len()) as u16 };
                let mut header = vec![0x40 | words as u8, 0];
                header.extend(total.to_be_bytes());
                header.extend(packet.to_be_bytes());
                header.extend(fragment.to_be_bytes());
                header.extend([64, protocol, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend(&self.options);
                let checksum = !sum(&header) ^ (u16::from(self.bad_checksum) * 0x0101);
                header[ipv4::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(ether_type::IPV4.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = if self.zero_length { 0 } else { body.len() as u16 };
                frame.extend(ether_type::IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            _ => panic!("one address family a packet"),
        }
        frame.extend(body);
        frame.extend(&self.padding);
        frame
    }
}

/// The number of the first header and all extension headers as bytes, each naming the next.
fn chain(extensions: &[(u8, Vec<u8>)], protocol: u8) -> (u8, Vec<u8>) {
    let (mut next, mut bytes) = (protocol, vec![]);
    for (number, header) in extensions.iter().rev() {
        bytes = [&[next], &header[1..], &bytes].concat();
        next = *number;
    }
    (next, bytes)
}

/// The checksum of a transport segment, in which the checksum's place is zero.
#[must_use]
pub fn checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(segment.len() + 40);
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, protocol]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    !sum(&bytes)
}

/// A UDP datagram in its envelope.
#[must_use]
pub fn datagram(envelope: &Envelope, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes()].concat();
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let checksum = checksum(envelope.from, envelope.to, UDP, &bytes);
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    envelope.seal(UDP, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{IP, Peer, TCP4, TCP6};

    #[test]
    fn a_plain_envelope_is_as_another_library_makes_it() {
        for (remote, local, at) in
            [("10.0.0.2:40000", "10.0.0.1:5060", TCP4), ("[fd77::2]:40000", "[fd77::1]:5060", TCP6)]
        {
            let peer = Peer::new(remote, local);
            let theirs = peer.udp(b"some bytes");
            let ours =
                datagram(&Envelope::new(peer.remote.ip(), peer.local.ip()), 40000, 5060, b"some bytes");
            assert_eq!(ours[at..], theirs[at..], "UDP");
            assert_eq!(ours.len(), theirs.len());
            if remote.starts_with('1') {
                assert_eq!(sum(&ours[IP..at]), 0xffff);
            }
        }
    }

    #[test]
    fn extension_headers_name_what_follows() {
        let headers =
            [(extension::HOP_BY_HOP, vec![9, 0, 1, 4, 0, 0, 0, 0]), (extension::DESTINATION, vec![9; 8])];
        let (first, bytes) = chain(&headers, 6);
        assert_eq!((first, bytes[0], bytes[8]), (extension::HOP_BY_HOP, extension::DESTINATION, 6));
    }
}
