//! The framer in the kernel against the framer in userspace: the same code on two machines must say the same. And a datagram in
//! IP fragments against the whole one.

use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use sipguard_common::Reason;
use sipguard_common::abi::{CLASS_DEVICES, CheckSwitches, Rule, TRANSPORTS, rule_flags, rules_in_use};
use sipguard_common::framer::{
    Buffer, Limits, MatchKey, MatchSubject, Stream, checks, decide_datagram, decide_datagram_with, feed_with,
    matched_headers, methods,
};
use sipguard_tests::packet::{ACK, Peer, SYN};
use sipguard_tests::program::{PERMANENTLY, Program, Shared, XDP_DROP};

/// Streams that are compared; `SIPGUARD_STREAMS` asks for another number. Each is a few segments, and a datagram.
const STREAMS: u32 = 45_000;

/// Limits that are soon reached, with the checks of both profiles in turn.
fn limits(round: u32) -> Limits {
    let strict = round % 2 == 1;
    Limits {
        line_bytes: 120,
        other_line_bytes: 180,
        section_bytes: if strict { 600 } else { 240 },
        header_lines: if strict { 12 } else { 5 },
        same_name: 2,
        body_bytes: 5000,
        message_ms: 0,
        message_segments: 0,
        pad: 0,
        checks: if strict { checks::STRICT } else { checks::DEFAULT & !checks::MANDATORY },
        denied: if round % 4 == 2 { methods::REGISTER | methods::OTHER } else { 0 },
        matched_headers: if round % 4 < 2 {
            matched_headers::IDENTITIES | matched_headers::USER_AGENTS
        } else {
            0
        },
    }
}

/// The checks that are off in a round: a half of them, the other half, all, or none.
fn off(round: u32) -> u64 {
    let each = Reason::ALL.iter().filter(|reason| reason.is_check() && !reason.loses_framing());
    let is_off = |reason: &&Reason| match round {
        12 | 13 => u32::from(reason.number()) % 2 != round % 2,
        14 => true,
        _ => false,
    };
    each.filter(is_off).fold(0, |all, reason| all | reason.check_bit())
}

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
    b"MatchSubject: a\tb\r\n",
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
    b"v:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nl: 0\r\n\r\n",
    b"v:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nl: 9\r\n\r\n",
    b"CSeq: 1 INVITE\r\n",
    b"CSeq:\r\n 0009\r\n INVITE\r\n",
    b"CSeq: 2147483648 INVITE\r\n",
    b"CSeq: 1 REGISTER\r\n",
    b"Max-Forwards: 256\r\n",
    b"Expires: 99999999999\r\n",
    b"Via: SIP/2.0/UDP h:65536;branch=1\r\n",
    b"Na(me: x\r\n",
    b"To: again\r\n",
    b"INVITE sip:a@b SIP/2.0  \r\n",
    b"From: <sip:A1@h>;tag=1\r\n",
    b"f: \"<sip:A1@h> \\\"\" <sips:A1@H:5061;x>\r\n",
    b"From: sip:A1@h",
    b"From:\r\n",
    b"From: \"a name that takes all of the room\" <sip:A1@h>\r\n",
    b" <sip:A1@h>\r\n",
    b"Contact: <sip:a1@h>, <sip:A1@h>\r\n",
    b"m: sip:A1@h;q=1\r\n",
    b"User-Agent: SCANner/1\r\n",
    b"User-Agent:\r\n",
    b"user-agent  : scan\r\n",
    b"User-Agent: ",
    b"MatchSubject: \"a\\\x01\\\x02\\\\\" \"\\\x0b",
    b"\\\x01",
    b"a:\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\r\n",
    b"\r\n\r\n\n\n\r\n\r\n\r\n\r\n\r\n\n\n\n\n\n\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    b" scanner\r\n",
    b"\x00\x01\x00\x08\x21\x12\xa4\x42twelve bytes\x80\x22\x00\x03abc\0",
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
    if !bytes.is_empty() && random.below(3) == 0 {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
    bytes
}

/// What is blocked where [`Limits::matched_headers`] says so.
const IDENTITY: &str = "A1@h";
/// See [`IDENTITY`].
const USER_AGENT: &str = "scanner";

/// The rules of userspace.
fn find(subject: MatchSubject, key: &MatchKey, _: u32) -> Option<Reason> {
    let bytes: Vec<u8> = key.iter().flat_map(|word| word.to_le_bytes()).collect();
    match subject {
        MatchSubject::Uri(_) => {
            (bytes.strip_prefix(IDENTITY.as_bytes())?[0] == 0).then_some(Reason::BlockedIdentity)
        }
        MatchSubject::UserAgent(_) => {
            bytes.starts_with(USER_AGENT.as_bytes()).then_some(Reason::BlockedUserAgent)
        }
    }
}

