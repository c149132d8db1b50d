//! PROXY headers, against one that reads the whole header at once (HAProxy, proxy-protocol.txt, section 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, Malformed, Stream, feed, feed_proxy};

const OPTIONS: &[u8] =
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c\r\nFrom: <sip:a@b>\r\nTo: <sip:b@c>\r\nCall-ID: 1\r\n\
                         CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LONGEST: usize = 4096;

/// Length of the header, and the client that it names; `Ok(None)` while it goes on.
type Read = Result<Option<(usize, Option<SocketAddr>)>, ()>;

/// Reads a header that is there as a whole. `Ok(None)` where it is not, even if its beginning is wrong already.
fn oracle(bytes: &[u8]) -> Read {
    let begins = |start: &[u8]| start.iter().zip(bytes).all(|(one, other)| one == other);
    if begins(b"PROXY ") {
        text(bytes)
    } else if begins(SIGNATURE) {
        binary(bytes)
    } else {
        Err(())
    }
}

fn text(bytes: &[u8]) -> Read {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\r') else {
        return if bytes.len() >= 107 { Err(()) } else { Ok(None) };
    };
    let Some(feed) = bytes.get(end + 1) else { return Ok(None) };
    if *feed != b'\n' || end + 2 > 107 {
        return Err(());
    }
    let line = String::from_utf8_lossy(&bytes[..end]);
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port.to_string() == text => Ok(port),
        _ => Err(()),
    };
    let addresses = |one: &str, other: &str, v4: bool| {
        let address = |text: &str| {
            if v4 {
                text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| ())
            } else {
                text.parse::<Ipv6Addr>().map(|address| IpAddr::V6(address).to_canonical()).map_err(|_| ())
            }
        };
        address(other).and_then(|_| address(one))
    };
    let client = match line.split(' ').collect::<Vec<_>>()[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, from, to] => {
            let address = addresses(source, destination, family == "TCP4")?;
            port(to)?;
            Some(SocketAddr::new(address, port(from)?))
        }
        _ => return Err(()),
    };
    Ok(Some((end + 2, client)))
}

fn binary(bytes: &[u8]) -> Read {
    let at = |place: usize| bytes.get(place).copied();
    let command = at(12).unwrap_or(0x20);
    let family = at(13).unwrap_or(0);
    if !(0x20..=0x21).contains(&command) || family >> 4 > 3 || family & 15 > 2 {
        return Err(());
    }
    let (Some(high), Some(low)) = (at(14), at(15)) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let least = match family {
        0x11 if command == 0x21 => 12,
        0x21 if command == 0x21 => 36,
        _ => 0,
    };
    if length < least || 16 + length > LONGEST {
        return Err(());
    }
    let Some(rest) = bytes.get(16..16 + length) else { return Ok(None) };
    let client = match least {
        12 => {
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(&rest[..4]).unwrap());
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([rest[8], rest[9]])))
        }
        36 => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(&rest[..16]).unwrap());
            Some(SocketAddr::new(
                IpAddr::V6(address).to_canonical(),
                u16::from_be_bytes([rest[32], rest[33]]),
            ))
        }
        _ => None,
    };
    Ok(Some((16 + length, client)))
}

/// Reads a header in segments that end at `cuts`.
fn fed(bytes: &[u8], cuts: &[usize]) -> Read {
    let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
    stream.begin_proxy(false);
    let mut before = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]).filter(|cut| *cut <= bytes.len()) {
        if cut <= before {
            continue;
        }
        match feed_proxy(&mut stream, &mut buffer, &bytes[before..cut]) {
            Ok(None) => assert!(stream.is_proxy()),
            Ok(Some(taken)) => {
                assert!(!stream.is_proxy());
                return Ok(Some((before + taken, client(&stream))));
            }
            Err(Malformed { reason, .. }) => {
                assert_eq!(reason, Reason::BadProxyHeader);
                return Err(());
            }
        }
        before = cut;
    }
    Ok(None)
}

