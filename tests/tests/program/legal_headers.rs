//! What must never count as malformed in start lines, headers and bodies, on TCP and on UDP, in the default profile. Transports are
//! in `legal.rs`.

use sipguard_tests::judge::{Profile, passes, passes_tcp, passes_udp};
use sipguard_tests::message::{SDP, bent, call, good_call, invite, large};

const DEFAULT: Profile = Profile::Default;

/// A call with these header lines more.
fn call_with(lines: &str) -> Vec<u8> {
    call(&format!("{lines}Content-Length: {}\r\n", SDP.len()), SDP)
}

/// A call whose header section was rewritten.
fn rewritten(rewrite: impl Fn(&str) -> String) -> Vec<u8> {
    let call = String::from_utf8(good_call()).expect("text");
    let (head, body) = call.split_once("\r\n\r\n").expect("an empty line");
    let (start, headers) = head.split_once("\r\n").expect("a start line");
    let headers: Vec<_> = headers.split("\r\n").map(rewrite).collect();
    format!("{start}\r\n{}\r\n\r\n{body}", headers.join("\r\n")).into_bytes()
}

/// The same header lines with their names changed.
fn renamed(rename: impl Fn(&str) -> String) -> Vec<u8> {
    rewritten(|line| {
        let (name, value) = line.split_once(':').expect("a colon");
        format!("{}:{value}", rename(name))
    })
}

#[test]
fn compact_forms() {
    let head = |name: fn(&str) -> String| {
        let lines = [
            ("v", "SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1"),
            ("f", "<sip:alice@pbx.example>;tag=1"),
            ("t", "<sip:9100@pbx.example>"),
            ("i", "a84b4c76e66710"),
            ("m", "<sip:alice@192.0.2.7>"),
            ("l", "130"),
            ("c", "application/sdp"),
            ("e", "gzip"),
            ("k", "100rel, timer"),
            ("s", "lunch"),
            ("o", "presence"),
            ("r", "<sip:bob@pbx.example>"),
            ("u", "presence"),
            ("x", "1800;refresher=uac"),
            ("b", "<sip:carol@pbx.example>"),
            ("j", "*;audio"),
            ("d", "redirect"),
            ("y", "signature"),
            ("a", "*;mobility=\"fixed\""),
            ("n", "<https://pbx.example/cert>"),
        ];
        let lines: String =
            lines.iter().map(|(short, value)| format!("{}: {value}\r\n", name(short))).collect();
        [format!("INVITE sip:9100@pbx.example SIP/2.0\r\n{lines}CSeq: 1 INVITE\r\n\r\n").as_bytes(), SDP]
            .concat()
    };
    passes(DEFAULT, &head(str::to_owned));
    passes(DEFAULT, &head(str::to_uppercase));
    passes(DEFAULT, &head(|name| format!("{name} \t")));
}

#[test]
fn names_in_any_case() {
    let mixed = |name: &str| {
        let letters = name.chars().enumerate();
        letters
            .map(
                |(at, letter)| {
                    if at % 2 == 0 { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() }
                },
            )
            .collect()
    };
    for message in [renamed(str::to_uppercase), renamed(str::to_lowercase), renamed(mixed)] {
        passes(DEFAULT, &message);
    }
}

#[test]
fn white_space_around_the_colon() {
    for space in [" ", "\t", "   ", " \t \t ", &" ".repeat(40)] {
        passes(DEFAULT, &renamed(|name| format!("{name}{space}")));
        passes(DEFAULT, &rewritten(|line| format!("{line}{space}")));
        passes(DEFAULT, &rewritten(|line| line.replacen(": ", &format!(":{space}"), 1)));
    }
    passes(DEFAULT, &rewritten(|line| line.replacen(": ", ":", 1)));
}

/// Replaces the colon of a line; on a stream, where that is folded, not of Content-Length (see `receivers`).
fn folded_but_length(colon: &str) -> impl Fn(&str) -> String {
    move |line| {
        if line.starts_with("Content-Length") { line.to_owned() } else { line.replacen(": ", colon, 1) }
    }
}

