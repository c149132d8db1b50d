//! The framer in the kernel against the framer in userspace: the same code on two machines must say the same.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, Stream, feed};
use sipguard_tests::packet::{ACK, Peer};
use sipguard_tests::program::Program;

/// Streams that are compared. Each is a few segments; the whole is a little above 100,000 program runs.
const STREAMS: u32 = 30_000;
const LIMITS: Limits = Limits { line_bytes: 120, section_bytes: 240, header_lines: 5, body_bytes: 5000 };

/// SplitMix64: the same cases in every run, each named by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

const PIECES: &[&[u8]] = &[
    b"INVITE sip:a@b SIP/2.0\r\n",
    b"REGISTER sip:h SIP/2.0\r\n",
    b"SIP/2.0 200 OK\r\n",
    b"OPTIONS sip:x SIP/2.0\n",
    b"INVITE sip:a SIP/3.0\r\n",
    b"SIP/2.0 99 x\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"\x80",
    b"Via: SIP/2.0/TCP h;branch=z9hG4bK1\r\n",
    b"v:h\r\n",
    b"Content-Length: 0\r\n\r\n",
    b"content-length  : 5\r\n\r\nhello",
    b"l:3\r\n\r\n\0\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length:\r\n 4\r\n\r\nbody",
    b"Content-Length: 4294967296\r\n",
    b"Content-Length: 0000000000000002\r\n\r\nab",
    b"Content-Length: 5001\r\n",
    b"Subject: a\tb\r\n",
    b" folded\r\n",
    b"NoColon\r\n",
    b"To\x01: x\r\n",
    b"a\rb: c\r\n",
    b"SIP",
    b"/2.0",
    b" SIP/2.0\r\n",
    b"INV",
    b"ITE ",
    b"sip:",
    b" SIP/2.0\r",
    b"l: 1\r\nl: 2\r\n",
    b"a:1\r\nb:2\r\nc:3\r\n",
    b"d:4\r\ne:5\r\nf:6\r\ng:7\r\n",
    b"A-Header-Name-That-Is-Longer-Than-Sixteen-Bytes: value\r\n",
];

fn stream(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.below(4) > 0 {
        bytes.extend(PIECES[random.below(4)]);
    }
    for _ in 0..1 + random.below(8) {
        match random.below(16) {
            0 => bytes.resize(bytes.len() + random.below(150), b"aX 1:"[random.below(5)]),
            1 => {
                let len = 60 + random.below(50);
                bytes.extend(format!("X-Filler: {:a<len$}\r\n", "").as_bytes());
            }
            2 => {
                let len = 3000 + random.below(2000);
                bytes.extend(format!("Content-Length: {len}\r\n\r\n").as_bytes());
                bytes.resize(bytes.len() + len, b'b');
            }
            _ => bytes.extend(PIECES[random.below(PIECES.len())]),
        }
    }
    if random.below(3) == 0 {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
    bytes
}

/// What userspace says of the segments: a reason for each until the first malformed one.
fn expected(segments: &[&[u8]]) -> Vec<Reason> {
    let (mut state, mut buffer, mut reasons) = (Stream::NEW, Box::new(Buffer::NEW), Vec::new());
    for segment in segments {
        match feed(&mut state, &LIMITS, &mut buffer, segment) {
            Ok(()) => reasons.push(Reason::Valid),
            Err(malformed) => {
                reasons.push(malformed.reason);
                break;
            }
        }
    }
    reasons
}

#[test]
fn kernel_and_userspace_agree() -> Result<()> {
    let mut program = Program::new()?;
    program.change(|settings| settings.limits = LIMITS)?;
    let mut random = Random(1);
    let mut malformed = [0u32; 64];
    for number in 0..STREAMS {
        let bytes = stream(&mut random);
        let mut rest = bytes.as_slice();
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let most = [rest.len(), 64, 200, 7][random.below(4)].min(rest.len());
            let (segment, later) = rest.split_at(1 + random.below(most));
            segments.push(segment);
            rest = later;
        }
        // A port for each stream, so that each is a connection of its own.
        let mut peer = Peer::new("192.0.2.7:1", "198.51.100.1:5060");
        peer.remote.set_port(1024 + (number % 60_000) as u16);
        program.run_uncounted(&peer.tcp(sipguard_tests::packet::SYN, number.wrapping_sub(1), b""))?;
        let reasons = expected(&segments);
        let mut seq = number;
        for (segment, expected) in segments.iter().zip(&reasons) {
            let run = program.run(&peer.tcp(ACK, seq, segment))?;
            assert_eq!(run.reason, *expected, "stream {number}, segment {segment:?} of {segments:?}");
            seq = seq.wrapping_add(segment.len() as u32);
        }
        if let Some(last) = reasons.last() {
            malformed[usize::from(last.number())] += 1;
        }
    }
    // The cases are worth something only when they reach every reason of the framer.
    for reason in
        Reason::ALL.iter().filter(|reason| reason.is_malformed() && **reason != Reason::UnknownStream)
    {
        assert!(malformed[usize::from(reason.number())] > 10, "too few cases of {}", reason.word());
    }
    assert!(malformed[usize::from(Reason::Valid.number())] > 1000, "too few good streams");
    Ok(())
}