/// What userspace says of the segments: a reason for each until the first malformed one.
fn expected(segments: &[&[u8]], limits: &Limits, buffer: &mut Buffer) -> Vec<Reason> {
    let (mut state, mut reasons) = (Stream::NEW, Vec::new());
    for segment in segments {
        match feed_with(&find, &mut state, limits, buffer, segment) {
            Ok(()) => reasons.push(Reason::Valid),
            Err(malformed) => {
                reasons.push(malformed.reason);
                break;
            }
        }
    }
    reasons
}

/// Runs frames and compares what was counted with what was expected.
struct Comparison {
    program: Shared,
    counts: Vec<u64>,
    runs: u64,
}

impl Comparison {
    fn run(&mut self, frame: &[u8], expected: Reason, what: &dyn Fn() -> String) -> Result<()> {
        let count = &mut self.counts[usize::from(expected.number())];
        *count += 1;
        self.runs += 1;
        self.program.run_uncounted(frame)?;
        if self.program.count(expected)? != *count {
            let all = self.program.counters()?;
            let counted = Reason::ALL
                .iter()
                .zip(all)
                .filter(|(reason, counter)| counter.packets > self.counts[usize::from(reason.number())]);
            let counted: Vec<_> = counted.map(|(reason, _)| reason.name()).collect();
            bail!("{} expected, {counted:?} counted: {}", expected.name(), what());
        }
        Ok(())
    }
}

#[test]
fn kernel_and_userspace_agree() -> Result<()> {
    let streams = match std::env::var("SIPGUARD_STREAMS") {
        Ok(number) => number.parse().context("SIPGUARD_STREAMS is a number")?,
        Err(_) => STREAMS,
    };
    let mut comparison = Comparison { program: Program::shared()?, counts: vec![0; Reason::COUNT], runs: 0 };
    let blocked = Rule { flags: rule_flags::BLOCK, ..PERMANENTLY };
    comparison.program.identity(IDENTITY, blocked)?;
    comparison.program.user_agent(USER_AGENT, blocked)?;
    let mut random = Random(1);
    let mut buffer = Box::new(Buffer::NEW);
    for number in 0..streams {
        let round = number / (streams / 16).max(1);
        let mut limits = limits(round);
        if number % (streams / 16).max(1) == 0 {
            comparison.program.change(|settings| {
                settings.limits = limits;
                settings.checks = CheckSwitches { off: off(round), monitored: 0 };
                settings.denied[CLASS_DEVICES] = [limits.denied; TRANSPORTS.len()];
                let rules = rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS;
                settings.rules = if limits.matched_headers == 0 { 0 } else { rules };
            })?;
        }
        limits.switch_off(off(round));
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
        peer.remote.set_ip(std::net::Ipv4Addr::from(0xc600_0000 | (number / 60_000)).into());
        comparison
            .run(&peer.tcp(SYN, number.wrapping_sub(1), b""), Reason::TcpControl, &|| "a SYN".to_owned())?;
        comparison.program.leave(&peer.answer(number))?;
        let reasons = expected(&segments, &limits, &mut buffer);
        let mut seq = number;
        for (segment, expected) in segments.iter().zip(&reasons) {
            let what = || format!("stream {number}, segment {segment:?} of {segments:?}");
            comparison.run(&peer.tcp(ACK, seq, segment), *expected, &what)?;
            seq = seq.wrapping_add(segment.len() as u32);
        }
        let judged =
            decide_datagram_with(&find, &mut Stream::NEW.clone(), &limits, &mut buffer, &bytes, true);
        let expected = match judged.unwrap_or_else(|malformed| malformed.reason) {
            // No check of the framer.
            Reason::BadStun if off(round) & Reason::BadStun.check_bit() != 0 => Reason::Stun,
            reason => reason,
        };
        comparison.run(&peer.udp(&bytes), expected, &|| format!("datagram {number} {bytes:?}"))?;
    }
    println!("{} program runs, no disagreement", comparison.runs);
    // The cases are worth something only when they reach every reason of the framer.
    let framer = |reason: &&Reason| {
        reason.is_malformed()
            && !matches!(reason, Reason::NotTls | Reason::BadTlsRecord | Reason::BadProxyHeader)
    };
    let screened = [Reason::BlockedIdentity, Reason::BlockedUserAgent];
    // Fewer streams than usual reach each of them at least once.
    let enough = if streams < STREAMS { 0 } else { 10 };
    for reason in Reason::ALL.iter().filter(framer).chain(&screened) {
        let count = comparison.counts[usize::from(reason.number())];
        assert!(count > enough, "{count} cases of {} are too few", reason.name());
        if screened.contains(reason) {
            println!("{count} of them {}", reason.name());
        }
    }
    assert!(comparison.counts[usize::from(Reason::Valid.number())] > 1000, "too few good streams");
    Ok(())
}