fn client(stream: &Stream) -> Option<SocketAddr> {
    let (words, port) = stream.proxy_client()?;
    let bytes: [u8; 16] = words.map(u32::to_ne_bytes).concat().try_into().unwrap();
    Some(SocketAddr::new(IpAddr::V6(bytes.into()).to_canonical(), port))
}

/// The same in one segment, byte by byte, and cut in two anywhere.
fn in_every_segmentation(bytes: &[u8]) -> Read {
    let whole = fed(bytes, &[]);
    let each: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(fed(bytes, &each), whole, "byte by byte: {}", bytes.escape_ascii());
    for cut in 1..bytes.len().min(200) {
        assert_eq!(fed(bytes, &[cut]), whole, "cut at {cut}: {}", bytes.escape_ascii());
    }
    whole
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

fn addresses(v6: bool) -> Vec<u8> {
    let ports = [0x9c, 0xbb, 0x13, 0xc4];
    let far = if v6 { Ipv6Addr::LOCALHOST.octets().to_vec() } else { vec![203, 0, 113, 1] };
    let near =
        if v6 { "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets().to_vec() } else { vec![198, 51, 100, 9] };
    [&near[..], &far, &ports].concat()
}

#[test]
fn headers_that_balancers_send() {
    let addresses_4 = addresses(false);
    let addresses_6 = addresses(true);
    let tlvs: &[u8] = &[0x20, 0, 5, 1, 0, 0, 0, 0, 0x04, 0x0f, 0x85];
    let long = [&addresses_4[..], &vec![4; LONGEST - 16 - 12]].concat();
    let unix = [7u8; 216];
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.9 203.0.113.1 40123 5061\r\n".to_vec(), Some("198.51.100.9:40123")),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(),
            Some("255.255.255.255:65535"),
        ),
        (b"PROXY TCP4 0.0.0.0 10.0.0.1 0 5060\r\n".to_vec(), Some("0.0.0.0:0")),
        (b"PROXY TCP6 2001:db8::9 ::1 40123 5060\r\n".to_vec(), Some("[2001:db8::9]:40123")),
        (b"PROXY TCP6 :: ::1 1 5060\r\n".to_vec(), Some("[::]:1")),
        (b"PROXY TCP6 fe80:: 1:2:3:4:5:6:7:8 1 5060\r\n".to_vec(), Some("[fe80::]:1")),
        (b"PROXY TCP6 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: 1 2\r\n".to_vec(), Some("[1:2:3:4:5:6:7:8]:1")),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::FFFF:203.0.113.1 9 5060\r\n".to_vec(), Some("192.0.2.7:9")),
        (b"PROXY TCP6 64:ff9b::192.0.2.7 ::1 9 5060\r\n".to_vec(), Some("[64:ff9b::c000:207]:9")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(), None),
        (v2(0x21, 0x11, &addresses_4), Some("198.51.100.9:40123")),
        (v2(0x21, 0x21, &addresses_6), Some("[2001:db8::9]:40123")),
        (v2(0x21, 0x11, &[&addresses_4[..], tlvs].concat()), Some("198.51.100.9:40123")),
        (v2(0x21, 0x21, &[&addresses_6[..], tlvs].concat()), Some("[2001:db8::9]:40123")),
        (v2(0x21, 0x11, &long), Some("198.51.100.9:40123")),
        (v2(0x20, 0, &[]), None),
        (v2(0x20, 0x11, &addresses_4), None),
        (v2(0x20, 0, tlvs), None),
        (v2(0x21, 0, &[]), None),
        (v2(0x21, 0x12, &addresses_4), None),
        (v2(0x21, 0x31, &unix), None),
    ] {
        let client: Option<SocketAddr> = client.map(|client| client.parse().unwrap());
        let expected = Ok(Some((header.len(), client)));
        let bytes = [&header[..], OPTIONS].concat();
        assert_eq!(in_every_segmentation(&bytes), expected, "{}", header.escape_ascii());
        assert_eq!(oracle(&bytes), expected, "{}", header.escape_ascii());
        assert_eq!(in_every_segmentation(&header[..header.len() - 1]), Ok(None), "{}", header.escape_ascii());
    }
}

