//! A byte-wise framer written from RFC 3261 without a look at the fast one, and the properties that bind the two:
//! the same verdict for the same bytes, whatever the segmentation.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, PHASE_IDLE, Stream, feed};

/// What became of a stream: complete messages, then the reason of its end if it was malformed.
type Outcome = (u32, Option<Reason>);

/// Judges a whole stream at once, line by line, byte by byte.
fn oracle(bytes: &[u8], limits: &Limits) -> Outcome {
    let mut messages = 0;
    let mut at = 0;
    loop {
        while at < bytes.len() && matches!(bytes[at], b'\r' | b'\n') {
            at += 1;
        }
        if at == bytes.len() {
            return (messages, None);
        }
        match message(&bytes[at..], limits) {
            Ok(Some((section, body))) => {
                messages += 1;
                at = (at + section + body).min(bytes.len());
            }
            Ok(None) => return (messages, None),
            Err(reason) => return (messages, Some(reason)),
        }
    }
}

/// Lengths of header section and body of the message at the start of `bytes`; `None` while it is incomplete.
fn message(bytes: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, Reason> {
    let mut at = 0;
    let mut lf_style = false;
    let mut first = true;
    let mut lines = 0;
    let mut length: Option<u32> = None;
    let mut open = false; // Content-Length still without a value
    let mut last_is_length = false;
    loop {
        let Some(line) = line(bytes, at, first, limits)? else { return Ok(None) };
        let (text, cr) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (line, false),
        };
        at += line.len() + 1;
        if first {
            start_line(text)?;
            lf_style = !cr;
            first = false;
            continue;
        }
        if cr == lf_style {
            return Err(Reason::BareLf);
        }
        if text.is_empty() {
            if open {
                return Err(Reason::BadContentLength);
            }
            let Some(length) = length else { return Err(Reason::MissingContentLength) };
            return Ok(Some((at, length as usize)));
        }
        lines += 1;
        if lines > limits.header_lines {
            return Err(Reason::TooManyHeaders);
        }
        let value = if matches!(text[0], b' ' | b'\t') {
            if lines == 1 {
                return Err(Reason::BadHeaderName);
            }
            if last_is_length && !open {
                if text.len() > 64 || text.iter().any(|b| !matches!(b, b' ' | b'\t')) {
                    return Err(Reason::BadContentLength);
                }
                continue;
            }
            if !open {
                continue;
            }
            text
        } else {
            if open {
                return Err(Reason::BadContentLength);
            }
            let colon = text.iter().take(64).position(|b| *b == b':').ok_or(Reason::BadHeaderName)?;
            let mut name = &text[..colon];
            while let [front @ .., b' ' | b'\t'] = name {
                name = front;
            }
            if name.is_empty() || name.iter().any(|b| !(0x21..0x7f).contains(b)) {
                return Err(Reason::BadHeaderName);
            }
            last_is_length = name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l");
            if !last_is_length {
                continue;
            }
            &text[colon + 1..]
        };
        if text.len() > 64 {
            return Err(Reason::BadContentLength);
        }
        let value = std::str::from_utf8(value).map_err(|_| Reason::BadContentLength)?;
        let value = value.trim_matches([' ', '\t']);
        if value.is_empty() {
            open = true;
            continue;
        }
        if !value.bytes().all(|b| b.is_ascii_digit()) || value.len() > 16 {
            return Err(Reason::BadContentLength);
        }
        let number: u64 = value.parse().map_err(|_| Reason::BadContentLength)?;
        if number >= 1_000_000_000 {
            return Err(Reason::BadContentLength);
        }
        if number > u64::from(limits.body_bytes) {
            return Err(Reason::BodyTooLarge);
        }
        if length.is_some_and(|length| u64::from(length) != number) {
            return Err(Reason::DuplicateContentLength);
        }
        length = Some(number as u32);
        open = false;
    }
}

