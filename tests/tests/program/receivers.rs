//! Streams in which receivers find different ends of the same message: refused where one of them would take a body for a message.

use sipguard_common::Reason;
use sipguard_tests::judge::{Profile, passes, passes_tcp, passes_udp, refused_tcp};
use sipguard_tests::message::{OPTIONS, bent, call, good_call};

const DEFAULT: Profile = Profile::Default;
const STRICT: Profile = Profile::Strict;

/// Kamailio and OpenSIPS take the first line of a stream that reads like Content-Length behind white space.
#[test]
fn lengths_where_rfc_3261_has_none() {
    let with = |lines: &str| call(&format!("{lines}\r\nContent-Length: 5\r\n"), b"hello");
    for line in [
        "Subject: a\r\n Content-Length: 0",
        "Subject: a\r\n\tl:0",
        "Subject: a\r\n \t CONTENT_LENGTH\t : 0",
        "Subject: a\r\n  l \t: 0;not-a-number",
        "Content_Length: 0",
        "content_lengtH \t:0",
        &format!("Subject: a\r\n{}l: 0", " ".repeat(49)),
        &format!("Subject: a\r\n{}l: 0", " ".repeat(500)),
        &format!("Subject: a\r\n Content-Length{}: 0", " ".repeat(49)),
    ] {
        refused_tcp(DEFAULT, &with(line), Reason::BadContentLength);
        // The length of a datagram is its own.
        passes_udp(DEFAULT, &with(line));
    }
    for line in [
        "Subject: a\r\n Content-Lengths: 0",
        "Subject: a\r\n Content-Length",
        "Subject: a\r\n l",
        "Subject: a\r\n l o: 0",
        "Subject: a\r\n content.length: 0",
        "Subject: a\r\n :l: 0",
        "Subject: l: 0",
        "Content_Lengths: 0",
        "Content_: 0",
        &format!("Subject: a\r\n{}l", " ".repeat(48)),
        &format!("Subject: a\r\n{}it goes on", " ".repeat(48)),
    ] {
        passes(DEFAULT, &with(line));
    }
    for start in ["l: 0 sip:a SIP/2.0", "Content-Length : 0 SIP/2.0", "CONTENT_LENGTH\t:0 sip:a SIP/2.0"] {
        let message = bent(OPTIONS, "OPTIONS sip:pbx SIP/2.0", start);
        refused_tcp(DEFAULT, &message, Reason::BadStartLine);
    }
    let short = bent(&bent(OPTIONS, "OPTIONS sip:pbx", "l sip:pbx"), "1 OPTIONS", "1 l");
    passes(DEFAULT, &short);
}

/// They look for the number behind the name alone.
#[test]
fn a_length_in_the_next_line() {
    for value in ["\r\n 5", " \r\n\t5", "\r\n \r\n 5"] {
        let message = call(&format!("Content-Length:{value}\r\n"), b"hello");
        refused_tcp(DEFAULT, &message, Reason::BadContentLength);
        passes_udp(DEFAULT, &message);
    }
    passes(DEFAULT, &call("Content-Length: 5 \r\n \r\n", b"hello"));
}

fn with_lf(message: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(message).replace("\r\n", "\n").into_bytes()
}

/// pjsip ends a header section at LF CR LF alone, and takes the first Content-Length before it: with LF throughout, that of an earlier message.
#[test]
fn lf_throughout_and_then_crlf() {
    let lf = with_lf(OPTIONS);
    passes_tcp(DEFAULT, &lf.repeat(20));
    passes_tcp(DEFAULT, &[OPTIONS, &lf, b"\n\n", &lf].concat());
    refused_tcp(DEFAULT, &[&lf, OPTIONS].concat(), Reason::BareLf);
    refused_tcp(DEFAULT, &[OPTIONS, &lf, &lf, OPTIONS].concat(), Reason::BareLf);
    refused_tcp(DEFAULT, &[&lf, &b"\r\n"[..], &lf].concat(), Reason::BadStartLine);
    refused_tcp(DEFAULT, &[&lf, &b"\n\0\r"[..]].concat(), Reason::BadStartLine);
    let with = |body: &str| {
        [with_lf(&call(&format!("Content-Length: {}\r\n", body.len()), b"")), body.into()].concat()
    };
    for body in ["v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\n", "v=0\no=-\n\n", "a\r\r\nb", &"text\r\n".repeat(3000)]
    {
        passes_tcp(DEFAULT, &[with(body), lf.clone(), with(body)].concat());
    }
    let far = "x".repeat(5000);
    for body in ["\r\nv=0", "v=0\r\n\r\n", "\n\r", &format!("{far}\n\r{far}")] {
        refused_tcp(DEFAULT, &with(body), Reason::BareLf);
        refused_tcp(DEFAULT, &[OPTIONS, &lf, &with(body)].concat(), Reason::BareLf);
        // With CRLF everybody knows where it begins.
        passes(DEFAULT, &call(&format!("Content-Length: {}\r\n", body.len()), body.as_bytes()));
    }
}