#[test]
fn folded_lines() {
    for fold in ["\r\n ", "\r\n\t", "\r\n    ", " \r\n ", "\t\r\n\t", "\r\n \r\n "] {
        passes_udp(DEFAULT, &rewritten(|line| line.replacen(": ", &format!(":{fold}"), 1)));
        passes(DEFAULT, &rewritten(folded_but_length(&format!(":{fold}"))));
        passes(DEFAULT, &rewritten(folded_but_length(&format!(" :{fold}"))));
        passes(DEFAULT, &rewritten(|line| line.replace(';', &format!("{fold};"))));
        passes_udp(DEFAULT, &rewritten(|line| line.replace(' ', fold)));
        passes(DEFAULT, &rewritten(|line| format!("{line}{fold}")));
    }
    let long = format!("Subject: {}\r\n", "folded\r\n ".repeat(80));
    passes(DEFAULT, &call_with(&long));
    // What looks like a header in a folded line is none.
    passes(DEFAULT, &call_with("Subject: a\r\n Via: 5\r\n To: <sip:x>\r\n : x\r\n no colon\r\n"));
}

#[test]
fn line_ends_of_lf_alone() {
    let call: Vec<u8> = call_with("").into_iter().filter(|byte| *byte != b'\r').collect();
    let sdp = SDP.iter().filter(|byte| **byte != b'\r').count();
    passes(DEFAULT, &bent(&call, &format!("Length: {}", SDP.len()), format!("Length: {sdp}")));
}

#[test]
fn empty_values() {
    let names = "Subject Supported Require Proxy-Require Allow Accept Accept-Encoding Accept-Language Allow-Events Organization \
                 User-Agent Server Min-Expires Date Warning Reason Privacy P-Asserted-Identity X-Anything s k u";
    for name in names.split(' ') {
        for value in ["", " ", "\t", " \t ", "\r\n ", " \r\n\t "] {
            passes(DEFAULT, &call_with(&format!("{name}:{value}\r\n")));
        }
    }
    let all: String = names.split(' ').map(|name| format!("{name}:\r\n")).collect();
    passes(DEFAULT, &call_with(&all));
}

#[test]
fn unknown_headers() {
    for name in [
        "X",
        "X-Vendor-Specific-Header-Of-A-Phone",
        "P-Charging-Vector",
        "Content-Length2",
        "Vi",
        "To-",
        "CSeq2",
        "-",
        "0",
    ] {
        passes(DEFAULT, &call_with(&format!("{name}: a:b;c=\"d\", <e>?f=%00\r\n")));
    }
    // Every byte of a token (RFC 3261 section 25.1), and the longest name.
    passes(DEFAULT, &call_with("!%*_+`'~-.azAZ09: x\r\n"));
    passes(DEFAULT, &call_with(&format!("{}: x\r\n", "N".repeat(63))));
    let different: String = (0..100).map(|number| format!("X-{number}: {number}\r\n")).collect();
    passes(DEFAULT, &call_with(&different));
}

#[test]
fn methods() {
    for method in [
        "ACK",
        "BYE",
        "CANCEL",
        "INFO",
        "MESSAGE",
        "NOTIFY",
        "OPTIONS",
        "PRACK",
        "PUBLISH",
        "REFER",
        "REGISTER",
        "SUBSCRIBE",
        "UPDATE",
        "SERVICE",
        "NEWMETHOD",
        "invite",
        "I",
        "!interesting-Method0123456789_*+`.%indeed'~",
        "SIP",
        "SIP2",
        &"M".repeat(63),
    ] {
        let message = bent(&good_call(), "INVITE sip", format!("{method} sip"));
        passes(DEFAULT, &bent(&message, "314159 INVITE", format!("314159 {method}")));
    }
}

#[test]
fn responses() {
    let response = |line: &str| bent(&good_call(), "INVITE sip:9100@pbx.example SIP/2.0", line);
    for code in [
        "100 Trying",
        "180 Ringing",
        "183 Session Progress",
        "200 OK",
        "302 Moved",
        "401 Unauthorized",
        "486 Busy Here",
        "503 Service Unavailable",
        "603 Decline",
        "699 Nobody knows",
        "200 ",
        "200",
        "200 D\u{e9}j\u{e0} vu \u{65e5}\u{672c}",
    ] {
        for version in ["SIP/2.0", "sip/2.0", "Sip/2.0"] {
            passes(DEFAULT, &response(&format!("{version} {code}")));
        }
    }
    // RFC 3261 section 8.2.6.1: the method of CSeq is the request's, whatever it was.
    passes(DEFAULT, &bent(&response("SIP/2.0 200 OK"), "314159 INVITE", "314159 PRACK"));
}

