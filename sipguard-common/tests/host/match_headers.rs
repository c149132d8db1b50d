//! What rules are asked about: identities and user agents, against a byte-wise reading of the same lines.

use std::cell::RefCell;

use proptest::prelude::*;
use sipguard_common::Reason;
use sipguard_common::framer::{
    Buffer, Limits, MatchKey, MatchSubject, Stream, checks, decide_datagram_with, feed_with, identity_of,
    matched_headers,
};

const SCREENED: Limits =
    Limits { matched_headers: matched_headers::IDENTITIES | matched_headers::USER_AGENTS, ..LIMITS };
const LIMITS: Limits = Limits {
    line_bytes: 4096,
    other_line_bytes: 65_535,
    section_bytes: 16384,
    header_lines: 128,
    same_name: 32,
    body_bytes: 65535,
    message_ms: 0,
    message_segments: 0,
    checks: checks::NAMES | checks::VERSION | checks::CONTROL_BYTES,
    denied: 0,
    matched_headers: 0,
    pad: 0,
};

fn text(key: &MatchKey, bytes: u32) -> String {
    let all: Vec<u8> = key.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (text, rest) = all.split_at(bytes as usize);
    assert!(rest.iter().all(|byte| *byte == 0), "a key is padded with zeros: {key:?}");
    String::from_utf8_lossy(text).into_owned()
}

/// What a stream ends with whose line has more identities than are looked at.
const STOPPED: &str = "stopped";
/// That many places where one may begin.
const PLACES: usize = 5;

/// Everything that is asked about a stream in segments.
fn asked(segments: &[&[u8]]) -> Vec<String> {
    let all = RefCell::new(Vec::new());
    let find = |subject, key: &MatchKey, bytes| {
        let kind = match subject {
            MatchSubject::Uri(_) => "",
            MatchSubject::UserAgent(_) => "agent ",
        };
        all.borrow_mut().push(format!("{kind}{}", text(key, bytes)));
        None
    };
    let (mut stream, mut buffer) = (Stream::NEW, Box::new(Buffer::NEW));
    for segment in segments {
        if let Err(end) = feed_with(&find, &mut stream, &SCREENED, &mut buffer, segment) {
            // There is no rule, so it is for what is not looked at.
            assert_eq!(end.reason, Reason::BlockedIdentity, "well-formed");
            all.borrow_mut().push(STOPPED.to_owned());
            break;
        }
    }
    all.into_inner()
}

fn message(start: &str, lines: &str) -> String {
    format!("{start}\r\n{lines}\r\nl:0\r\n\r\n")
}

/// What is asked about header lines, which do not depend on where they are cut.
#[track_caller]
fn of(lines: &str) -> Vec<String> {
    let message = message("REGISTER sip:h SIP/2.0", lines);
    let whole = asked(&[message.as_bytes()]);
    if lines.split("\r\n").all(|line| line.len() <= 64) {
        for at in 1..message.len() {
            let (one, other) = message.as_bytes().split_at(at);
            assert_eq!(asked(&[one, other]), whole, "cut at {at}: {message:?}");
        }
    }
    whole
}

