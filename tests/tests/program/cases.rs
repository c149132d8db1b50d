//! Messages rebuilt from public bug reports, and their neighbours: what real software sends passes, what crashes real software does not.
//!
//! `tests/cases/cases.json` grows: `source` is where it was reported, `expect` what is right.

use anyhow::{Result, ensure};
use sipguard_common::{Class, Reason};
use sipguard_tests::cases::{Case, Expected, cases};
use sipguard_tests::judge::{
    End, Profile, Verdict, passes, passes_tcp, passes_udp, refused, refused_tcp, refused_udp, tcp, udp,
};
use sipguard_tests::message::{OPTIONS, bent, call, good_call};

const DEFAULT: Profile = Profile::Default;
const STRICT: Profile = Profile::Strict;

/// What is wrong with what came of a case, if anything.
fn wrong(case: &Case, verdict: Verdict) -> Option<&'static str> {
    let accused = matches!(verdict.reason.class(), Class::Malformed | Class::Reset);
    match case.expected {
        Expected::Passes if verdict.end != End::Passed => Some("was stopped"),
        Expected::Quiet if accused => Some("was called malformed"),
        Expected::Refused | Expected::FrontOnly if verdict.end == End::Passed => Some("passed"),
        _ => None,
    }
}

#[test]
fn each_case_as_expected() -> Result<()> {
    let cases = cases()?;
    ensure!(cases.len() >= 24, "{} cases", cases.len());
    let (mut played, mut faults) = (0, Vec::new());
    for case in &cases {
        let id = &case.id;
        for datagram in &case.udp {
            let verdict = udp(DEFAULT, datagram)?;
            played += 1;
            faults.extend(wrong(case, verdict).map(|fault| format!("{id} over UDP {fault}: {verdict:?}")));
        }
        // A port of another service and the passing of time are for the attached guard.
        if case.tcp_port != 5060 || case.expected == Expected::Ends {
            continue;
        }
        for connection in &case.tcp {
            let verdict = tcp(DEFAULT, &connection.concat())?;
            played += 1;
            faults.extend(wrong(case, verdict).map(|fault| format!("{id} over TCP {fault}: {verdict:?}")));
        }
    }
    println!("{played} datagrams and connections of {} cases", cases.len());
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// FreeSWITCH counts its CSeq up from the seconds of its uptime times 8640 or so: 2^31 comes after 249 days, and phones echo it.
#[test]
fn numbers_of_32_bits() {
    for number in [0, 1, 2_147_483_647, 2_147_483_648, 4_294_967_295_u64] {
        let request = bent(&good_call(), "CSeq: 314159 INVITE", format!("CSeq: {number} INVITE"));
        passes(DEFAULT, &request);
        let answer = bent(&request, "INVITE sip:9100@pbx.example SIP/2.0", "SIP/2.0 200 OK");
        passes(DEFAULT, &answer);
        if number >= 1 << 31 {
            refused(STRICT, &request, Reason::BadNumber);
        }
    }
    for number in ["4294967296", "99999999999", "-1", "", "x"] {
        refused(
            DEFAULT,
            &bent(&good_call(), "CSeq: 314159 INVITE", format!("CSeq: {number} INVITE")),
            Reason::BadNumber,
        );
    }
}

/// Of numbers that must be there.
#[test]
fn numbers_that_are_none() {
    for value in ["-1", "", " ", "x", "7x", "4294967296", "0x10"] {
        refused(
            DEFAULT,
            &bent(&good_call(), "Max-Forwards: 70", format!("Max-Forwards: {value}")),
            Reason::BadNumber,
        );
        refused(
            DEFAULT,
            &call(&format!("Expires: {value}\r\nContent-Length: 0\r\n"), b""),
            Reason::BadNumber,
        );
    }
    for value in ["0", " 70", "70 ", "4294967295", "\r\n 70"] {
        passes(DEFAULT, &bent(&good_call(), "Max-Forwards: 70", format!("Max-Forwards:{value}")));
        passes(DEFAULT, &call(&format!("Expires:{value}\r\nContent-Length: 0\r\n"), b""));
    }
    // RFC 2543 section 6.20.
    passes(DEFAULT, &call("Expires: Thu, 01 Dec 2033 16:00:00 GMT\r\nContent-Length: 0\r\n", b""));

    const SENT_BY: &str = "192.0.2.7:5060;";
    for port in ["", "-1", "x", "65536", "5060x", "99999999999999999"] {
        refused(DEFAULT, &bent(&good_call(), SENT_BY, format!("192.0.2.7:{port};")), Reason::BadNumber);
        refused(DEFAULT, &bent(&good_call(), SENT_BY, format!("[2001:db8::7]:{port};")), Reason::BadNumber);
    }
    for sent_by in [
        "192.0.2.7:0",
        "h",
        "h:65535",
        "h : 5060 ",
        "[2001:db8::7]",
        "[2001:db8::7]:5060",
        "2001:db8::7",
        "h:5060 (a comment)",
    ] {
        passes(DEFAULT, &bent(&good_call(), SENT_BY, format!("{sent_by};")));
    }
}

/// A header that is there and says nothing.
#[test]
fn empty_headers() {
    for line in [
        "Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK776asdhds;rport",
        "From: \"Alice\" <sip:alice@pbx.example>;tag=1928301774",
        "To: <sip:9100@pbx.example>",
        "Call-ID: a84b4c76e66710@192.0.2.7",
    ] {
        let (name, value) = line.split_once(": ").unwrap();
        for empty in ["", " ", " \t "] {
            let message = bent(&good_call(), line, format!("{name}:{empty}"));
            refused(DEFAULT, &message, Reason::MissingHeader);
        }
        passes(DEFAULT, &bent(&good_call(), line, format!("{name}:\r\n {value}")));
        passes(DEFAULT, &bent(&good_call(), line, format!("{name}:{value}")));
    }
}

/// LF and CRLF in one message: everybody finds the same end, or it is refused on a stream.
#[test]
fn mixed_line_ends() {
    let message = call("Authorization: Digest username=\"a\"\r\nContent-Length: 0\r\n", b"");
    for line in [
        "To: <sip:9100@pbx.example>",
        "username=\"a\"",
        "Max-Forwards: 70",
        "Call-ID: a84b4c76e66710@192.0.2.7",
    ] {
        let mixed = bent(&message, &format!("{line}\r\n"), format!("{line}\n"));
        passes(DEFAULT, &mixed);
        refused(STRICT, &mixed, Reason::BareLf);
    }
    for (from, to) in [("Length: 0\r\n\r\n", "Length: 0\n\r\n"), ("Length: 0\r\n\r\n", "Length: 0\r\n\n")] {
        let two_ways = bent(&message, from, to);
        refused_tcp(DEFAULT, &two_ways, Reason::BareLf);
        passes_udp(DEFAULT, &two_ways);
    }
    // Who ends lines at CRLF alone finds no length, and takes the body for the next message.
    let hidden = call("Authorization: Digest username=\"a\"\nContent-Length: 5\r\n", b"hello");
    refused_tcp(DEFAULT, &hidden, Reason::BareLf);
    passes_udp(DEFAULT, &hidden);
    let text = String::from_utf8(message).unwrap();
    passes(DEFAULT, text.replace("\r\n", "\n").as_bytes());
    let start = text.replacen("\r\n", "\n", 1);
    passes(DEFAULT, start.as_bytes());
}

/// A datagram without the empty line, and one that was cut.
#[test]
fn datagrams_without_an_empty_line() {
    let whole = call("Content-Length: 0\r\n", b"");
    let text = &whole[..whole.len() - 2];
    passes_udp(DEFAULT, text);
    refused_udp(STRICT, text, Reason::NoEndOfHeaders);
    // Its last line is `Content-Length: 0` and CRLF: a cut behind the LF before it leaves whole lines.
    for cut in 1..19 {
        let judged = udp(DEFAULT, &text[..text.len() - cut]).unwrap();
        assert_eq!(
            judged,
            Verdict { reason: Reason::NoEndOfHeaders, end: End::Dropped },
            "{cut} bytes short"
        );
    }
    let without = bent(text, "Call-ID: a84b4c76e66710@192.0.2.7\r\n", "");
    refused_udp(DEFAULT, &without, Reason::MissingHeader);
}

/// What keeps a connection alive, and what does not.
#[test]
fn filler_between_messages() {
    for filler in ["\0", "\r\n\0", "\0\r\n\r\n", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "\n\0\n\0"] {
        let filler = filler.as_bytes();
        passes_tcp(DEFAULT, &[OPTIONS, filler, &good_call(), filler, OPTIONS].concat());
        passes_tcp(DEFAULT, filler);
    }
    passes_tcp(DEFAULT, &b"\r\n\0".repeat(2000));
    for many in [17, 18, 64, 65, 5000] {
        refused_tcp(DEFAULT, &[OPTIONS, &vec![0; many], OPTIONS].concat(), Reason::BadStartLine);
    }
    refused_tcp(DEFAULT, b"\x01\r\n", Reason::BadStartLine);
}

/// Nothing of a keep-alive is called malformed.
#[test]
fn keep_alives_over_udp() -> Result<()> {
    let ping = Verdict { reason: Reason::NatPing, end: End::Passed };
    for datagram in [
        &b"PING\r\n\r\n"[..],
        b"PING\r\n\r\n\r\n\r\n",
        &[0; 10],
        &[0; 64],
        b"keepalive",
        b"KEEP-ALIVE\r\n",
        b"\0\r\n\0\0\0\0\0\0\0",
    ] {
        ensure!(udp(DEFAULT, datagram)? == ping, "{}", datagram.escape_ascii());
    }
    for datagram in [
        &[0; 65][..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0x",
        b"two words\r\n",
        b"aaaaaaaaaaaaaaaaa",
        b"PING\r\nPING\r\n",
    ] {
        refused_udp(DEFAULT, datagram, Reason::BadStartLine);
    }
    Ok(())
}

/// Max-Forwards twice.
#[test]
fn duplicates() {
    let twice = |value: &str| {
        bent(&good_call(), "Max-Forwards: 70\r\n", format!("Max-Forwards: 70\r\nMax-Forwards: {value}\r\n"))
    };
    passes(DEFAULT, &twice("70"));
    passes(DEFAULT, &twice(" 070"));
    refused(DEFAULT, &twice("69"), Reason::DuplicateHeader);
    refused(DEFAULT, &twice("326"), Reason::DuplicateHeader);
    refused(DEFAULT, &twice("4294967366"), Reason::DuplicateHeader);
}

/// What is only too large accuses nobody, and is larger than what anybody sends.
#[test]
fn sizes() {
    let with = |line: &str| call(&format!("{line}\r\nContent-Length: 0\r\n"), b"");
    let long = "x".repeat(60_000);
    for line in [
        format!("X-Twilio-CallToken: {long}"),
        format!("Authorization: Bearer {long}"),
        format!("Identity:{long}"),
    ] {
        passes_tcp(DEFAULT, &with(&line));
        refused_tcp(STRICT, &with(&line), Reason::LineTooLong);
    }
    passes_tcp(DEFAULT, &with(&vec!["Contact: <sip:a@192.0.2.7>"; 130].join("\r\n")));
    let body = vec![b'x'; 200_000];
    passes_tcp(DEFAULT, &call("Content-Length: 200000\r\n", &body));
    for name in ["Via", "From", "To", "Contact", "Call-ID", "CSeq", "v", "f", "t", "m", "i"] {
        let line = with(&format!("{name}: {}", "x".repeat(4096)));
        let judged = tcp(DEFAULT, &line).unwrap();
        assert!(judged.reason == Reason::LineTooLong, "{name}: {judged:?}");
    }
    refused_tcp(DEFAULT, &with(&format!("X: {}", "x".repeat(66_000))), Reason::HeadersTooLong);
    for reason in [Reason::LineTooLong, Reason::HeadersTooLong, Reason::TooManyHeaders, Reason::BodyTooLarge]
    {
        assert!(reason.is_too_large());
    }
    assert_eq!(Reason::ALL.iter().filter(|reason| reason.is_too_large()).count(), 4);
}