/// The line at `at` without its LF; `None` while it has not ended.
fn line<'a>(bytes: &'a [u8], at: usize, first: bool, limits: &Limits) -> Result<Option<&'a [u8]>, Reason> {
    let mut in_method = first;
    for now in at.. {
        if now == bytes.len() {
            return if first && too_long_method(&bytes[at..now]) {
                Err(Reason::BadStartLine)
            } else {
                Ok(None)
            };
        }
        let byte = bytes[now];
        if byte == b'\n' {
            return Ok(Some(&bytes[at..now]));
        }
        let after_cr = now > at && bytes[now - 1] == b'\r';
        let length = now - at >= limits.line_bytes as usize;
        if length || now >= limits.section_bytes as usize {
            return Err(if length { Reason::LineTooLong } else { Reason::HeadersTooLong });
        }
        if after_cr {
            return Err(if first { Reason::BadStartLine } else { Reason::BareCr });
        }
        if byte < 0x20 && byte != b'\t' && byte != b'\r' {
            return Err(if first { Reason::BadStartLine } else { Reason::ControlByte });
        }
        if in_method {
            in_method = byte != b' ' && !is_status(&bytes[at..=now]);
            let bad = if is_status(&bytes[at..=now]) {
                false
            } else if byte == b' ' {
                now == at
            } else {
                !(0x21..0x7f).contains(&byte)
            };
            if bad || too_long_method(&bytes[at..=now]) {
                return Err(Reason::BadStartLine);
            }
        }
    }
    unreachable!("the loop ends at the end of the bytes")
}

/// Whether the first 64 bytes hold no space.
fn too_long_method(line: &[u8]) -> bool {
    line.len() >= 64 && !line[..64].contains(&b' ') && !is_status(line)
}

fn is_status(line: &[u8]) -> bool {
    line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"sip/")
}

fn start_line(text: &[u8]) -> Result<(), Reason> {
    if is_status(text) {
        if text.len() < 8 || !text[..8].eq_ignore_ascii_case(b"sip/2.0 ") {
            return Err(Reason::BadVersion);
        }
        let code = &text[8..];
        let good = code.len() >= 3
            && (b'1'..=b'6').contains(&code[0])
            && code[1..3].iter().all(u8::is_ascii_digit)
            && (code.len() == 3 || code[3] == b' ');
        return if good { Ok(()) } else { Err(Reason::BadStartLine) };
    }
    let space = text.iter().take(64).position(|b| *b == b' ').ok_or(Reason::BadStartLine)?;
    if space == 0 || text.len() < space + 2 + 8 || text[..space].iter().any(|b| !(0x21..0x7f).contains(b)) {
        return Err(Reason::BadStartLine);
    }
    let last = &text[text.len() - 8..];
    if last.eq_ignore_ascii_case(b" SIP/2.0") {
        Ok(())
    } else if last[..5].eq_ignore_ascii_case(b" SIP/") {
        Err(Reason::BadVersion)
    } else {
        Err(Reason::BadStartLine)
    }
}

/// The fast framer over `bytes` cut at `cuts` (lengths of the segments, repeated).
fn fast(bytes: &[u8], cuts: &[usize], limits: &Limits) -> Outcome {
    let mut stream = Stream::NEW;
    let mut buffer = Box::new(Buffer::NEW);
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (segment, later) = rest.split_at((*cut).clamp(1, rest.len()));
        rest = later;
        if let Err(malformed) = feed(&mut stream, limits, &mut buffer, segment) {
            return (stream.messages, Some(malformed.reason));
        }
    }
    (stream.messages, None)
}

const SMALL: Limits = Limits { line_bytes: 100, section_bytes: 400, header_lines: 6, body_bytes: 300 };

