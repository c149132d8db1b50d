//! Segments as a machine captures them before its card cuts them into packets: some say a length of 0 (TSO).

use sipguard_common::wire::protocol::TCP;
use sipguard_common::wire::{ether_type, ipv4, ipv6};
use sipguard_observe::header::network;

/// Longest frame of Ethernet, with a VLAN tag: what is no longer needs no cutting.
const LONGEST_FRAME: usize = 1518;

/// Gives a TCP packet that says a length of 0 the length that was captured, as tcpdump and Wireshark do. Returns whether it did.
pub(crate) fn fill_length(frame: &mut [u8]) -> bool {
    let len = frame.len();
    let Some((kind, at)) = network(frame) else { return false };
    let Some(packet) = frame.get_mut(at..) else { return false };
    let (field, protocol, header) = match kind {
        ether_type::IPV4 => (ipv4::TOTAL_LEN, ipv4::PROTOCOL, 0),
        ether_type::IPV6 => (ipv6::PAYLOAD_LEN, ipv6::NEXT_HEADER, ipv6::LEN),
        _ => return false,
    };
    let is_without = packet.get(field..field + 2) == Some(&[0; 2]) && packet.get(protocol) == Some(&TCP);
    let Some(length) = packet.len().checked_sub(header).and_then(|length| u16::try_from(length).ok()) else {
        return false;
    };
    if !is_without || len <= LONGEST_FRAME {
        return false;
    }
    packet[field..field + 2].copy_from_slice(&length.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a protocol with so many bytes behind the IP header, which says a length.
    fn frame(v6: bool, protocol: u8, rest: usize, length: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.resize(14 + 40, 0);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, protocol]);
            frame.resize(14 + 20, 0);
        }
        frame.resize(frame.len() + rest, 7);
        frame
    }

    #[test]
    fn only_segments_without_a_length_get_one() {
        for (v6, own, said) in [(false, 20, 2020), (true, 0, 2000)] {
            let mut segment = frame(v6, TCP, 2000, 0);
            assert!(fill_length(&mut segment));
            assert_eq!(segment, frame(v6, TCP, 2000, said));
            let most = 65_535 - own;
            for (protocol, rest, length) in
                [(17, 2000, 0), (TCP, 2000, 9), (TCP, 1400, 0), (TCP, most + 1, 0)]
            {
                let mut other = frame(v6, protocol, rest, length);
                assert!(!fill_length(&mut other), "{v6} {protocol} {rest} {length}");
                assert_eq!(other, frame(v6, protocol, rest, length));
            }
            assert!(fill_length(&mut frame(v6, TCP, most, 0)));
        }
        for len in 0..60 {
            assert!(!fill_length(&mut frame(false, TCP, 2000, 0)[..len]), "{len}");
        }
    }
}