/// CVE-2023-27598: a Via that ends otherwise than other lines, wherever it is.
#[test]
fn the_end_of_a_via() {
    let via = "Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK776asdhds;rport";
    let message = good_call();
    let by_lf = with_lf(&message);
    refused_both(&bent(&message, &format!("{via}\r\n"), format!("{via}\n")));
    let start = String::from_utf8_lossy(&message).replacen("\r\n", "\n", 2).into_bytes();
    refused_both(&start);
    refused_both(&bent(&by_lf, "\nTo:", "\r\nTo:"));
    passes_udp(DEFAULT, &by_lf);
    // Before a Via that ends with CRLF, another line may end with LF.
    passes_udp(DEFAULT, &String::from_utf8_lossy(&message).replacen("\r\n", "\n", 1).into_bytes());
}

fn refused_both(message: &[u8]) {
    refused_tcp(DEFAULT, message, Reason::BareLf);
    sipguard_tests::judge::refused_udp(DEFAULT, message, Reason::BareLf);
}

/// A registrar joins all contacts in one line; lists of networks have a line for each entry.
#[test]
fn long_answers() {
    let answer = |lines: &str| {
        let message = call(&format!("{lines}\r\nContent-Length: 0\r\n"), b"");
        let text = String::from_utf8_lossy(&message).replacen(
            "INVITE sip:9100@pbx.example SIP/2.0",
            "SIP/2.0 200 OK",
            1,
        );
        text.into_bytes()
    };
    let joined = format!(
        "Contact: {}<sip:z@h>",
        "<sip:alice@192.0.2.7:5060;transport=tcp>;expires=3600, ".repeat(130)
    );
    passes(DEFAULT, &answer(&joined));
    refused_tcp(STRICT, &answer(&joined), Reason::LineTooLong);
    refused_tcp(DEFAULT, &call(&format!("{joined}\r\nContent-Length: 0\r\n"), b""), Reason::LineTooLong);
    for name in ["History-Info", "P-Associated-URI", "history-INFO", "p-associated-uri"] {
        passes(DEFAULT, &answer(&vec![format!("{name}: <sip:alice@pbx.example>"); 100].join("\r\n")));
    }
}

/// NULs between messages are for who must put up with them.
#[test]
fn nuls_in_strict() {
    let with = |filler: &[u8]| [OPTIONS, filler, OPTIONS].concat();
    passes_tcp(STRICT, b"\r\n\r\n");
    passes_tcp(DEFAULT, &with(b"\r\n\0"));
    refused_tcp(STRICT, b"\r\n\0", Reason::BadStartLine);
    refused_tcp(STRICT, b"\0", Reason::BadStartLine);
}

/// Kamailio takes what begins with `MSRP ` for a frame of RFC 4975, whose end line it also finds in a body.
#[test]
fn frames_of_msrp() {
    let msrp = |method: &str| {
        let start = bent(OPTIONS, "OPTIONS sip:pbx", format!("{method} sip:pbx"));
        bent(&start, "1 OPTIONS", format!("1 {method}"))
    };
    refused_tcp(DEFAULT, &msrp("MSRP"), Reason::BadStartLine);
    refused_tcp(DEFAULT, &[OPTIONS, b"\r\n", &msrp("MSRP")].concat(), Reason::BadStartLine);
    passes_udp(DEFAULT, &msrp("MSRP"));
    for other in ["MSRPS", "msrp", "MSR", "XMSRP"] {
        passes(DEFAULT, &msrp(other));
    }
}

/// A quoted string that its line does not close quotes nothing in the next.
#[test]
fn a_quoted_string_ends_with_its_line() {
    for end in ["\r\n", "\n"] {
        let message = call(&format!("Subject: \"\\\x01{end}X: a\\\x02b\r\nContent-Length: 0\r\n"), b"");
        refused_tcp(DEFAULT, &message, Reason::ControlByte);
        sipguard_tests::judge::refused_udp(DEFAULT, &message, Reason::ControlByte);
    }
}