#[test]
fn identities_of_lines() {
    for (lines, identities) in [
        ("From: <sip:1234@pbx.example>;tag=1", &["1234@pbx.example"][..]),
        ("f:<sip:1234@pbx.example>", &["1234@pbx.example"]),
        ("FROM : \"Alice\" <sips:Alice@PBX.Example:5061;transport=tcp>;tag=a", &["Alice@pbx.example"]),
        ("From: sip:1234@pbx.example;tag=1", &["1234@pbx.example"]),
        ("From:\tSIP:1234@pbx.example", &["1234@pbx.example"]),
        ("From: Alice B. <sip:1234@[2001:DB8::7]:5060>;tag=1", &["1234@[2001:db8::7]"]),
        (r#"From: "a <sip:no@h> \" \\" <sip:yes@h>;tag=1"#, &["yes@h"]),
        (r#"From: "a\\" <sip:yes@h>;tag="<sip:no@h>""#, &["yes@h"]),
        ("From: \"folded\"\r\n <sip:1@h>;tag=1", &["1@h"]),
        ("From:\r\n sip:1@h\r\n\t;tag=1", &["1@h"]),
        ("From: <sip:+49-30;phone-context=x,y?z=1@h?subject=a>", &["+49-30;phone-context=x,y?z=1@h"]),
        ("m: <sip:1@h>, \"Two\" <sip:2@h>;q=0.1, <sip:3@h>, <sip:4@h>", &["1@h", "2@h", "3@h", "4@h"]),
        ("m: <sip:1@h>,<sip:2@h>,<sip:3@h>,<sip:4@h>,<x>", &["1@h", "2@h", "3@h", "4@h"]),
        ("m: <sip:1@h>,<sip:2@h>,<sip:3@h>,<sip:4@h>,<x>,<y>", &["1@h", "2@h", "3@h", "4@h", STOPPED]),
        ("From: <<<<<<sip:1@h>", &[STOPPED]),
        ("From: \"<<<<<<\" <sip:1@h>", &["1@h"]),
        ("Contact: sip:1@h, sip:2@h", &["1@h"]),
        ("From: sip:1@h,x", &["1@h"]),
        ("From: sip:1@h ;tag=a@b", &["1@h"]),
        // Nothing that a rule could be about.
        ("Contact: *", &[]),
        ("From: <sip:pbx.example>;tag=a@b", &[]),
        ("From: <sip:@pbx.example>", &[]),
        ("From: <sip:1@>", &[]),
        ("From: <sip:1:secret@h>", &[]),
        ("From: <tel:+4930123456>;tag=1", &[]),
        ("From: <sip>", &[]),
        ("From: <sip:", &[]),
        ("From:", &[]),
        ("To: <sip:1@h>", &[]),
        ("Route: <sip:1@h>", &[]),
    ] {
        assert_eq!(of(lines), identities, "{lines}");
    }
}

#[test]
fn user_agents_of_lines() {
    for (lines, agents) in [
        ("User-Agent: Friendly-Scanner/1.0 (x)", &["agent friendly-scanner/1.0 (x)"][..]),
        ("user-agent:   A[\\]^_`{|}~Z", &["agent a[\\]^_`{|}~z"]),
        ("USER-AGENT :\t\u{c4}gent", &["agent \u{c4}gent"]),
        ("User-Agent: a\r\n b", &["agent a"]),
        ("User-Agent:\r\n a", &["agent a"]),
        ("User-Agent: \r\n \r\n\t a\r\n b", &["agent a"]),
        ("User-Agent:\r\n \r\nX: a\r\n b", &[]),
        ("User-Agents: a", &[]),
        ("Server: a", &[]),
    ] {
        assert_eq!(of(lines), agents, "{lines}");
    }
}

/// A response's From is that of the request that it answers.
#[test]
fn responses_are_not_asked_about() {
    let lines = "From: <sip:1@h>\r\nContact: <sip:1@h>\r\nUser-Agent: x";
    assert_eq!(asked(&[message("SIP/2.0 200 OK", lines).as_bytes()]), [""; 0]);
    let both = message("SIP/2.0 200 OK", lines) + &message("OPTIONS sip:h SIP/2.0", lines);
    assert_eq!(asked(&[both.as_bytes()]), ["1@h", "1@h", "agent x"]);
}

/// The first 64 bytes of a line are always seen, more where it came in one piece.
#[test]
fn what_can_be_seen_of_a_line() {
    const FOUND: &[&str] = &["1234567890@pbx.example.net"];
    for name in 10..50 {
        let name = "x".repeat(name);
        let lines = format!("From: \"{name}\" <sip:1234567890@pbx.example.net>;tag=1");
        let message = message("REGISTER sip:h SIP/2.0", &lines);
        assert_eq!(asked(&[message.as_bytes()]), FOUND);
        let line = message.find("From").expect("there");
        let near = lines.find('>').expect("there") < 64;
        for at in 1..=lines.len() + 1 {
            let (one, other) = message.as_bytes().split_at(line + at);
            // Cut within its first 64 bytes, a line is whole again.
            let expected = if near || at <= 64 { FOUND } else { &[] };
            assert_eq!(asked(&[one, other]), expected, "cut {at} bytes into {lines}");
        }
    }
    // Neither a part of a host nor one of a user is taken for the whole.
    for host in 40..80 {
        let uri = format!("sip:1@{}", "h".repeat(host));
        let expected = if host + 2 < 64 { vec![uri[4..].to_owned()] } else { vec![] };
        assert_eq!(asked(&[with_from(&uri).as_bytes()]), expected, "{uri}");
        assert_eq!(identity_of(&uri).map(|(key, bytes)| text(&key, bytes)), expected.first().cloned());
    }
}

fn with_from(uri: &str) -> String {
    message("REGISTER sip:h SIP/2.0", &format!("From: <{uri}>"))
}

/// The identities of a value, byte by byte.
fn identities(value: &str) -> Vec<String> {
    let (mut quoted, mut escaped, mut places) = (false, false, Vec::new());
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let bytes = value.as_bytes();
    let start = bytes.iter().position(|byte| !blank(byte));
    if let Some(start) = start.filter(|start| !matches!(bytes[*start], b'<' | b'"')) {
        places.push(start);
    }
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'<' if !quoted => places.push(at + 1),
            _ => {}
        }
        escaped = *byte == b'\\' && !escaped;
    }
    let rest = if places.len() > PLACES { Some(STOPPED.to_owned()) } else { None };
    places.truncate(PLACES);
    places.into_iter().filter_map(|at| identity(&bytes[at..])).chain(rest).collect()
}

