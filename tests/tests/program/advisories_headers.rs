//! Published faults of real SIP stacks, in bytes, names, counts, numbers and lengths: the message that did it is refused, and the
//! same message without its fault passes. Content-Length and framing are in `advisories.rs`.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_tests::judge::{
    End, Profile, Verdict, passes, passes_tcp, passes_udp, refused, refused_tcp, refused_udp, udp,
};
use sipguard_tests::message::{OPTIONS, SDP, bent, call, good_call, register, stun};

const DEFAULT: Profile = Profile::Default;
const STRICT: Profile = Profile::Strict;

const TO: &str = "To: <sip:9100@pbx.example>";
const BRANCH: &str = "z9hG4bK776asdhds";

/// A call with one thing replaced is refused, and as it was it passes.
#[track_caller]
fn not_with(from: &str, to: impl AsRef<[u8]>, reason: Reason) {
    refused(DEFAULT, &bent(&good_call(), from, to), reason);
    passes(DEFAULT, &good_call());
}

/// A call with these header lines more.
fn call_with(lines: &str) -> Vec<u8> {
    call(&format!("{lines}Content-Length: {}\r\n", SDP.len()), SDP)
}

/// Asterisk prints a header up to its NUL, and goes on behind it.
#[test]
fn advisory_cve_2011_2529() {
    for (from, to) in [
        ("\"Alice\"", &b"\"Al\0ice\""[..]),
        ("a84b4c76e66710@", b"a84b4c76e66710@\0"),
        ("CSeq: 314159 INVITE", b"CSeq: 314159 INVITE\0"),
        ("application/sdp", b"\0"),
        ("\r\nMax-Forwards", b"\r\n\0Max-Forwards"),
    ] {
        not_with(from, to, Reason::ControlByte);
    }
    passes(
        DEFAULT,
        &call(&format!("Content-Length: {}\r\n", 2 * SDP.len()), &[SDP, &[0; 158]].concat()[..2 * SDP.len()]),
    );
}

/// Asterisk takes any byte that can't be printed for white space before the colon, and a proxy before it does not. That is how a
/// header passes by the proxy's eyes. A control byte is refused before the name is looked at.
#[test]
fn advisory_cve_2016_9938() {
    for byte in [0x01, 0x08, 0x0b, 0x0c, 0x1f] {
        not_with(TO, [b"To", &[byte][..], b": <sip:9100@pbx.example>"].concat(), Reason::ControlByte);
    }
    for byte in [0x7f, 0x80, 0xa0, 0xff] {
        not_with(TO, [b"To", &[byte][..], b": <sip:9100@pbx.example>"].concat(), Reason::BadHeaderName);
    }
}

/// OpenSIPS reads beyond a Via that control bytes and bare LFs are in.
#[test]
fn advisory_cve_2023_27598() {
    for byte in [0x00, 0x01, 0x08, 0x0e, 0x1b, 0x1f] {
        not_with(BRANCH, [b"z9hG4bK", &[byte][..], b"1"].concat(), Reason::ControlByte);
    }
    not_with(BRANCH, "z9hG4bK1\n\tx", Reason::BareLf);
    not_with(";rport\r\n", ";rport\n", Reason::BareLf);
    not_with(BRANCH, "z9hG4bK1\rx", Reason::BareCr);
}

/// Kamailio does not find a header whose name is followed by white space, so that a filter of headers is passed by. RFC 3261 section
/// 7.3.1 allows it, so that only the strict profile refuses it.
#[test]
fn advisory_cve_2020_28361() {
    for space in [" ", "\t", "  \t "] {
        let attack = bent(&good_call(), TO, format!("To{space}: <sip:9100@pbx.example>"));
        passes(DEFAULT, &attack);
        refused(STRICT, &attack, Reason::BadHeaderName);
    }
    passes(STRICT, &good_call());
}