#[test]
fn what_is_no_header() {
    let line = |rest: &str| format!("PROXY {rest}\r\n").into_bytes();
    let mut headers: Vec<Vec<u8>> = [
        "TCP4 198.51.100.9 203.0.113.1 40123",
        "TCP4 198.51.100.9 203.0.113.1 40123 5060 1",
        "TCP4 198.51.100.9 203.0.113.1 40123 5060 ",
        "TCP4  198.51.100.9 203.0.113.1 40123 5060",
        "TCP4 198.51.100 203.0.113.1 40123 5060",
        "TCP4 198.51.100.9.1 203.0.113.1 40123 5060",
        "TCP4 198.51.100.256 203.0.113.1 40123 5060",
        "TCP4 198.51.100.09 203.0.113.1 40123 5060",
        "TCP4 198.51.100.a 203.0.113.1 40123 5060",
        "TCP4 198.51..9 203.0.113.1 40123 5060",
        "TCP4 ::1 ::1 40123 5060",
        "TCP4 198.51.100.9 203.0.113.1 65536 5060",
        "TCP4 198.51.100.9 203.0.113.1 040 5060",
        "TCP4 198.51.100.9 203.0.113.1 -1 5060",
        "TCP6 198.51.100.9 203.0.113.1 40123 5060",
        "TCP6 1:2:3:4:5:6:7 ::1 40123 5060",
        "TCP6 1:2:3:4:5:6:7:8:9 ::1 40123 5060",
        "TCP6 1:2:3:4:5:6:7:8: ::1 40123 5060",
        "TCP6 1:2:3:4:5:6:7::8 ::1 40123 5060",
        "TCP6 1::2::3 ::1 40123 5060",
        "TCP6 ::: ::1 40123 5060",
        "TCP6 :1:2:3:4:5:6:7 ::1 40123 5060",
        "TCP6 12345:: ::1 40123 5060",
        "TCP6 g:: ::1 40123 5060",
        "TCP6 ::1.2.3.4:5 ::1 40123 5060",
        "TCP6 fe80::1%eth0 ::1 40123 5060",
        "TCP5 198.51.100.9 203.0.113.1 40123 5060",
        "tcp4 198.51.100.9 203.0.113.1 40123 5060",
        "UDP4 198.51.100.9 203.0.113.1 40123 5060",
        "TCP4",
        "",
    ]
    .map(line)
    .into();
    headers.push(format!("PROXY UNKNOWN {}\r\n", "a".repeat(92)).into_bytes());
    headers.push(b"PROXY TCP4 198.51.100.9 203.0.113.1 40123 5060\n".to_vec());
    headers.push(b"PROXY TCP4 198.51.100.9 203.0.113.1 40123 5060\rx".to_vec());
    headers.push(b"PROXYTCP4 ".to_vec());
    headers.push(OPTIONS.to_vec());
    headers.push(b"PUBLISH sip:a SIP/2.0\r\n".to_vec());
    headers.push(b"\r\n\r\nOPTIONS".to_vec());
    headers.push([0x16, 3, 1, 0, 200, 1].to_vec());
    let addresses = addresses(false);
    headers.push(v2(0x11, 0x11, &addresses));
    headers.push(v2(0x22, 0x11, &addresses));
    headers.push(v2(0x21, 0x41, &addresses));
    headers.push(v2(0x21, 0x13, &addresses));
    headers.push(v2(0x21, 0x11, &addresses[..11]));
    headers.push(v2(0x21, 0x21, &[0; 35]));
    headers.push(v2(0x20, 0, &[0; LONGEST - 15]));
    for header in headers {
        assert_eq!(in_every_segmentation(&header), Err(()), "{}", header.escape_ascii());
        assert!(!matches!(oracle(&header), Ok(Some(_))), "{}", header.escape_ascii());
    }
}

