//! Credentials in what is shown and kept of packets: overwritten by `x`, in their place, so that lengths and line ends stay as they were.
//!
//! A packet is looked at alone: which segment came before it nobody knows. So what may be the rest of a credential counts as one. Too
//! much is overwritten rather than too little; control bytes and bytes above 0x7e never are, for they are what is looked for.

use std::ops::Range;

use sipguard_common::framer::{leading_line_ends, plausible_record, plausible_start};

use crate::header::Header;

/// What a header with credentials is called, or ends in. `Proxy-Authorization` ends in it too.
const NAME: &[u8] = b"authorization";
/// Schemes, where the name of their header is damaged.
const SCHEMES: [&[u8]; 3] = [b"digest", b"basic", b"bearer"];
/// Parameters of credentials, wherever they stand. `nonce` is the end of `cnonce` and `nextnonce`, `response` has none before it.
const PARAMETERS: [&[u8]; 7] =
    [b"response", b"nonce", b"opaque", b"rspauth", b"auts", b"password", b"username"];
/// Beginnings of header lines that no rest of a credential looks like.
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
const IP_HEADER: usize = 14;

/// A frame without its credentials. `header` is what its headers say.
#[must_use]
pub fn frame(frame: &[u8], header: Option<&Header>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (begin, rest_of_one) = match header {
        // All behind the header, also what is beyond the length that IP gives it.
        Some(header) if !header.payload.is_empty() => (header.payload.start, header.tcp),
        // The rest of a datagram.
        Some(header) if header.fragment.is_some() => (behind_ip(&frame), true),
        // Other protocols quote packets.
        _ => (IP_HEADER, false),
    };
    if let Some(payload) = frame.get_mut(begin..) {
        overwrite(payload, rest_of_one);
    }
    frame
}

/// Where a fragment's part of the datagram begins.
fn behind_ip(frame: &[u8]) -> usize {
    let kind = |at: usize| frame.get(at..at + 2).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    let mut at = 12;
    while matches!(kind(at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    match (kind(at), frame.get(at + 2)) {
        (Some(0x0800), Some(first)) => at + 2 + usize::from(first & 15) * 4,
        // Whatever extension headers there are holds nothing to be read.
        _ => at + 2 + 40,
    }
}

/// Overwrites credentials in a payload. `may_go_on`: it may begin in the middle of a message.
pub fn overwrite(payload: &mut [u8], may_go_on: bool) {
    let mut secret: Vec<Range<usize>> = Vec::new();
    if may_go_on && let Some(end) = rest(payload) {
        secret.push(0..end);
    }
    for at in 0..payload.len() {
        secret.extend(found(payload, at));
    }
    for range in secret {
        for byte in &mut payload[range] {
            if matches!(byte, b' '..=b'~') {
                *byte = b'x';
            }
        }
    }
}

/// Until where a payload may be the rest of a credential that began before it.
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

/// Whether something begins here that is no credential.
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

/// A secret whose mark begins at `at`.
fn found(payload: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &payload[at..];
    if begins(rest, NAME) {
        let mut begin = at + NAME.len();
        begin += payload[begin..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b':')).count();
        // The scheme may stay, and dissectors stumble where there is none.
        if let Some(scheme) = SCHEMES.iter().find(|scheme| is_word(payload, begin, scheme)) {
            begin += scheme.len() + 1;
        }
        return Some(begin..end_of_value(payload, begin));
    }
    if let Some(scheme) = SCHEMES.iter().find(|scheme| is_word(payload, at, scheme)) {
        let before = payload[..at].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t'));
        let begin = at + scheme.len() + 1;
        return (before == Some(&b':')).then(|| begin..end_of_value(payload, begin));
    }
    if let Some(name) = PARAMETERS.iter().find(|name| begins(rest, name)) {
        return parameter(payload, at + name.len());
    }
    if begins(rest, b"sip:") || begins(rest, b"sips:") {
        return password(payload, at + rest.iter().position(|byte| *byte == b':')? + 1);
    }
    None
}

/// Value of a parameter behind its name.
fn parameter(payload: &[u8], at: usize) -> Option<Range<usize>> {
    let blank = |at: usize| {
        payload[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
    };
    let sign = at + blank(at);
    if payload.get(sign) != Some(&b'=') {
        return None;
    }
    let begin = sign + 1 + blank(sign + 1);
    if payload.get(begin) == Some(&b'"') {
        return Some(begin + 1..end_of_quotes(payload, begin + 1));
    }
    let ends = |byte: &u8| matches!(byte, b',' | b';' | b' ' | b'\t' | b'\r' | b'\n' | b'>');
    let end = payload[begin..].iter().position(ends).map_or(payload.len(), |len| begin + len);
    Some(begin..end)
}

/// Where quotes end; where they do not, the value that they stand in does.
fn end_of_quotes(payload: &[u8], begin: usize) -> usize {
    let mut at = begin;
    while let Some(byte) = payload.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            b'\n' if matches!(payload.get(at + 1), Some(b'\r' | b'\n')) => break,
            _ => at += 1,
        }
    }
    end_of_value(payload, begin)
}

/// Password of a SIP URI, behind its scheme.
fn password(payload: &[u8], begin: usize) -> Option<Range<usize>> {
    let user = payload.get(begin..)?;
    let end =
        begin + user.iter().position(|byte| matches!(byte, b'@' | b'>' | b'"' | b' ' | b'\r' | b'\n'))?;
    if payload[end] != b'@' {
        return None;
    }
    let colon = begin + payload[begin..end].iter().position(|byte| *byte == b':')?;
    Some(colon + 1..end)
}

/// Where the value of a header ends that goes on at `at`: before a line that is another header or empty, not before one that is folded
/// or makes no sense.
fn end_of_value(payload: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(len) =
        payload[at.min(payload.len())..].iter().position(|byte| matches!(byte, b'\r' | b'\n'))
    {
        let end = at + len;
        let next = end + if payload[end..].starts_with(b"\r\n") { 2 } else { 1 };
        let line = &payload[next..];
        if line.first().is_none_or(|byte| matches!(byte, b'\r' | b'\n')) || is_header(line) || is_start(line)
        {
            return end;
        }
        at = next;
    }
    payload.len()
}

/// Whether a line has a name and a colon, or is one of SDP.
fn is_header(line: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    let name = line.iter().take_while(|byte| token(byte)).count();
    let colon = line[name..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    (name > 0 && colon == Some(&b':')) || (name == 1 && line.get(1) == Some(&b'='))
}

/// Whether a word, in any case, and white space stand at `at`.
fn is_word(payload: &[u8], at: usize, word: &[u8]) -> bool {
    let end = payload.get(at + word.len());
    begins(&payload[at..], word) && matches!(end, Some(b' ' | b'\t' | b'\r' | b'\n'))
}

/// Whether `bytes` begin with a word of small letters, in any case.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str, may_go_on: bool) -> String {
        let mut bytes = text.as_bytes().to_vec();
        overwrite(&mut bytes, may_go_on);
        String::from_utf8(bytes).unwrap()
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
            ("Authorization: a\r\rb\r\n\r\nb", "Authorization: x\r\rb\r\n\r\nb"),
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
            ("\u{16}\u{3}\u{1}\u{2}\u{0}abc", "\u{16}\u{3}\u{1}\u{2}\u{0}abc"),
        ] {
            assert_eq!(redacted(text, true), left);
        }
    }
}