#[test]
fn version_in_any_case() {
    for version in ["sip/2.0", "Sip/2.0", "sIP/2.0", "SIp/2.0"] {
        let message = bent(&good_call(), "example SIP/2.0", format!("example {version}"));
        passes(DEFAULT, &bent(&message, "Via: SIP/2.0", format!("Via: {version}")));
    }
}

#[test]
fn text_and_quoted_escapes() {
    let texts = [
        "\"D\u{e9}j\u{e0} vu\" ",
        "\"\u{65e5}\u{672c}\u{8a9e}\" ",
        "\u{0645}\u{0631}\u{062d}\u{0628}\u{0627} ",
        "\"\u{1f4de}\" ",
        "\"a \\\"quoted\\\" name\" ",
        "\"a \\\\ backslash\" ",
        "\"ends with \\\\\" ",
        "\"a, b; c: d <e> @ f?\" ",
        "\"\" ",
        "\"tab\tin\" ",
        "\"\\a\\b\" ",
        "\"To: <sip:x>\\\" Content-Length: 5\" ",
        "name of words ",
    ];
    for text in texts {
        passes(DEFAULT, &bent(&good_call(), "\"Alice\" ", text));
        passes(DEFAULT, &call_with(&format!("Subject: {text}\r\n")));
    }
    // Not UTF-8 (RFC 4475 section 3.1.1.12 has it in a reason phrase, Latin-1 is what phones really send).
    passes(DEFAULT, &bent(&good_call(), "\"Alice\"", b"\"D\xe9j\xe0\""));
    let every: Vec<u8> = (0x20..=0x7e).chain(0x80..=0xff).collect();
    passes(DEFAULT, &bent(&good_call(), "\"Alice\"", every));
}

#[test]
fn request_uris() {
    for uri in [
        "tel:+358-555-1234567;phone-context=+358",
        "sips:9100@pbx.example:5061;transport=tls",
        "urn:service:sos",
        "sip:[2001:db8::1]:5060",
        "sip:%6eot%00@pbx.example;lr?Subject=%0d%0a&Priority=urgent",
        "soap.beep://192.0.2.103:3002",
        "nobodyKnowsThisScheme:totally opaque",
        "sip:sip%3Auser%40example.com@company.com;other-param=summit",
        "SIP:9100@PBX.EXAMPLE",
        "<sip:9100@pbx.example>",
        "*",
        "x",
        "sip:9100@pbx.example SIP/2.0 HTTP/1.1 x",
    ] {
        passes(DEFAULT, &bent(&good_call(), "sip:9100@pbx.example SIP", format!("{uri} SIP")));
    }
}

#[test]
fn stacks_of_routes_and_vias() {
    let via = |hop: usize| {
        format!(
            "Via: SIP/2.0/TCP hop{hop}.example.com:5060;branch=z9hG4bK87a{hop};received=192.0.2.{hop};rport=50606\r\n"
        )
    };
    let route = |name: &str, hop: usize| {
        format!("{name}: <sip:192.0.2.{hop};transport=tcp;lr;r2=on;ftag=a6c85cf;did=94a.c2>\r\n")
    };
    passes(DEFAULT, &call_with(&(0..70).map(via).collect::<String>()));
    for name in ["Record-Route", "Route", "RECORD-ROUTE"] {
        passes(DEFAULT, &call_with(&(0..70).map(|hop| route(name, hop)).collect::<String>()));
    }
    passes(DEFAULT, &call_with(&"Contact: <sip:a@192.0.2.7>;q=0.5\r\n".repeat(70)));
    passes(DEFAULT, &call_with(&"m: <sip:a@192.0.2.7>\r\n".repeat(70)));
    // Others come often as well.
    passes(DEFAULT, &call_with(&"P-Asserted-Identity: <sip:a@pbx.example>\r\n".repeat(32)));
    passes(DEFAULT, &call_with(&"Diversion: <sip:a@pbx.example>;reason=unconditional\r\n".repeat(20)));
}