#[test]
fn sip_follows_or_tls() {
    let header = b"PROXY TCP4 198.51.100.9 203.0.113.1 40123 5061\r\n";
    let bad = [&header[..], OPTIONS, b"OPTIONS sip:a SIP/2.1\r\n"].concat();
    for cut in 1..bad.len() {
        let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
        stream.begin_proxy(false);
        let limits = Limits::default();
        let first = feed(&mut stream, &limits, &mut buffer, &bad[..cut]);
        let judged = first.and_then(|()| feed(&mut stream, &limits, &mut buffer, &bad[cut..]));
        assert_eq!(judged.unwrap_err().reason, Reason::BadVersion, "cut at {cut}");
    }
    let hello = [&header[..], &[0x16, 3, 1, 0, 2, 9]].concat();
    for cut in 1..hello.len() {
        let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
        stream.begin_proxy(true);
        let limits = Limits::default();
        let first = feed(&mut stream, &limits, &mut buffer, &hello[..cut]);
        let judged = first.and_then(|()| feed(&mut stream, &limits, &mut buffer, &hello[cut..]));
        assert_eq!(judged.unwrap_err().reason, Reason::NotTls, "no ClientHello, cut at {cut}");
    }
}

/// Headers, and what is nearly one.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        any::<Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<Ipv6Addr>().prop_map(|address| address.to_string()),
        "[0-9a-f:.]{1,20}",
        "(0|ffff|1|::|:|1:2:3){1,4}",
        any::<u16>().prop_map(|port| port.to_string()),
        "TCP4|TCP6|UNKNOWN",
    ];
    let v4 = (any::<[Ipv4Addr; 2]>(), any::<[u16; 2]>());
    let v6 = (any::<[Ipv6Addr; 2]>(), any::<[u16; 2]>());
    let gaps = (prop::collection::vec(prop_oneof![Just(0u16), any::<u16>()], 8), any::<[u16; 2]>());
    prop_oneof![
        v4.prop_map(|([a, b], [p, q])| format!("PROXY TCP4 {a} {b} {p} {q}\r\n").into_bytes()),
        v6.prop_map(|([a, b], [p, q])| format!("PROXY TCP6 {a} {b} {p} {q}\r\n").into_bytes()),
        gaps.prop_map(|(groups, [p, q])| {
            let address = Ipv6Addr::from(<[u16; 8]>::try_from(groups).unwrap());
            format!("PROXY TCP6 {address} ::1 {p} {q}\r\n").into_bytes()
        }),
        prop::collection::vec(word, 0..7)
            .prop_map(|words| format!("PROXY {}\r\n", words.join(" ")).into_bytes()),
        (
            0x1f..0x23u8,
            prop::sample::select(vec![0u8, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x33, 0x41]),
            prop::collection::vec(any::<u8>(), 0..80)
        )
            .prop_map(|(command, family, rest)| v2(command, family, &rest)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_reads_the_header(
        header in headers(),
        fork in any::<prop::sample::Index>(),
        flip in prop_oneof![3 => Just(0u8), 1 => any::<u8>()],
        cuts in prop::collection::vec(0..200usize, 0..6),
        behind in 0..40usize,
    ) {
        let mut bytes = header;
        let at = fork.index(bytes.len());
        bytes[at] ^= flip;
        bytes.extend_from_slice(&OPTIONS[..behind]);
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (read, expected) = (fed(&bytes, &cuts), oracle(&bytes));
        prop_assert_eq!(read, fed(&bytes, &[]), "{}", bytes.escape_ascii());
        if expected == Ok(None) {
            prop_assert!(!matches!(read, Ok(Some(_))), "{}", bytes.escape_ascii());
        } else {
            prop_assert_eq!(read, expected, "{}", bytes.escape_ascii());
        }
    }
}
