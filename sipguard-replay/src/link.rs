//! Link types: what was captured elsewhere than on Ethernet gets an Ethernet header in front of its IP header.

use sipguard_common::wire::{ether_type, ethernet};

/// Ethernet (`LINKTYPE_ETHERNET` and so on, tcpdump.org).
const ETHERNET: u32 = 1;
const NULL: u32 = 0;
const RAW: [u32; 3] = [101, 12, 14];
const LOOP: u32 = 108;
const LINUX_SLL: u32 = 113;
const IPV4: u32 = 228;
const IPV6: u32 = 229;
const LINUX_SLL2: u32 = 276;

/// Family of IPv4 on every system, and of IPv6 on Linux, FreeBSD, macOS and NetBSD.
const FAMILY_IPV4: u32 = 2;
const FAMILIES_IPV6: [u32; 4] = [10, 24, 28, 30];
/// Packet type of a cooked capture: sent by this machine.
const SENT: u16 = 4;

/// Link types that captures of SIP come with and of which no frame can be made, with their names there.
const KNOWN: [(u32, &str); 7] = [
    (105, "IEEE802_11"),
    (127, "IEEE802_11_RADIOTAP"),
    (147, "USER0"),
    (192, "PPI"),
    (220, "USB_LINUX_MMAPPED"),
    (252, "WIRESHARK_UPPER_PDU"),
    (253, "NETLINK"),
];

/// A link type for people: its number, and its name where it is a known one that can't be judged.
#[must_use]
pub(crate) fn shown(link: u32) -> String {
    let known = KNOWN.iter().find(|(number, _)| *number == link);
    known.map_or_else(|| link.to_string(), |(_, name)| format!("{link} ({name})"))
}

/// What a link's header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    /// The frame was written; whether the machine sent it, where the link says so.
    Frame(Option<bool>),
    /// Less was captured than the link's header has.
    Short,
    /// Of this link type no frame can be made.
    Unknown,
}

/// Writes the Ethernet frame of what was captured behind `out`.
pub(crate) fn put(link: u32, data: &[u8], out: &mut Vec<u8>) -> Linked {
    match link {
        ETHERNET => {
            out.extend_from_slice(data);
            if data.len() < ethernet::LEN { Linked::Short } else { Linked::Frame(None) }
        }
        LINUX_SLL => cooked(data, 16, 14, |data| u16::from_be_bytes([data[0], data[1]]), out),
        LINUX_SLL2 => cooked(data, 20, 0, |data| u16::from(data[10]), out),
        IPV4 => behind(ether_type::IPV4, data, out),
        IPV6 => behind(ether_type::IPV6, data, out),
        NULL | LOOP => of_family(link, data, out),
        _ if RAW.contains(&link) => match data.first().map(|byte| byte >> 4) {
            Some(6) => behind(ether_type::IPV6, data, out),
            Some(_) => behind(ether_type::IPV4, data, out),
            None => Linked::Short,
        },
        _ => Linked::Unknown,
    }
}

/// Linux cooked: `len` bytes of header, with the EtherType at `at`.
fn cooked(data: &[u8], len: usize, at: usize, kind: fn(&[u8]) -> u16, out: &mut Vec<u8>) -> Linked {
    let Some((head, rest)) = data.split_at_checked(len) else { return Linked::Short };
    behind(u16::from_be_bytes([head[at], head[at + 1]]), rest, out);
    Linked::Frame(Some(kind(head) == SENT))
}

/// A word says which family: in the byte order of the machine that captured, or of the network.
fn of_family(link: u32, data: &[u8], out: &mut Vec<u8>) -> Linked {
    let Some((family, rest)) = data.split_first_chunk() else { return Linked::Short };
    let (little, big) = (u32::from_le_bytes(*family), u32::from_be_bytes(*family));
    let family = if link == NULL && little < big { little } else { big };
    match family {
        FAMILY_IPV4 => behind(ether_type::IPV4, rest, out),
        _ if FAMILIES_IPV6.contains(&family) => behind(ether_type::IPV6, rest, out),
        // Neither is IP: a frame of no EtherType.
        _ => behind(0, rest, out),
    }
}

fn behind(kind: u16, packet: &[u8], out: &mut Vec<u8>) -> Linked {
    out.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(packet);
    Linked::Frame(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_type_gives_the_same_frame() {
        let packet = [0x45, 1, 2, 3];
        let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0], &packet[..]].concat();
        let sll = [&[0, 4, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], &packet[..]].concat();
        let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], &packet[..]].concat();
        for (link, data, outgoing) in [
            (1, frame.clone(), None),
            (101, packet.to_vec(), None),
            (12, packet.to_vec(), None),
            (228, packet.to_vec(), None),
            (0, [&[2, 0, 0, 0], &packet[..]].concat(), None),
            (0, [&[0, 0, 0, 2], &packet[..]].concat(), None),
            (108, [&[0, 0, 0, 2], &packet[..]].concat(), None),
            (113, sll.clone(), Some(true)),
            (276, sll2.clone(), Some(false)),
        ] {
            let mut out = Vec::new();
            assert_eq!(put(link, &data, &mut out), Linked::Frame(outgoing), "link type {link}");
            assert_eq!(out, frame, "link type {link}");
        }
        for (link, data) in [(1, &frame[..13]), (113, &sll[..15]), (276, &sll2[..19]), (0, &[2, 0][..])] {
            assert_eq!(put(link, data, &mut Vec::new()), Linked::Short, "link type {link}");
        }
        for (unknown, _) in KNOWN {
            assert_eq!(put(unknown, &packet, &mut Vec::new()), Linked::Unknown);
        }
        assert_eq!((shown(147), shown(148)), ("147 (USER0)".to_owned(), "148".to_owned()));
    }
}