/// A datagram of good and bad lines, whole or unfinished, with a body that nobody has to look at.
fn datagram(random: &mut Random) -> Vec<u8> {
    const LINES: &[&[u8]] = &[
        b"MatchSubject: a\tb\r\n",
        b"MatchSubject:\r\n folded\r\n",
        b"Content-Length: 9\r\n",
        b"Content-Length: 10\r\n",
        b"Content-Length: -1\r\n",
        b"NoColon\r\n",
        b"CSeq: 1 INVITE\r\n",
        b"X: \0\r\n",
        b"X: a\rb\r\n",
        b"X: a\n",
        b"To: again\r\n",
        b"\r\n",
    ];
    let mut bytes = Vec::new();
    if random.below(10) == 0 {
        bytes = b"\r\n".repeat(random.below(400));
    }
    if random.below(40) > 0 || bytes.is_empty() {
        bytes.extend(if random.below(20) > 0 {
            &b"INVITE sip:a@b SIP/2.0\r\n"[..]
        } else {
            b"INVITE sip:a@b\r\n"
        });
        bytes.extend(b"v:h\r\nf:a\r\nt:b\r\ni:c\r\n");
        for _ in 0..10 + random.below(40) {
            if random.below(25) == 0 {
                bytes.extend(LINES[random.below(LINES.len())]);
            } else {
                let most = if random.below(20) == 0 { 2500 } else { 60 };
                let len = random.below(most);
                bytes.extend(format!("Route: {:a<len$}\r\n", "").as_bytes());
            }
        }
        bytes.extend(if random.below(10) < 7 { &b"CSeq: 7 INVITE\r\n"[..] } else { b"" });
        bytes.extend(if random.below(10) < 8 { &b"\r\n"[..] } else { b"" });
        bytes.extend(b"\0body\r\n\r\n".repeat(random.below(60)));
    }
    if random.below(5) == 0 {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8 | 0x40;
    }
    bytes
}

/// Ranges of a datagram's bytes: the first has at least 256, the others at least 8.
fn parts(random: &mut Random, end: usize) -> Vec<Range<usize>> {
    let (mut parts, mut at, mut least) = (vec![], 0, 32);
    let most = [200, 20, 3][random.below(3)];
    while at < end {
        let next = (at + 8 * (least + random.below(most))).min(end);
        parts.push(at..next);
        (at, least) = (next, 1);
    }
    parts
}

#[test]
fn any_cut_of_a_datagram_gives_the_same_verdict() -> Result<()> {
    const DATAGRAMS: u32 = 12_000;
    let mut program = Program::shared()?;
    let (mut random, mut buffer, mut judged_later) = (Random(3), Box::new(Buffer::NEW), 0);
    let mut counts = vec![0; Reason::COUNT];
    for number in 0..DATAGRAMS {
        let limits = Limits {
            line_bytes: 2000,
            other_line_bytes: 4000,
            section_bytes: 5000,
            same_name: 255,
            checks: if number < DATAGRAMS / 2 {
                checks::DEFAULT
            } else {
                checks::DEFAULT | checks::WHOLE_BODY
            },
            ..Limits::default()
        };
        if number % (DATAGRAMS / 2) == 0 {
            program.change(|settings| settings.limits = limits)?;
        }
        let bytes = datagram(&mut random);
        let judged = decide_datagram(&mut Stream::NEW.clone(), &limits, &mut buffer, &bytes, true);
        let expected = judged.unwrap_or_else(|malformed| malformed.reason);
        let parts = parts(&mut random, 8 + bytes.len());
        let what =
            || format!("{} expected of {number}, {parts:?}: {}", expected.name(), bytes.escape_ascii());
        let peer = if number % 2 == 0 {
            Peer::new(&format!("192.0.{}.7:40000", number % 200), "198.51.100.1:5060")
        } else {
            Peer::new("[2001:db8::7]:40000", "[2001:db8:1::1]:5060")
        };
        let mut dropped = None;
        for (part, frame) in peer.udp_parts(&bytes, number, &parts).iter().enumerate() {
            let (action, _) = program.run_uncounted(frame)?;
            if action == XDP_DROP {
                dropped = Some(part);
                break;
            }
        }
        ensure!(dropped.is_some() == expected.is_malformed(), "{dropped:?} was dropped: {}", what());
        judged_later += u32::from(dropped.is_some_and(|part| part > 0));
        let count = &mut counts[usize::from(expected.number())];
        *count += 1;
        ensure!(!expected.is_malformed() || program.count(expected)? == *count, "{}", what());
    }
    let reached: Vec<_> = Reason::ALL.iter().zip(&counts).filter(|(_, count)| **count > 0).collect();
    println!("{DATAGRAMS} datagrams, {judged_later} refused in a later fragment: {reached:?}");
    ensure!(judged_later > 1000 && counts[usize::from(Reason::Valid.number())] > 1000 && reached.len() > 12);
    Ok(())
}