/// Kamailio crashes on two To headers of which one has an empty tag.
#[test]
fn advisory_cve_2018_14767() {
    not_with(TO, format!("{TO};tag=\r\nTo: <sip:9100@pbx.example>"), Reason::DuplicateHeader);
    not_with(TO, format!("{TO};tag=\r\nt: <sip:9100@pbx.example>"), Reason::DuplicateHeader);
    passes(DEFAULT, &bent(&good_call(), TO, format!("{TO};tag=")));
}

/// Kamailio writes an over-long tag beyond its buffer, and is led to it by a header that comes twice.
#[test]
fn advisory_cve_2020_27507() {
    let tag = "a".repeat(5000);
    for name in ["To", "From", "Call-ID", "CSeq", "Max-Forwards"] {
        let line = format!("{name}: 1 INVITE\r\n");
        refused(DEFAULT, &call_with(&line), Reason::DuplicateHeader);
    }
    not_with(TO, format!("{TO};tag={tag}"), Reason::LineTooLong);
    not_with(TO, format!("{TO}\r\nTo: <sip:9100@pbx.example>;tag={tag}"), Reason::LineTooLong);
    passes(DEFAULT, &bent(&good_call(), TO, format!("{TO};tag={}", "a".repeat(200))));
}

/// Kamailio writes beyond its buffer when the branch or the From tag of a REGISTER is very long. Below the limit of a line
/// neither is refused.
#[test]
fn advisory_cve_2018_8828() {
    let good = register(1);
    let long = "a".repeat(4097);
    refused(DEFAULT, &bent(&good, "z9hG4bKr1", format!("z9hG4bK{long}")), Reason::LineTooLong);
    refused(DEFAULT, &bent(&good, ";tag=1", format!(";tag={long}")), Reason::LineTooLong);
    passes(DEFAULT, &bent(&good, ";tag=1", format!(";tag={}", "a".repeat(255))));
    passes(DEFAULT, &good);
}

/// pjsip copies the method of CSeq into a key of fixed size when Via has no branch.
#[test]
fn advisory_cve_2017_9372() {
    let without = bent(&good_call(), ";branch=z9hG4bK776asdhds", "");
    for method in ["A".repeat(60), "A".repeat(300), "INVITE".repeat(200)] {
        let attack = bent(&without, "314159 INVITE", format!("314159 {method}"));
        refused(DEFAULT, &attack, Reason::CseqMismatch);
    }
    let attack = bent(&without, "314159 INVITE", format!("314159 {}", "A".repeat(5000)));
    refused(DEFAULT, &attack, Reason::LineTooLong);
    // The same method in the request line.
    let method = "A".repeat(64);
    let attack =
        bent(&bent(&without, "314159 INVITE", format!("1 {method}")), "INVITE sip", format!("{method} sip"));
    refused(DEFAULT, &attack, Reason::BadStartLine);
    passes(DEFAULT, &without);
}

/// pjsip's numbers overflow: CSeq, the port and the ttl of Via, Expires. Of a Via the first 64 bytes of the line are looked at: a ttl
/// behind a branch, and the ports of a list's further hops, pass. So do numbers within URIs and parameters of other headers.
#[test]
fn advisory_cve_2017_16872() {
    for number in ["4294967296", "18446744073709551616", "99999999999999999999"] {
        not_with("CSeq: 314159", format!("CSeq: {number}"), Reason::BadNumber);
    }
    // FreeSWITCH counts on behind 2^31, and its phones echo that.
    let above = bent(&good_call(), "CSeq: 314159", "CSeq: 2147483648");
    passes(DEFAULT, &above);
    refused(STRICT, &above, Reason::BadNumber);
    for port in ["65536", "99999", "4294967296", "18446744073709551617"] {
        not_with(
            "Via: SIP/2.0/UDP 192.0.2.7:5060",
            format!("Via: SIP/2.0/UDP 192.0.2.7:{port}"),
            Reason::BadNumber,
        );
    }
    for ttl in ["65536", "4294967296", "18446744073709551617"] {
        not_with(";branch", format!(";ttl={ttl};branch"), Reason::BadNumber);
    }
    for number in ["4294967296", "18446744073709551616", "99999999999999999999"] {
        refused(DEFAULT, &call_with(&format!("Expires: {number}\r\n")), Reason::BadNumber);
        not_with("Max-Forwards: 70", format!("Max-Forwards: {number}"), Reason::BadNumber);
    }
    let mended = bent(&call_with("Expires: 4294967295\r\n"), "CSeq: 314159", "CSeq: 2147483647");
    passes(DEFAULT, &bent(&mended, "192.0.2.7:5060;branch", "192.0.2.7:65535;ttl=255;branch"));
}