#[test]
fn lists_with_commas() {
    let list = |one: &str, times: usize| vec![one; times].join(", ");
    for line in [
        format!("Via: {}", list("SIP/2.0/UDP hop.example.com:5060;branch=z9hG4bK87a;ttl=16", 50)),
        format!(
            "v: {}",
            list("SIP / 2.0 / UDP hop.example.com: 4000;ttl=16 ;maddr=192.0.2.1;branch=z9hG4bKb", 40)
        ),
        format!("Record-Route: {}", list("<sip:192.0.2.1;lr>", 150)),
        format!("Contact: {}", list("\"a, b\" <sip:a@192.0.2.7>;expires=99999999999;q=0.3", 60)),
        format!("Allow: {}", list("INVITE", 400)),
        format!("Supported: {}", list("100rel", 400)),
        format!("Accept: {}", list("application/sdp;level=1", 100)),
        format!("Supported: {}", list("", 30)),
    ] {
        passes(DEFAULT, &call_with(&format!("{line}\r\n")));
    }
}

/// RFC 3261 section 20.42, and what RFC 5118 and real devices make of it.
#[test]
fn vias() {
    for via in [
        "SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111",
        "SIP/2.0/TCP [2001:db8::9:255]:65535;received=[2001:db8::9:255]",
        "SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK56sdasks",
        "SIP/2.0/TLS-SCTP host.example.com;branch=z9hG4bK1234567890123456",
        "SIP/2.0/UDP host:5060;branch=z9hG4bK00000000000000000000;ttl=255;received=192.0.2.1;rport=65535",
        "SIP/2.0/UDP 3232235777:5060",
        "SIP/2.0/UDP host;branch=1;id=123456789;x=\"a:99999\"",
        "SIP/2.0/UDP host : 5060 ; rport",
        "SIP/2.0/UDP 192.0.2.7:",
    ] {
        let message = bent(&good_call(), "SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK776asdhds;rport", via);
        passes(DEFAULT, &message);
    }
}

#[test]
fn numbers_as_large_and_as_padded_as_they_may_be() {
    for cseq in
        ["0 INVITE", "2147483647 INVITE", "0000000001 INVITE", "1   INVITE", "1\tINVITE", "1 INVITE  "]
    {
        passes(DEFAULT, &bent(&good_call(), "314159 INVITE", cseq));
    }
    for hops in ["0", "255", "256", "70000", "4294967295"] {
        passes(DEFAULT, &bent(&good_call(), "Max-Forwards: 70", format!("Max-Forwards: {hops}")));
    }
    // RFC 2543 section 6.20 had dates in Expires.
    for expires in ["0", "3600", "4294967295", "Thu, 01 Dec 1994 16:00:00 GMT", "3600;x"] {
        passes(DEFAULT, &call_with(&format!("Expires: {expires}\r\n")));
    }
}

#[test]
fn bodies() {
    let every: Vec<u8> = (0..=255).collect();
    let (request, inner) = (good_call(), invite());
    for body in [
        &[0; 200][..],
        &every,
        &every.repeat(100),
        &request,
        &inner,
        b"\r\n\r\n\r\n",
        b"\n\r\r\0",
        b"\0",
        b"",
    ] {
        passes(DEFAULT, &call(&format!("Content-Length: {}\r\n", body.len()), body));
    }
    let multipart = b"--boundary\r\nContent-Length: 99999999999\r\nContent-Type: application/octet-stream\r\n\r\n\0\x01\x02\r\n--boundary--\r\n";
    passes(DEFAULT, &call(&format!("Content-Length: {}\r\n", multipart.len()), multipart));
    passes_tcp(DEFAULT, &large());
    passes_tcp(DEFAULT, &call("Content-Length: 65535\r\n", &vec![0; 65535]));
    passes_udp(DEFAULT, &call("Content-Length: 60000\r\n", &vec![0; 60_000]));
}