/// One piece of a stream, good or bad.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let fixed = prop::sample::select(vec![
        &b"INVITE sip:a@b SIP/2.0\r\n"[..],
        b"REGISTER sip:h SIP/2.0\r\n",
        b"SIP/2.0 200 OK\r\n",
        b"SIP/2.0 180\r\n",
        b"OPTIONS sip:x SIP/2.0\n",
        b"INVITE sip:a SIP/3.0\r\n",
        b"SIP/3.0 200 OK\r\n",
        b"SIP/2.0 99 x\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\t",
        b" ",
        b":",
        b"\x80",
        b"x",
        b"Via: SIP/2.0/TCP h;branch=z9hG4bK1\r\n",
        b"v:h\r\n",
        b"Content-Length: 0\r\n\r\n",
        b"content-length  : 5\r\n\r\nhello",
        b"l:3\r\n\r\n\0\r\n",
        b"L: 0003 \r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length:\r\n",
        b"Content-Length:\r\n 4\r\n\r\nbody",
        b"Content-Length: 1 0\r\n",
        b"Content-Length: 4294967296\r\n",
        b"Content-Length: 999999999\r\n",
        b"Content-Length: 301\r\n",
        b"Content-Length: 12",
        b"Content-Length: 0000000000000002\r\n\r\nab",
        b"Content-Length: 00000000000000002\r\n",
        b"Subject: a\tb\r\n",
        b" folded\r\n",
        b"   \r\n",
        b"NoColon\r\n",
        b": x\r\n",
        b"Bad Name: x\r\n",
        b"To\x01: x\r\n",
        b"Na\x80me: x\r\n",
        b"Name \t : x\r\n",
        b"a\rb: c\r\n",
        b"a: b\n",
        b"SIP",
        b"/2.0",
        b" SIP/2.0\r\n",
        b"INV",
        b"ITE ",
        b"sip:",
        b" SIP/2.0\r",
    ])
    .prop_map(<[u8]>::to_vec);
    let long = (prop::sample::select(vec![b'a', b' ', b'\r', b'1', 0x81]), 1usize..140)
        .prop_map(|(byte, count)| vec![byte; count]);
    prop_oneof![12 => fixed, 2 => long, 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(fragment(), 1..14).prop_map(|parts| parts.concat())
}

/// 20,000 cases that are the same everywhere, so that a change is judged by what it did; `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` ask for others.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 20_000;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(5060);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fast_and_oracle_agree(bytes in stream(), cuts in prop::collection::vec(1usize..90, 1..6)) {
        for limits in [SMALL, Limits::default()] {
            let expected = oracle(&bytes, &limits);
            prop_assert_eq!(fast(&bytes, &[bytes.len()], &limits), expected, "in one segment");
            prop_assert_eq!(fast(&bytes, &cuts, &limits), expected, "cut by {:?}", &cuts);
            prop_assert_eq!(fast(&bytes, &[1], &limits), expected, "byte by byte");
        }
    }
}

#[test]
fn a_message_split_at_every_boundary() {
    let body = [b'x'; 70];
    let mut message = b"INVITE sip:9001@pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK77\r\nSubject: a\r\n\tb\r\nContent-Length: 70\r\n\r\n".to_vec();
    message.extend_from_slice(&body);
    for cut in 1..message.len() {
        let mut stream = Stream::NEW;
        let mut buffer = Box::new(Buffer::NEW);
        feed(&mut stream, &Limits::default(), &mut buffer, &message[..cut]).unwrap();
        assert_eq!(stream.messages, u32::from(cut >= message.len() - 70), "cut at {cut}");
        feed(&mut stream, &Limits::default(), &mut buffer, &message[cut..]).unwrap();
        assert_eq!((stream.messages, stream.phase), (1, PHASE_IDLE), "cut at {cut}");
    }
}

#[test]
fn windows_of_any_size_and_long_lines() {
    let limits = Limits { line_bytes: 9000, section_bytes: 60_000, ..Limits::default() };
    let mut bytes = b"OPTIONS sip:x SIP/2.0\r\n".to_vec();
    for length in [63, 64, 65, 66, 4031, 4032, 4033, 4095, 4096, 4097, 8990] {
        bytes.extend_from_slice(b"X: ");
        bytes.resize(bytes.len() + length, b'y');
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    let expected = oracle(&bytes, &limits);
    assert_eq!(expected, (1, None));
    for cut in [1, 2, 63, 64, 65, 1000, 1448, 4095, 4096, 4097, 65_000] {
        assert_eq!(fast(&bytes, &[cut], &limits), expected, "segments of {cut}");
    }
}

/// Short lines that random streams rarely hold, each cut everywhere.
#[test]
fn short_start_lines() {
    for text in ["SIP/2.0", "SIP/2.", "SIP/", "SIP", "SIP/2.0 ", "SIP/2.0 20", "SIP/2.0 200", "sip/2.0\t200", "A", "A ", "A b SIP/2.0"] {
        for end in ["\n", "\r\n", "\r\nX: y\r\n"] {
            let bytes = [text, end].concat().into_bytes();
            let expected = oracle(&bytes, &SMALL);
            for cut in 1..=bytes.len() {
                let cuts = [cut, bytes.len()];
                assert_eq!(fast(&bytes, &cuts, &SMALL), expected, "{text:?} {end:?} cut at {cut}");
            }
        }
    }
}