/// Asterisk has room for 32 formats of Accept.
#[test]
fn advisory_cve_2018_7284() {
    for lines in [33, 50, 100] {
        refused(DEFAULT, &call_with(&"Accept: application/sdp\r\n".repeat(lines)), Reason::TooManyHeaders);
    }
    passes(DEFAULT, &call_with(&"Accept: application/sdp\r\n".repeat(32)));
}

/// pjsip writes a very long Contact beyond its buffer when it answers a REGISTER.
#[test]
fn advisory_ast_2016_004() {
    let contact = |bytes: usize| {
        let uri = format!("<sip:desk@10.77.0.2;transport=tcp;x={}>", "a".repeat(bytes));
        bent(&register(1), "<sip:desk@10.77.0.2;transport=tcp>", uri)
    };
    refused(DEFAULT, &contact(4097), Reason::LineTooLong);
    refused(DEFAULT, &contact(15_000), Reason::LineTooLong);
    passes(DEFAULT, &contact(500));
}

/// OpenSIPS crashes on a very long header name.
#[test]
fn advisory_cve_2026_45538() {
    for bytes in [128, 256, 1000, 4000] {
        let name = "N".repeat(bytes);
        refused(DEFAULT, &call_with(&format!("{name}: 1\r\n")), Reason::BadHeaderName);
        refused(DEFAULT, &call_with(&format!("{name}\r\n")), Reason::BadHeaderName);
    }
    refused(DEFAULT, &call_with(&format!("{}: 1\r\n", "N".repeat(4096))), Reason::BadHeaderName);
    refused(DEFAULT, &call_with(&format!("{}\r\n", "N".repeat(100))), Reason::BadHeaderName);
    for bytes in [63, 64, 93, 127] {
        passes(DEFAULT, &call_with(&format!("{}: 1\r\n", "N".repeat(bytes))));
    }
    passes(STRICT, &call_with(&format!("{}: 1\r\n", "N".repeat(63))));
    refused(STRICT, &call_with(&format!("{}: 1\r\n", "N".repeat(64))), Reason::BadHeaderName);
}

/// Kamailio encodes a message of any size into a buffer of fixed size.
#[test]
fn advisory_cve_2016_2385() {
    let lines = |count: usize| {
        (0..count).map(|line| format!("X-Filler-{line}: {}\r\n", "a".repeat(1000))).collect::<String>()
    };
    refused_tcp(DEFAULT, &call_with(&lines(66)), Reason::HeadersTooLong);
    refused(STRICT, &call_with(&lines(17)), Reason::HeadersTooLong);
    passes(DEFAULT, &call_with(&lines(14)));
}

/// Kamailio crashes on an INVITE that has lost its line ends.
#[test]
fn advisory_kamailio_2044() {
    let without: Vec<u8> = good_call().into_iter().filter(|byte| !b"\r\n".contains(byte)).collect();
    refused_udp(DEFAULT, &without, Reason::BadStartLine);
    refused_tcp(DEFAULT, &[&without[..], b"\r\n"].concat(), Reason::BadStartLine);
    // On a stream the first line may still end, until it is too long.
    refused_tcp(DEFAULT, &without.repeat(4096 / without.len() + 1), Reason::LineTooLong);
    passes(DEFAULT, &good_call());
}

