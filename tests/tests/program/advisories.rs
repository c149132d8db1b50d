//! Published faults of real SIP stacks, in Content-Length and in the framing of TCP: the message that did it is refused, and the
//! same message without its fault passes. Names, characters and counts are in `advisories_headers.rs`.

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_tests::judge::{
    End, Profile, Verdict, connection, devices, passes, passes_tcp, passes_udp, program, refused,
    refused_tcp, refused_udp,
};
use sipguard_tests::message::{OPTIONS, SDP, bent, call, good_call, register};
use sipguard_tests::packet::{ACK, FIN};
use sipguard_tests::program::XDP_PASS;

const DEFAULT: Profile = Profile::Default;
const STRICT: Profile = Profile::Strict;

/// A call whose Content-Length is said to be `value`.
fn length(value: &str) -> Vec<u8> {
    call(&format!("Content-Length: {value}\r\n"), SDP)
}

/// None of these is a Content-Length, and the real one is.
#[track_caller]
fn no_lengths(values: &[&str]) {
    for value in values {
        refused(DEFAULT, &length(value), Reason::BadContentLength);
    }
    passes(DEFAULT, &good_call());
}

/// OpenSIPS reads 2^32 as 0, so that the body becomes the next message.
#[test]
fn advisory_cve_2026_45103() {
    let smuggled = register(1);
    let attack = |length: u64| call(&format!("Content-Length: {length}\r\n"), &smuggled);
    refused(DEFAULT, &attack(1 << 32), Reason::BadContentLength);
    refused(DEFAULT, &attack((1 << 32) + smuggled.len() as u64), Reason::BadContentLength);
    passes(DEFAULT, &attack(smuggled.len() as u64));
}

/// OpenSIPS crashes on a huge Content-Length together with a Request-URI that was made for it.
#[test]
fn advisory_cve_2023_28097() {
    for uri in ["sip:", "sip:@", "sip:9100@pbx.example;transport=tcp;maddr=%", "tel:;;;;", "x:"] {
        for value in ["2147483648", "2147483647", "4294967295", "9999999999999999"] {
            let attack = bent(&length(value), "sip:9100@pbx.example SIP", format!("{uri} SIP"));
            refused(DEFAULT, &attack, Reason::BadContentLength);
        }
        passes(DEFAULT, &bent(&good_call(), "sip:9100@pbx.example SIP", format!("{uri} SIP")));
    }
}

/// OpenSIPS overflows a signed number.
#[test]
fn advisory_opensips_78() {
    no_lengths(&["2147483648"]);
}

/// Kamailio adds the header section to a Content-Length near the largest signed number.
#[test]
fn advisory_kamailio_2026_03() {
    no_lengths(&["2147483647", "2147483646", "2147483000", "2147418112", "2000000000", "1000000000"]);
}

/// sipgo allocates up to 2^32 - 1 bytes before it looks closer.
#[test]
fn advisory_cve_2026_58268() {
    no_lengths(&["4294967295", "4294967294", "1073741824"]);
    for value in ["999999999", "100000000", "1000000", "524289"] {
        refused(DEFAULT, &length(value), Reason::BodyTooLarge);
    }
    passes_tcp(DEFAULT, &length("524288"));
}

/// The kernel's own SIP helper cuts 2^32 + 32 to 32 bits, so that what follows is read as a second message.
#[test]
fn advisory_cve_2026_23457() {
    let body = [&[b'b'; 32][..], &register(1)].concat();
    refused(DEFAULT, &call("Content-Length: 4294967328\r\n", &body), Reason::BadContentLength);
    refused(DEFAULT, &call("l: 4294967328\r\n", &body), Reason::BadContentLength);
    passes_tcp(DEFAULT, &call("Content-Length: 32\r\n", &body));
}

/// Envoy's SIP proxy reads a Content-Length that does not end, is empty, too long or negative.
#[test]
fn advisory_envoy_sip_proxy() {
    no_lengths(&[
        "",
        " ",
        "\t",
        "-1",
        "-2147483648",
        "-0",
        "99999999999",
        "18446744073709551616",
        "1e3",
        "12a",
    ]);
    no_lengths(&["\u{661}\u{662}", "0;a", "0 \"", "1,", ":1"]);
    // Without an end: on a stream the rest may come, until the line is too long; in a datagram it can't.
    let whole = good_call();
    let cut = whole.len() - SDP.len() - 4;
    refused_udp(DEFAULT, &whole[..cut], Reason::NoEndOfHeaders);
    refused_udp(STRICT, &whole[..cut + 2], Reason::NoEndOfHeaders);
    passes_tcp(DEFAULT, &whole[..cut]);
    refused(DEFAULT, &[&whole[..cut], &[b'0'; 5000]].concat(), Reason::LineTooLong);
    refused_tcp(DEFAULT, &call("Content-Length: 5\n", SDP), Reason::BareLf);
    refused(DEFAULT, &call("Content-Length: 5\rX: y\r\n", SDP), Reason::BareCr);
}