fn identity(uri: &[u8]) -> Option<String> {
    let scheme = |text: &[u8]| uri.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
    let uri = if scheme(b"sips:") { &uri[5..] } else { scheme(b"sip:").then(|| &uri[4..])? };
    let sign = uri.iter().position(|byte| *byte == b'@')?;
    let (user, host) = (&uri[..sign], &uri[sign + 1..]);
    if user.is_empty() || user.iter().any(|byte| *byte <= b' ' || b":<>".contains(byte)) {
        return None;
    }
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']')? + 1,
        _ => host.iter().position(|byte| *byte <= b' ' || b":;<=>?,".contains(byte)).unwrap_or(host.len()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let identity = text(user) + "@" + &text(&host[..end]).to_ascii_lowercase();
    (end > 0 && identity.len() < 64).then_some(identity)
}

const PIECES: &[&str] = &[
    "<",
    ">",
    "\"",
    "\\",
    "\\\"",
    "sip:",
    "SIPS:",
    "sip",
    ":",
    "@",
    "a",
    "Bc",
    "1234",
    "h.Example",
    "[::1]",
    "[",
    "]",
    ";tag=1",
    "?",
    ",",
    " ",
    "\t",
    "=",
    "<sip:u@H>",
    "\"n\" <sip:V@h:5>",
    "\u{e4}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn identities_are_those_of_the_byte_wise_reading(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let value = pieces.concat();
        // All of it is looked at: the whole line within 64 bytes.
        prop_assume!(value.len() <= 58);
        let message = message("REGISTER sip:h SIP/2.0", &format!("From: {value}"));
        let expected = identities(&format!(" {value}"));
        prop_assert_eq!(&asked(&[message.as_bytes()]), &expected, "{:?}", value);
        let (one, other) = message.as_bytes().split_at(cut.index(message.len()));
        prop_assert_eq!(asked(&[one, other]), expected, "cut: {:?}", value);
    }
}

#[test]
fn a_rule_stops_the_stream_and_the_datagram() {
    let find = |_, key: &MatchKey, bytes| (text(key, bytes) == "1@h").then_some(Reason::BlockedIdentity);
    let (mut stream, mut buffer) = (Stream::NEW, Box::new(Buffer::NEW));
    for (uri, stops) in [("sip:1@h", true), ("sip:2@h", false)] {
        let message = with_from(uri);
        stream = Stream::NEW;
        let fed = feed_with(&find, &mut stream, &SCREENED, &mut buffer, message.as_bytes());
        assert_eq!(fed.err().map(|end| end.reason), stops.then_some(Reason::BlockedIdentity));
        stream = Stream::NEW;
        let judged =
            decide_datagram_with(&find, &mut stream, &SCREENED, &mut buffer, message.as_bytes(), true);
        assert_eq!(judged.is_err(), stops);
        stream = Stream::NEW;
        assert!(
            feed_with(&find, &mut stream, &LIMITS, &mut buffer, message.as_bytes()).is_ok(),
            "no matched headers"
        );
    }
    assert_eq!(stream.messages, 1);
}
