//! A TCP segment with every field open to be bent, and what is read of the PBX's answers.

use std::net::IpAddr;

use sipguard_common::wire::{ether_type, ethernet, ipv4, ipv6, protocol::TCP, tcp};

use crate::{
    envelope::{Envelope, checksum},
    packet::{ACK, IP, PSH},
};

/// A segment on its way to the PBX.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Everything around it.
    pub envelope: Envelope,
    /// Source and destination port.
    pub ports: [u16; 2],
    /// Sequence number of its first byte.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// TCP flags.
    pub flags: u8,
    /// The window that it offers.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// Timestamp value and echo (RFC 7323).
    pub timestamps: Option<[u32; 2]>,
    /// Further options, whole words of four bytes.
    pub options: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Whether its checksum is wrong.
    pub bad_checksum: bool,
}

impl Segment {
    /// Without payload, acknowledging nothing.
    #[must_use]
    pub fn new(envelope: Envelope, ports: [u16; 2], seq: u32, flags: u8) -> Self {
        Self {
            envelope,
            ports,
            seq,
            ack: 0,
            flags,
            window: 64_000,
            urgent: 0,
            timestamps: None,
            options: vec![],
            payload: vec![],
            bad_checksum: false,
        }
    }

    /// The same with this payload, pushed.
    #[must_use]
    pub fn carrying(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self.flags |= ACK | PSH;
        self
    }

    /// The transport segment alone.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        if let Some(stamps) = self.timestamps {
            options.extend([1, 1, 8, 10]);
            stamps.iter().for_each(|stamp| options.extend(stamp.to_be_bytes()));
        }
        let mut bytes = self.ports.map(u16::to_be_bytes).concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((5 + options.len() / 4) << 4) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(options);
        bytes.extend(&self.payload);
        let sum = checksum(self.envelope.from, self.envelope.to, TCP, &bytes);
        let sum = sum ^ (u16::from(self.bad_checksum) * 0x0101);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        self.envelope.seal(TCP, &self.bytes())
    }

    /// Frames of IP fragments; see [`Envelope::fragments`].
    #[must_use]
    pub fn fragments(&self, parts: &[std::ops::Range<usize>]) -> Vec<Vec<u8>> {
        self.envelope.fragments(TCP, &self.bytes(), parts)
    }
}

/// A TCP segment of the PBX.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The port that it comes from.
    pub from_port: u16,
    /// The port that it goes to.
    pub to_port: u16,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// Its flags.
    pub flags: u8,
    /// Its timestamp.
    pub timestamp: u32,
}

impl Answer {
    /// Reads a frame of the PBX's kernel to `own`; `None` when it is something else.
    #[must_use]
    pub fn parse(frame: &[u8], own: IpAddr) -> Option<Self> {
        let kind = u16::from_be_bytes(frame.get(ethernet::TYPE..IP)?.try_into().ok()?);
        let (at, to) = match kind {
            ether_type::IPV4 if *frame.get(IP + ipv4::PROTOCOL)? == TCP => {
                let to: [u8; 4] = frame.get(IP + ipv4::DESTINATION..IP + ipv4::LEN)?.try_into().ok()?;
                (IP + usize::from(frame[IP] & 15) * 4, IpAddr::from(to))
            }
            ether_type::IPV6 if *frame.get(IP + ipv6::NEXT_HEADER)? == TCP => {
                let to: [u8; 16] = frame.get(IP + ipv6::DESTINATION..IP + ipv6::LEN)?.try_into().ok()?;
                (IP + ipv6::LEN, IpAddr::from(to))
            }
            _ => return None,
        };
        let header = frame.get(at..)?;
        let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let options = header.get(tcp::LEN..usize::from(header.get(tcp::DATA_OFFSET)? >> 4) * 4)?;
        let answer = Self {
            from_port: u16::from_be_bytes(header.get(0..2)?.try_into().ok()?),
            to_port: u16::from_be_bytes(header.get(2..4)?.try_into().ok()?),
            seq: word(tcp::SEQ)?,
            ack: word(tcp::ACK_SEQ)?,
            flags: header[tcp::FLAGS],
            timestamp: timestamp(options).unwrap_or(0),
        };
        (to == own).then_some(answer)
    }
}

fn timestamp(options: &[u8]) -> Option<u32> {
    let mut rest = options;
    loop {
        rest = match rest {
            [1, rest @ ..] => rest,
            [8, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([*a, *b, *c, *d])),
            [_, length, ..] => rest.get(usize::from(*length).max(2)..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{SYN, tcp_sum};

    #[test]
    fn a_segment_is_read_back() {
        let envelope = Envelope::new("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let mut segment = Segment::new(envelope, [5060, 40000], 7, SYN | ACK);
        segment.options = vec![2, 4, 5, 0xb4];
        segment.timestamps = Some([1234, 0]);
        assert_eq!(tcp_sum(segment.envelope.from, segment.envelope.to, &segment.bytes()), 0xffff);
        let answer = Answer::parse(&segment.frame(), segment.envelope.to).unwrap();
        assert_eq!((answer.from_port, answer.to_port), (5060, 40000));
        assert_eq!((answer.seq, answer.timestamp), (7, 1234));
        assert!(Answer::parse(&segment.frame(), segment.envelope.from).is_none());
    }
}