/// Where Kamailio is told to do without a Content-Length on TCP, the body is read as the next message.
#[test]
fn advisory_tcp_accept_no_cl() {
    let smuggled = register(1);
    refused_tcp(DEFAULT, &call("", &smuggled), Reason::MissingContentLength);
    refused_tcp(
        DEFAULT,
        &call("Content-Length2: 5\r\nContent-Encoding: 5\r\n", &smuggled),
        Reason::MissingContentLength,
    );
    // On UDP the body goes to the datagram's end.
    passes_udp(DEFAULT, &call("", &smuggled));
    passes(DEFAULT, &call(&format!("Content-Length: {}\r\n", smuggled.len()), &smuggled));
}

/// Two lengths, of which one stack takes the first and the other the last.
#[test]
fn advisory_two_content_lengths() {
    let right = SDP.len();
    for (one, other) in [
        (format!("Content-Length: {right}"), "Content-Length: 0".to_owned()),
        ("Content-Length: 0".to_owned(), format!("Content-Length: {right}")),
        (format!("l: {right}"), "Content-Length: 0".to_owned()),
        (format!("Content-Length: {right}\r\nSubject: between"), "L: 1".to_owned()),
        (format!("CONTENT-LENGTH : {right}"), "l:\t 0".to_owned()),
    ] {
        let attack = call(&format!("{one}\r\n{other}\r\n"), SDP);
        refused(DEFAULT, &attack, Reason::DuplicateContentLength);
    }
    passes(DEFAULT, &call(&format!("l: {right}\r\nContent-Length: {right}\r\n"), SDP));
}

#[test]
fn advisory_list_of_content_lengths() {
    no_lengths(&["10, 20", "10,20", "10 ,10", "10,", ",10", "\r\n 10,\r\n 20"]);
}

#[test]
fn advisory_signed_content_length() {
    no_lengths(&["+10", "+0", "-10", "- 10"]);
}

#[test]
fn advisory_hexadecimal_content_length() {
    no_lengths(&["0x10", "0X10", "10h", "0b1", "0o7"]);
}

#[test]
fn advisory_two_numbers_in_content_length() {
    no_lengths(&["1 0", "1\t0", "1\r\n 0", "1 \r\n\t0"]);
}

#[test]
fn advisory_zeros_before_content_length() {
    let right = SDP.len().to_string();
    for zeros in [20, 100, 300] {
        no_lengths(&[&format!("{}{right}", "0".repeat(zeros))]);
    }
    passes(DEFAULT, &length(&format!("{right:0>10}")));
}

/// What is no message between two messages of a stream: OpenSIPS reads it as the beginning of the next one.
#[track_caller]
fn between_messages(garbage: &[u8], reason: Reason) {
    refused_tcp(DEFAULT, &[OPTIONS, garbage, OPTIONS].concat(), reason);
    refused_tcp(DEFAULT, &[&good_call(), garbage, OPTIONS].concat(), reason);
}

#[test]
fn advisory_opensips_950() {
    between_messages(b"garbage\r\n\r\n", Reason::BadStartLine);
    between_messages(b"\x80\x90\x01\x00 RTP", Reason::BadStartLine);
    between_messages(b" ", Reason::BadStartLine);
    // A body longer than its Content-Length: the rest is no message.
    refused_tcp(DEFAULT, &[&length("0"), OPTIONS].concat(), Reason::BadStartLine);
    passes_tcp(DEFAULT, &[&good_call(), OPTIONS].concat());
}

/// Pings that are meant for UDP.
#[test]
fn advisory_opensips_3454() {
    for ping in [&b"jaK\0"[..], b"\0\x01", &[0; 17], b"\x00\x01\x00\x00\x21\x12\xa4\x42"] {
        between_messages(ping, Reason::BadStartLine);
    }
    // Together with what follows it looks like a method that nobody knows, but CSeq has the real one.
    between_messages(b"jaK", Reason::CseqMismatch);
    passes_tcp(DEFAULT, &[OPTIONS, b"\r\n\r\n", OPTIONS, b"\r\n", OPTIONS].concat());
}

/// Asterisk reads on for ever when a connection ends, or when it was sent a message that was made for it. The message is caught
/// where its framing is wrong. An end in the middle of a message is not: nothing is wrong with it, and it passes.
#[test]
fn advisory_cve_2018_12228() -> Result<()> {
    refused_tcp(DEFAULT, b"\0x\r\n\r\n", Reason::BadStartLine);
    refused_tcp(DEFAULT, &call("", b""), Reason::MissingContentLength);
    refused_tcp(DEFAULT, &length("-1"), Reason::BadContentLength);
    for message in [good_call(), length("60000")] {
        let [peer, _] = devices();
        assert_eq!(
            connection(DEFAULT, &peer, &[&message[..100]])?,
            Verdict { reason: Reason::Valid, end: End::Passed }
        );
        let run = program(DEFAULT).run(&peer.tcp(ACK | FIN, 1100, b""))?;
        assert_eq!((run.reason, run.action), (Reason::TcpControl, XDP_PASS));
    }
    Ok(())
}
