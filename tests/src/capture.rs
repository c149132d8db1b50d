//! Capture files, written by hand.

use crate::packet::IP;

/// A packet of a capture.
#[derive(Clone, Debug)]
pub struct Captured {
    /// What was captured.
    pub data: Vec<u8>,
    /// How long it was on the wire.
    pub original_len: u32,
    /// When, in microseconds.
    pub time_us: u64,
    /// `epb_flags` of pcapng: 1 came in, 2 went out, 0 is not said.
    pub flags: u32,
}

/// Whole packets, a millisecond apart.
#[must_use]
pub fn whole(frames: &[Vec<u8>]) -> Vec<Captured> {
    let one = |(at, data): (usize, &Vec<u8>)| Captured {
        original_len: data.len() as u32,
        data: data.clone(),
        time_us: 1_700_000_000_000_000 + at as u64 * 1000,
        flags: 0,
    };
    frames.iter().enumerate().map(one).collect()
}

/// Byte order and clock of a file.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Whether numbers have their highest byte first.
    pub big_endian: bool,
    /// Whether times are in nanoseconds.
    pub nanoseconds: bool,
}

impl Form {
    /// As most files are.
    pub const USUAL: Form = Form { big_endian: false, nanoseconds: false };
    /// All that there are.
    pub const ALL: [Form; 4] = [
        Form::USUAL,
        Form { big_endian: true, nanoseconds: false },
        Form { big_endian: false, nanoseconds: true },
        Form { big_endian: true, nanoseconds: true },
    ];

    fn half(self, value: u16) -> [u8; 2] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn word(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn words(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.word(*value)).collect()
    }

    /// The header of a pcap file.
    #[must_use]
    pub fn pcap_header(self, link: u32) -> Vec<u8> {
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = [self.half(2), self.half(4)].concat();
        [&self.word(magic)[..], &version, &self.words(&[0, 0, 262_144, link])].concat()
    }

    /// A packet of a pcap file.
    #[must_use]
    pub fn pcap_packet(self, packet: &Captured) -> Vec<u8> {
        let (seconds, rest) = (packet.time_us / 1_000_000, packet.time_us % 1_000_000);
        let rest = if self.nanoseconds { rest * 1000 } else { rest };
        let head = [seconds as u32, rest as u32, packet.data.len() as u32, packet.original_len];
        [self.words(&head), packet.data.clone()].concat()
    }

    /// A pcap file.
    #[must_use]
    pub fn pcap(self, link: u32, packets: &[Captured]) -> Vec<u8> {
        let mut file = self.pcap_header(link);
        packets.iter().for_each(|packet| file.extend(self.pcap_packet(packet)));
        file
    }

    /// A block of pcapng.
    #[must_use]
    pub fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let len = self.word(padded as u32 + 12);
        let mut block = [&self.word(kind)[..], &len, body].concat();
        block.resize(8 + padded, 0);
        block.extend(len);
        block
    }

    /// The beginning of a pcapng file: a section and its interfaces.
    #[must_use]
    pub fn section(self, links: &[u32]) -> Vec<u8> {
        let version = [self.half(1), self.half(0)].concat();
        let body = [&self.word(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
        let mut file = self.block(0x0a0d_0d0a, &body);
        for link in links {
            // if_tsresol: ten to the minus this; then the end of the options.
            let digits = if self.nanoseconds { 9 } else { 6 };
            let options = [&self.half(9)[..], &self.half(1), &[digits, 0, 0, 0], &[0; 4]].concat();
            let body = [&self.half(*link as u16)[..], &[0; 2], &self.word(0), &options].concat();
            file.extend(self.block(1, &body));
        }
        file
    }

    /// A packet of a pcapng file, of an interface of its section.
    #[must_use]
    pub fn enhanced(self, interface: u32, packet: &Captured) -> Vec<u8> {
        let ticks = if self.nanoseconds { packet.time_us * 1000 } else { packet.time_us };
        let len = packet.data.len() as u32;
        let mut body = self.words(&[interface, (ticks >> 32) as u32, ticks as u32, len, packet.original_len]);
        body.extend(&packet.data);
        body.resize(body.len().next_multiple_of(4), 0);
        if packet.flags != 0 {
            body.extend([self.half(2), self.half(4)].concat());
            body.extend(self.word(packet.flags));
            body.extend([0; 4]);
        }
        self.block(6, &body)
    }

    /// A pcapng file with enhanced packets.
    #[must_use]
    pub fn pcapng(self, link: u32, packets: &[Captured]) -> Vec<u8> {
        let mut file = self.section(&[link]);
        packets.iter().for_each(|packet| file.extend(self.enhanced(0, packet)));
        file
    }

    /// A pcapng file with simple packets.
    #[must_use]
    pub fn pcapng_simple(self, link: u32, packets: &[Captured]) -> Vec<u8> {
        let mut file = self.section(&[link]);
        for packet in packets {
            let body = [&self.word(packet.original_len)[..], &packet.data].concat();
            file.extend(self.block(3, &body));
        }
        file
    }
}

/// An Ethernet frame without VLAN tag as another link type has it. `sent` says who sent it, where the link tells.
///
/// # Panics
/// For a link type that it does not know.
#[must_use]
pub fn on_link(link: u32, frame: &[u8], sent: bool) -> Vec<u8> {
    let (kind, packet) = (&frame[IP - 2..IP], &frame[IP..]);
    let v6 = kind == [0x86, 0xdd];
    match link {
        1 => frame.to_vec(),
        101 | 12 | 14 | 228 | 229 => packet.to_vec(),
        0 => [&[if v6 { 10 } else { 2 }, 0, 0, 0], packet].concat(),
        113 => {
            [&[0, if sent { 4 } else { 0 }, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], kind, packet].concat()
        }
        276 => {
            let rest = [0, 0, 0, 0, 0, 2, 0, 1, if sent { 4 } else { 0 }, 6, 2, 0, 0, 0, 0, 1, 0, 0];
            [kind, &rest[..], packet].concat()
        }
        _ => panic!("link type {link}"),
    }
}
