//! Secrets in what is shown and kept of packets: overwritten by `x`, in their place, so that lengths and line ends stay as they were.
//! They are credentials and tokens (RFC 3261 22, RFC 8224, RFC 8898), keys of media (RFC 4568, RFC 4567, RFC 8839), and digits that are
//! dialled within a call (RFC 6086, RFC 4730).
//!
//! A packet is looked at alone: which segment came before it nobody knows. So what may be the rest of a credential counts as one. Too
//! much is overwritten rather than too little; control bytes and bytes above 0x7e never are, for they are what is looked for.

mod marks;
mod packet;

use std::ops::Range;

use sipguard_common::framer::{leading_line_ends, plausible_record, plausible_start};
use sipguard_common::wire::{ether_type, ethernet, ipv6, vlan};

use self::marks::{Ends, begins, digits, end_of_value, found};
pub use self::packet::RedactedPacket;
use crate::header::Header;

/// Beginnings of header lines that no rest of a secret looks like.
const HEADERS: [&[u8]; 10] = [
    b"via:",
    b"from:",
    b"call-id:",
    b"cseq:",
    b"contact:",
    b"content-length:",
    b"content-type:",
    b"max-forwards:",
    b"user-agent:",
    b"expires:",
];

/// A frame without its secrets. `header` is what its headers say.
#[must_use]
pub fn frame(frame: &[u8], header: Option<&Header>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (begin, rest_of_one) = match header {
        // All behind the header, also what is beyond the length that IP gives it.
        Some(header) if !header.payload.is_empty() => (header.payload.start, header.tcp),
        // The rest of a datagram.
        Some(header) if header.fragment.is_some() => (behind_ip(&frame), true),
        // Other protocols quote packets.
        _ => (ethernet::LEN, false),
    };
    if let Some(payload) = frame.get_mut(begin..) {
        overwrite(payload, rest_of_one);
    }
    frame
}

/// Where a fragment's part of the datagram begins.
fn behind_ip(frame: &[u8]) -> usize {
    let kind = |at: usize| frame.get(at..at + 2).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    let (mut at, mut next) = (ethernet::LEN, kind(ethernet::TYPE));
    while next.is_some_and(ether_type::is_vlan) {
        next = kind(at + vlan::TYPE);
        at += vlan::LEN;
    }
    match (next, frame.get(at)) {
        (Some(ether_type::IPV4), Some(first)) => at + usize::from(first & 15) * 4,
        // Whatever extension headers there are holds nothing to be read.
        _ => at + ipv6::LEN,
    }
}

/// Overwrites secrets in a payload. `may_go_on`: it may begin in the middle of a message.
pub fn overwrite(payload: &mut [u8], may_go_on: bool) {
    let mut secret: Vec<Range<usize>> = Vec::new();
    if may_go_on && let Some(end) = rest(payload) {
        secret.push(0..end);
    }
    let ends = Ends::default();
    for at in 0..payload.len() {
        secret.extend(found(payload, at, &ends));
        secret.extend(digits(payload, at));
    }
    // Each byte once, however many marks it stands behind.
    secret.sort_unstable_by_key(|range| range.start);
    let mut done = 0;
    for range in secret {
        let begin = range.start.max(done);
        done = done.max(range.end);
        for byte in payload.get_mut(begin..range.end).unwrap_or_default() {
            if matches!(byte, b' '..=b'~') {
                *byte = b'x';
            }
        }
    }
}

/// Until where a payload may be the rest of a secret that began before it.
fn rest(payload: &[u8]) -> Option<usize> {
    let begin = payload.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(payload.len());
    let line = &payload[begin..];
    // A line end and white space are a folded line, which no start line or header begins with.
    if is_start(line) || HEADERS.iter().any(|name| begins(line, name)) {
        return None;
    }
    let end = end_of_value(payload, begin);
    // An empty line ends every header.
    let ends = payload[..begin].iter().filter(|byte| **byte == b'\n').count();
    (ends < 2).then_some(end)
}

