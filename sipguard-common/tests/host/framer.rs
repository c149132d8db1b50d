//! The framer against the byte-wise one: the same verdict for the same bytes, whatever the segmentation.

mod packets;

use packets::{plan, records, stun};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, PHASE_IDLE, Stream, decide_datagram, feed};

use crate::oracle::bytewise::oracle;
use crate::oracle::flow::fast;
use crate::oracle::properties::{FORM, SMALL, datagram, profiles, segments, stream};

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
        b"To: \"a\\\0b\\\x07\" <sip:a>\r\n",
        b"Via: SIP/2.0/UDP h:005060;mattl=12345\r\n",
        b"\\",
        b"\\\x01",
        b"\"",
        b"To: \"",
        b"To: \"\\\0",
        b"Su\"b: \\\x02\r\n",
        b"Subject: \"\\\\\0\"\r\n",
        b"Subject: \"a\r\n \\\x02\"\r\n",
        b"Subject: \"\\\\\\\x01\\\x0b\" x \"\\\t\\\x1f\"\r\n",
        b"Subject: \\ \"\\\x01\"\r\n",
        b"Subject: \"ends\\\r\n",
        b"Na\x80me: x\r\n",
        b"Name \t : x\r\n",
        b"a\rb: c\r\n",
        b"a: b\n",
        b"SIP",
        b"/2.0",
        b" SIP/2.0\r\n",
        b"v:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nl: 0\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nv:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 INVITE\r\n",
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h:5060;branch=z9hG4bK1;ttl=16\r\nTo: x\r\nFrom: y\r\nCall-ID: z\r\n",
        b"CSeq: 1 INVITE\r\n",
        b"CSeq: 2 REGISTER\r\n",
        b"CSeq: 2147483647 INVITE\r\n",
        b"CSeq: 2147483648 INVITE\r\n",
        b"CSeq:\r\n 0009\r\n INVITE\r\n",
        b"CSeq: 9\tINVITE \r\n",
        b"CSeq: 9 \r\n",
        b"CSeq: INVITE\r\n",
        b"CSeq: 1INVITE\r\n",
        b"CSeq: 12345678901234567 OPTIONS\r\n",
        b"CSeq:                                               1 INVITE\r\n",
        b"CSeq: 77 ",
        b"Max-Forwards: 256\r\n",
        b"Max-Forwards: 4294967296\r\n",
        b"Max-Forwards: x\r\n",
        b"Expires: 99999999999\r\n",
        b"Expires: 99999999999999999999\r\n",
        b"Expires: Thu, 01 Dec 1994 16:00:00 GMT\r\n",
        b"Via: SIP/2.0/UDP h:65536;branch=1\r\n",
        b"v: SIP/2.0/UDP h:65535;branch=z9:123456;ttl=12345\r\n",
        b"Via: SIP/2.0/UDP h:123456\r\n",
        b"SUBSCRIBE-WITH-A-LONG-NAME sip:a SIP/2.0\r\nCSeq: 1 SUBSCRIBE-WITH-A-LONG-NAME\r\n",
        b"INVITE  sip:a@b  SIP/2.0\r\n",
        b"INVITE sip:a@b SIP/2.0  \r\n",
        b"IN(VITE sip:a@b SIP/2.0\r\n",
        b"Na(me: x\r\n",
        b"To: again\r\n",
        b"Accept: a\r\nAccept: b\r\nAccept: c\r\n",
        b"X-A-Header-Of-Thirty-Bytes-001: a\r\nX-A-HeaderLine-Of-Thirty-Bytes-001: b\r\n",
        b"x-a-name-of-more-than-sixty-three-bytes-that-nobody-ever-sent-but-the-torture-test:1\r\n",
        b"x-a-name-of-sixty-bytes-which-more-bytes-may-follow-in-pieces",
        b"OPTIONS sip:x SIP/2.0\nv:h\nf:a\nt:b\ni:c\nCSeq: 1 OPTIONS\nl: 0\n\n",
        b"OPTIONS sip:x SIP/2.0\nv:h\nf:a\nt:b\ni:c\nCSeq: 1 OPTIONS\nl: 9\n\n",
        b"OPTIONS sip:x SIP/2.0\nv:h\nf:a\nt:b\ni:c\nCSeq: 1 OPTIONS\nl: 99\n\n\xff",
        b"OPTIONS sip:x SIP/2.0\r\nv:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq: 1 OPTIONS\r\nl: 0\r\n\r\n",
        b"v:h\n",
        b"Via: SIP/2.0/UDP h\n",
        b"a\r\nb\n",
        b"\n\r",
        b"\r\n\0",
        b" Content-Length: 3\r\n",
        b"\tl : 3\r\n",
        b" l\r\n",
        b"  Content_length\t: 1\r\n",
        b" content-lengths: 1\r\n",
        b" content-length",
        b"                                              ",
        b"Content_Length: 3\r\n",
        b"l : 0 SIP/2.0\r\n",
        b"Content-Length: 0 SIP/2.0\r\n",
        b"l sip:a SIP/2.0\r\n",
        b"Content-Length\t\t sip:a SIP/2.0\r\n",
        b"MSRP sip:a SIP/2.0\r\n",
        b"MSRPX sip:a SIP/2.0\r\n",
        b"History-Info: <sip:a>\r\n",
        b"P-Associated-URI: <sip:a>\r\n",
        b"Contact: <sip:a>, <sip:b>,",
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

