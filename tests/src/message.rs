//! SIP messages over TCP: well-formed ones that are hard to frame, and malformed ones.

use sipguard_common::Reason;

/// The smallest well-formed request.
pub const OPTIONS: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:a@h>;tag=1\r\n\
    To: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

/// The session description of a call.
pub const SDP: &[u8] =
    b"v=0\r\no=- 2890844526 2890844526 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n\
    m=audio 49170 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\n";

/// An INVITE as a phone sends it, with these header lines behind its own, and this body. Content-Length is not among its own.
#[must_use]
pub fn call(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "INVITE sip:9100@pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK776asdhds;rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@pbx.example>;tag=1928301774\r\nTo: <sip:9100@pbx.example>\r\n\
         Call-ID: a84b4c76e66710@192.0.2.7\r\nCSeq: 314159 INVITE\r\nContact: <sip:alice@192.0.2.7:5060>\r\n\
         Content-Type: application/sdp\r\n{lines}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// An INVITE without a fault.
#[must_use]
pub fn good_call() -> Vec<u8> {
    call(&format!("Content-Length: {}\r\n", SDP.len()), SDP)
}

/// A message in which `from`, which stands in it once, is replaced.
///
/// # Panics
/// When it does not stand in it once.
#[must_use]
pub fn bent(message: &[u8], from: &str, to: impl AsRef<[u8]>) -> Vec<u8> {
    let mut places = message.windows(from.len()).enumerate().filter(|(_, part)| *part == from.as_bytes());
    let (Some((at, _)), None) = (places.next(), places.next()) else {
        panic!("{from:?} does not stand there once")
    };
    [&message[..at], to.as_ref(), &message[at + from.len()..]].concat()
}

/// A STUN binding request (RFC 8489) with these attributes.
#[must_use]
pub fn stun(attributes: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend(b"twelve bytes");
    message.extend(attributes);
    message
}

/// A well-formed registration; `number` tells one from another.
#[must_use]
pub fn register(number: usize) -> Vec<u8> {
    format!(
        "REGISTER sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/TCP 10.77.0.2:5060;branch=z9hG4bKr{number};rport\r\n\
         From: <sip:desk@sipguard.test>;tag={number}\r\nTo: <sip:desk@sipguard.test>\r\nCall-ID: desk\r\n\
         CSeq: {number} REGISTER\r\nContact: <sip:desk@10.77.0.2;transport=tcp>\r\nMax-Forwards: 70\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// An INVITE with header lines folded, compact names, and NULs and line ends in its body.
#[must_use]
pub fn invite() -> Vec<u8> {
    let body = b"v=0\r\n\0\0\0\0\r\n\r\nINVITE sip:not-a-start SIP/2.0\r\nContent-Length: -1\r\n\r\n\0";
    let head = format!(
        "INVITE sip:9100@sipguard.test;transport=tcp SIP/2.0\r\nv: SIP/2.0/TCP 10.77.0.2\r\n ;branch=z9hG4bKi\r\n\t;rport\r\n\
         f: <sip:a@sipguard.test>;tag=1\r\nt : <sip:9100@sipguard.test>\r\ni: call\r\nCSEQ: 1 INVITE\r\nSubject:\r\n\
         m:\t<sip:a@10.77.0.2>\r\nc: application/octet-stream\r\nl\t:\t  {}  \r\nX-Utf-8: d\u{e9}j\u{e0} vu\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A message near every limit: 12 KB of headers and a body of 60 KB.
#[must_use]
pub fn large() -> Vec<u8> {
    let mut message =
        b"MESSAGE sip:a@sipguard.test SIP/2.0\r\nv: h\r\nf: a\r\nt: b\r\ni: c\r\nCSeq: 1 MESSAGE\r\n\
        Content-Length: 60000\r\n"
            .to_vec();
    for line in 0..12 {
        message.extend_from_slice(format!("X-Large-{line}: {}\r\n", "x".repeat(985)).as_bytes());
    }
    message.extend_from_slice(b"\r\n");
    message.extend((0u32..60_000).map(|at| (at % 251) as u8));
    message
}

/// A REGISTER whose header section goes on with `rest`.
#[must_use]
pub fn register_with(rest: &str) -> Vec<u8> {
    format!("REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/TCP 10.77.0.2\r\nCSeq: 1 REGISTER\r\n{rest}").into_bytes()
}

/// A malformed message.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Why it is malformed.
    pub reason: Reason,
    /// The message.
    pub bytes: Vec<u8>,
    /// How many of its bytes may reach the application, because the fault lies in a later segment.
    pub readable: usize,
}

const fn fault(reason: Reason, bytes: Vec<u8>) -> Fault {
    Fault { reason, bytes, readable: 0 }
}

/// A REGISTER whose Content-Length is negative.
#[must_use]
pub fn negative_length() -> Fault {
    fault(Reason::BadContentLength, register_with("Content-Length: -1\r\n\r\n"))
}

/// One of each.
#[must_use]
pub fn faults() -> Vec<Fault> {
    let lengths = ["-1", "", " ", "4294967296", "99999999999", "+10", "0x10", "1 0", "10, 20"];
    let mut faults: Vec<Fault> = lengths
        .iter()
        .map(|length| {
            fault(Reason::BadContentLength, register_with(&format!("Content-Length: {length}\r\n\r\nbody")))
        })
        .collect();
    for garbage in
        [&b"\x01\x02garbage\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
    {
        faults.push(fault(Reason::BadStartLine, garbage.to_vec()));
    }
    let long_lines = format!("X: {}\r\n", "y".repeat(4000)).repeat(17);
    faults.extend([
        fault(Reason::BadVersion, b"REGISTER sip:a SIP/3.0\r\nContent-Length: 0\r\n\r\n".to_vec()),
        fault(Reason::MissingContentLength, register_with("\r\n")),
        fault(Reason::DuplicateContentLength, register_with("Content-Length: 0\r\nl: 120\r\n\r\n")),
        fault(Reason::TooManyHeaders, register_with(&"X: y\r\n".repeat(200))),
        fault(Reason::ControlByte, register_with("X-Firmware: 1\0.0\r\nContent-Length: 0\r\n\r\n")),
        fault(Reason::BareLf, register_with("Via: SIP/2.0/TCP h\nContent-Length: 0\r\n\r\n")),
        fault(Reason::BareCr, register_with("X-Firmware: 1\r.0\r\nContent-Length: 0\r\n\r\n")),
        fault(Reason::BadHeaderName, register_with("no colon here\r\nContent-Length: 0\r\n\r\n")),
        fault(Reason::BodyTooLarge, register_with("Content-Length: 524289\r\n\r\n")),
        Fault { reason: Reason::HeadersTooLong, bytes: register_with(&long_lines), readable: 65_535 },
        Fault {
            reason: Reason::LineTooLong,
            bytes: register_with(&format!("To: {}", "y".repeat(5000))),
            readable: 4096 + 200,
        },
    ]);
    faults
}