/// Whether something begins here that is no secret.
fn is_start(line: &[u8]) -> bool {
    let mut head = [0u8; 24];
    let len = line.len().min(24);
    head[..len].copy_from_slice(&line[..len]);
    let word = |at: usize| head[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let words = [word(0), word(8), word(16)];
    debug_assert!(leading_line_ends(words) == 0 || line.is_empty());
    let first = &line[..line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(line.len())];
    let ends_so = |version: &[u8]| first.windows(version.len()).any(|part| begins(part, version));
    plausible_start(words) || plausible_record(words) || ends_so(b" sip/") || ends_so(b" http/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str, may_go_on: bool) -> String {
        let mut bytes = text.as_bytes().to_vec();
        overwrite(&mut bytes, may_go_on);
        String::from_utf8(bytes).unwrap()
    }

    /// What a stranger sends is read by whoever asks over HTTP.
    #[test]
    fn a_payload_full_of_marks_costs_as_much_as_it_is_long() {
        for mark in [" y:\n", "authorization:\n ", "nonce=", "sip:", "eyJ", "\r", "\n", "k=", "cookie: "] {
            let time = |len: usize| {
                let payload: Vec<u8> = mark.bytes().cycle().take(len).collect();
                let run = |_| {
                    let (mut payload, begun) = (payload.clone(), std::time::Instant::now());
                    overwrite(&mut payload, true);
                    begun.elapsed()
                };
                (0..5).map(run).min().unwrap()
            };
            let ratio = time(1 << 15).as_secs_f64() / time(1 << 11).as_secs_f64();
            // 16 times as long; each byte once more for each would be 256.
            assert!(ratio < 80.0, "{mark:?}: {ratio}");
        }
    }

    #[test]
    fn values_go_and_all_else_stays() {
        for (text, left) in [
            (
                "A: 1\r\nAuthorization: Digest a=1\r\nB: 2\r\n\r\n",
                "A: 1\r\nAuthorization: Digest xxx\r\nB: 2\r\n\r\n",
            ),
            (
                "A: 1\r\nPROXY-authorization : Basic\r\n\tYQ==\r\nB: 2",
                "A: 1\r\nPROXY-authorization : Basic\r\n\txxxx\r\nB: 2",
            ),
            ("Authorization: a\r\rb\r\n\r\nz", "Authorization: x\r\rb\r\n\r\nz"),
            ("Authorization: a\rb\nc\r\nB:", "Authorization: x\rx\nx\r\nB:"),
            ("X: a, CNonce = \"b\\\"c\", d", "X: a, CNonce = \"xxxx\", d"),
            ("X: response=abc;nonce=", "X: response=xxx;nonce="),
            ("Auth\u{1}: Digest a\u{2}b", "Auth\u{1}: Digest x\u{2}x"),
            ("INVITE sip:bob:pw@h SIP/2.0", "INVITE sip:bob:xx@h SIP/2.0"),
            ("INVITE sip:bob@h:5060 SIP/2.0", "INVITE sip:bob@h:5060 SIP/2.0"),
            ("Subject: a digest of the response", "Subject: a digest of the response"),
        ] {
            assert_eq!(redacted(text, false), left);
        }
    }

    #[test]
    fn tokens_keys_and_digits_go() {
        for (text, left) in [
            ("A: 1\r\ncookie: sid=ab;\r\n\tp=q\r\nB: 2", "A: 1\r\ncookie: xxxxxxx\r\n\txxx\r\nB: 2"),
            ("X-Auth-TOKEN:abc\nB: 2", "X-Auth-TOKEN:xxx\nB: 2"),
            ("X-API-Key : abc\r\nB: 2", "X-API-Key : xxx\r\nB: 2"),
            ("Apikey: abc", "Apikey: xxx"),
            ("A: 1\r\nIdentity: ab.c;info=<a>\r\nB: 2", "A: 1\r\nIdentity: xxxxxxxxxxxxx\r\nB: 2"),
            ("A: 1\r\ny: ab.c\r\n d\r\nB: 2", "A: 1\r\ny: xxxx\r\nxx\r\nB: 2"),
            ("P-Asserted-Identity: <sip:a@b>", "P-Asserted-Identity: <sip:a@b>"),
            (
                "P-Preferred-Identity: <sip:a@b>\r\nIdentity-Info: b",
                "P-Preferred-Identity: <sip:a@b>\r\nIdentity-Info: b",
            ),
            ("Authorization: Bearer ab.c", "Authorization: Bearer xxxx"),
            ("Damaged eyJhbGciOi.J9_-x;alg", "Damaged xxxxxxxxxxxxxxxx;alg"),
            ("X: <a?access_token=abc>", "X: <a?access_token=xxx>"),
            (
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:ab+/|2^20|1:4 FEC\r\nm=a",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxxxxxxxxxxxxxxxx\r\nm=a",
            ),
            ("a=crypto:1 AES abc\r\n", "a=crypto:xxxxxxxxx\r\n"),
            ("a=key-mgmt:mikey AQ+/=\r\nm=a", "a=key-mgmt:mikeyxxxxxx\r\nm=a"),
            (
                "a=ICE-pwd:ab\na=ice-ufrag:c\na=ice-options:d\n",
                "a=ICE-pwd:xx\na=ice-ufrag:x\na=ice-options:d\n",
            ),
            ("k=base64:ab\r\nk=prompt\r\nm=a", "k=base64:xx\r\nk=prompt\r\nm=a"),
            ("\r\n\r\nSignal= 5\r\nDuration=160", "\r\n\r\nSignal=xx\r\nDuration=160"),
            ("signal=#\nDuration=160", "signal=x\nDuration=160"),
            ("<response digits=\"12#\"/>", "<response digits=\"xxx\"/>"),
            ("A: 1\r\n\r\n12#\r\n", "A: 1\r\n\r\nxxx\r\n"),
            ("\n\n5", "\n\nx"),
            ("A: 1\r\n123\r\n", "A: 1\r\n123\r\n"),
            ("\r\n\r\nv=0\r\no=- 1 1 IN IP4 h\r\n", "\r\n\r\nv=0\r\no=- 1 1 IN IP4 h\r\n"),
        ] {
            assert_eq!(redacted(text, false), left);
        }
    }

    #[test]
    fn what_may_be_the_rest_of_a_credential_goes() {
        for (text, left) in [
            ("9f\", qop=auth\r\nVia: a\r\n", "xxxxxxxxxxxxx\r\nVia: a\r\n"),
            ("\n 9f\"\r\nVia: a\r\n", "\nxxxx\r\nVia: a\r\n"),
            ("9f", "xx"),
            ("REGISTER sip:a SIP/2.0\r\n", "REGISTER sip:a SIP/2.0\r\n"),
            ("\r\n\r\nSIP/2.0 200 OK\r\n", "\r\n\r\nSIP/2.0 200 OK\r\n"),
            ("GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n"),
            ("From: <sip:a>\r\n", "From: <sip:a>\r\n"),
            ("\r\n\r\nv=0\r\n", "\r\n\r\nv=0\r\n"),
            ("\r\n\r\n5", "\r\n\r\nx"),
            ("=5\r\nDuration=160\r\n", "xx\r\nxxxxxxxxxxxx\r\n"),
            ("pto:1 AES inline:ab\r\na=x\r\n", "xxxxxxxxxxxxxxxxxxx\r\na=x\r\n"),
            ("\u{16}\u{3}\u{1}\u{2}\u{0}abc", "\u{16}\u{3}\u{1}\u{2}\u{0}abc"),
        ] {
            assert_eq!(redacted(text, true), left);
        }
    }
}