/// sofia trusts the length of a STUN attribute.
#[test]
fn advisory_cve_2023_22741() -> Result<()> {
    lying_attributes(&[
        &[0x00, 0x06, 0xff, 0xff, b'a', b'b', b'c', b'd'],
        &[0x00, 0x06, 0x00, 0x05, b'a', b'b', b'c', b'd'],
        &[0x80, 0x22, 0x00, 0x04, b'a', b'b', b'c', b'd', 0x00, 0x06, 0x00, 0x04],
    ])
}

/// sofia goes on behind the message when an attribute ends there, or when the message says that it is longer than it is.
#[test]
fn advisory_cve_2023_32307() -> Result<()> {
    lying_attributes(&[
        &[0x00, 0x08, 0x00, 0x14],
        &[0x00, 0x09, 0x7f, 0xff, 0, 0, 4, 1],
        &[0, 1, 0, 8, 0, 1, 0, 0],
    ])?;
    let good = stun(&[0x80, 0x22, 0, 4, b'a', b'b', b'c', b'd']);
    for length in [0u16, 4, 9, 12, 0x7fff, 0xffff] {
        let mut attack = good.clone();
        attack[2..4].copy_from_slice(&length.to_be_bytes());
        refused_udp(DEFAULT, &attack, Reason::BadStun);
    }
    Ok(())
}

/// However many attributes, and however long ones, stand before the one that lies.
#[test]
fn no_attribute_hides_behind_others() -> Result<()> {
    let lying = [0x00, 0x06, 0xff, 0xfc];
    for before in [
        [0x80, 0x22, 0, 0].repeat(64),
        [0x80, 0x22, 0, 0].repeat(63),
        [0x80, 0x22, 0, 0].repeat(1200),
        [&[0x80, 0x22, 0x0f, 0xe0][..], &[7; 0xfe0]].concat(),
        [&[0x80, 0x22, 0x20, 0x00][..], &[7; 0x2000]].concat(),
        [&[0x80, 0x22, 0xff, 0x00][..], &[7; 0xff00]].concat(),
    ] {
        refused_udp(DEFAULT, &stun(&[&before[..], &lying].concat()), Reason::BadStun);
        let good = udp(DEFAULT, &stun(&before))?;
        let expected = if before.len() == 4800 { Reason::BadStun } else { Reason::Stun };
        assert_eq!(good.reason, expected, "{} bytes of attributes", before.len());
    }
    Ok(())
}

/// A backslash quotes a control byte in a quoted string, and nowhere else.
#[test]
fn a_backslash_hides_no_control_byte() {
    for (from, to) in [
        ("\"Alice\"", &b"Al\\\0ice"[..]),
        ("\"Alice\"", b"\"Al\\\\\0ice\""),
        ("\"Alice\"", b"\"Alice\"\\\x01"),
        ("a84b4c76e66710@", b"a84b4c76e66710@\\\0"),
        ("application/sdp", b"application/sdp\\\x07"),
        ("314159 INVITE", b"314159 INVITE\\\0"),
        ("\"Alice\"", b"\"Alice\r\n \\\0\""),
        ("\"Alice\"", b"\"Alice and a name that goes on beyond the first bytes of its line \\\0\""),
    ] {
        not_with(from, to, Reason::ControlByte);
    }
    // RFC 4475 section 3.1.1.2.
    let unusual = bent(&good_call(), "\"Alice\"", b"\"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\"");
    passes(DEFAULT, &unusual);
    refused(STRICT, &unusual, Reason::ControlByte);
}

#[track_caller]
fn lying_attributes(attributes: &[&[u8]]) -> Result<()> {
    for attribute in attributes {
        refused_udp(DEFAULT, &stun(attribute), Reason::BadStun);
        // On a stream there is no STUN (RFC 5626 section 3.5.1 has line ends there).
        refused_tcp(DEFAULT, &stun(attribute), Reason::BadStartLine);
    }
    let good = stun(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0, 0, 6, 0, 4, b'd', b'e', b'f', b'g']);
    assert_eq!(udp(DEFAULT, &good)?, Verdict { reason: Reason::Stun, end: End::Passed });
    passes_udp(DEFAULT, OPTIONS);
    passes_tcp(DEFAULT, OPTIONS);
    Ok(())
}