fn bytes() -> impl Strategy<Value = Vec<u8>> {
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
    fn fast_and_oracle_agree(bytes in bytes(), plan in plan()) {
        for limits in profiles() {
            segments(&bytes, &plan, &limits);
            prop_assert_eq!(fast(&bytes, &[1], &limits), oracle(&bytes, &limits), "byte by byte");
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_segment_agrees(bytes in bytes()) {
        stream(&bytes);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn datagrams_agree(bytes in prop_oneof![4 => bytes(), 1 => stun()]) {
        datagram(&bytes);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tls_ports_agree(bytes in records(), plan in plan()) {
        segments(&bytes, &plan, &Limits::default());
    }
}

#[test]
fn a_message_split_at_every_boundary() {
    let body = [b'x'; 70];
    let mut message = b"INVITE sip:9001@pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK77\r\nSubject: a\r\n\tb\r\n\
        From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: 1@b\r\nCSeq:\r\n 1\r\n INVITE\r\nContent-Length: 70\r\n\r\n"
        .to_vec();
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
    let limits = Limits { line_bytes: 9000, section_bytes: 60_000, checks: FORM, ..Limits::default() };
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
    for text in [
        "SIP/2.0",
        "SIP/2.",
        "SIP/",
        "SIP",
        "SIP/2.0 ",
        "SIP/2.0 20",
        "SIP/2.0 200",
        "sip/2.0\t200",
        "A",
        "A ",
        "A b SIP/2.0",
    ] {
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

/// HeaderLine names around every length that matters, each cut everywhere, then in three.
#[test]
fn long_header_names() {
    let opening = "OPTIONS sip:x SIP/2.0\r\n";
    for length in [62, 63, 64, 65, 80, 93, 126, 127, 128, 129, 200] {
        for behind in [": y\r\n", " : y\r\n", "\r\n", "\u{e9}: y\r\n", ":\r\n z\r\n"] {
            let text = [opening, &"n".repeat(length), behind, "l: 0\r\n\r\n"].concat();
            for limits in [Limits { checks: FORM, ..Limits::default() }, Limits::strict()] {
                let expected = oracle(text.as_bytes(), &limits);
                for first in 1..text.len() {
                    for second in [1, 5, 33, text.len()] {
                        let found = fast(text.as_bytes(), &[first, second, text.len()], &limits);
                        assert_eq!(
                            found, expected,
                            "{length} and {behind:?} cut at {first} and after {second}"
                        );
                    }
                }
            }
        }
    }
    let verdict = |length: usize| {
        let text = [opening, &"n".repeat(length), ": y\r\nl: 0\r\n\r\n"].concat();
        oracle(text.as_bytes(), &Limits { checks: FORM, ..Limits::default() })
    };
    assert_eq!(verdict(127), (1, None));
    assert_eq!(verdict(128), (0, Some(Reason::BadHeaderName)));
}

/// Quoted bytes around every place that matters, each stream cut everywhere.
#[test]
fn quoted_pairs() {
    let judge = |line: &[u8]| {
        let text = [b"OPTIONS sip:x SIP/2.0\r\n", line, b"\r\nl: 0\r\n\r\n"].concat();
        let mut verdicts = vec![];
        for limits in [Limits { checks: FORM, ..Limits::default() }, Limits::strict()] {
            let expected = oracle(&text, &limits);
            for cut in 1..=text.len() {
                for second in [1, 64, text.len()] {
                    let found = fast(&text, &[cut, second, text.len()], &limits);
                    assert_eq!(found, expected, "{} cut at {cut}, {second}", line.escape_ascii());
                }
            }
            verdicts.push(expected.1);
        }
        assert!(verdicts[1].is_some(), "strict takes {}", line.escape_ascii());
        verdicts[0].is_none()
    };
    for control in (0..0x20u8).filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r')) {
        for (before, good) in [
            (&b"To: \"a\\"[..], true),
            (b"t:\"\\", true),
            (b"To: \"a\\\\\\", true),
            (b"To: \"a\" <sip:a>, \"b\\", true),
            (b"To: a\\", false),
            (b"To: \"a\\\\", false),
            (b"To: \"a\" \\", false),
            (b"To: \\\"a\\", false),
            (b"To: \"a\\\"\" \\", false),
            (b"To: \\ \"a\\", false),
            (b"T\"o: \\", false),
            (b"X: y\r\n \"a\\", false),
        ] {
            assert_eq!(judge(&[before, &[control], b"z\""].concat()), good, "{}", before.escape_ascii());
        }
    }
    for place in 58..70 {
        let mut line = vec![b'x'; place];
        line[..4].copy_from_slice(b"X: \"");
        line[place - 1] = b'\\';
        line.extend(b"\x07\"");
        assert_eq!(judge(&line), place < 64, "at {place}");
    }
    // RFC 4475 section 3.1.1.2.
    assert!(judge(b"To: \"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>"));
}

/// The lengths of attributes are judged however many there are, and in a datagram of any size.
#[test]
fn attributes_are_walked_to_the_end() {
    let verdict = |attributes: &[u8]| {
        let mut bytes = vec![0, 1];
        bytes.extend((attributes.len() as u16).to_be_bytes());
        bytes.extend([0x21, 0x12, 0xa4, 0x42]);
        bytes.extend([7; 12]);
        bytes.extend(attributes);
        let mut buffer = Box::new(Buffer::NEW);
        let judged = decide_datagram(&mut Stream::NEW.clone(), &Limits::default(), &mut buffer, &bytes, true);
        judged.map_err(|malformed| malformed.reason)
    };
    let (empty, lying) = ([0x80, 0x22, 0, 0], [0, 6, 0xff, 0xfc]);
    assert_eq!(verdict(&empty.repeat(64)), Ok(Reason::Stun));
    for count in [0, 1, 63, 64, 65, 300, 1200, 16_000] {
        let bytes = [empty.repeat(count), lying.to_vec()].concat();
        assert_eq!(verdict(&bytes), Err(Reason::BadStun), "the lie behind {count} attributes");
    }
    for words in [1, 1000, 1018, 1019, 1020, 4000, 16_369] {
        let long = [&[0x80, 0x22][..], &((4 * words) as u16).to_be_bytes(), &vec![7; 4 * words]].concat();
        assert_eq!(verdict(&long), Ok(Reason::Stun), "an attribute of {words} words");
        let bytes = [&long[..], &lying].concat();
        assert_eq!(verdict(&bytes), Err(Reason::BadStun), "behind {words} words");
    }
}
