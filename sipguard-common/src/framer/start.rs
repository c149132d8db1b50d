//! What the start of a message looks like, for connections that are picked up mid-stream.

use super::methods;
use super::tls::is_record;
use super::words::{below, equal, first_bytes, fold, gather};

/// How many of the first 24 bytes of a segment (as three words), from the front, are CR or LF: keep-alives, or the end of a line
/// that began earlier.
#[must_use]
#[inline(always)]
pub fn leading_line_ends(head: [u64; 3]) -> u32 {
    let mut ends = 0;
    for (k, word) in head.iter().enumerate() {
        ends |= gather(equal(*word, b'\r') | equal(*word, b'\n')) << (8 * k);
    }
    (!ends).trailing_zeros()
}

/// Whether the first 24 bytes of a segment (zero padded, as three words) look like the start of a message: `SIP/2.0 `, or a
/// method of at most 12 upper-case letters, a space and a `sip:`, `sips:` or `tel:` URI.
#[must_use]
#[inline(always)]
pub fn plausible_start(head: [u64; 3]) -> bool {
    may_become_start(head, 24)
}

/// Whether a segment of `len` bytes, of which the first 24 are `head` (zero padded), is a [`plausible_start`], or the first bytes of one with a
/// known method: a peer with a small window gets a message in pieces of any size, and clients of other protocols may send a word alone.
#[must_use]
#[inline(always)]
pub fn may_become_start(head: [u64; 3], len: u32) -> bool {
    let version = fold(head[0]) ^ u64::from_le_bytes(*b"sip/2.0 ");
    if first_bytes(version, len) == 0 {
        return true;
    }
    let mut spaces = 0;
    let mut letters = 0;
    for (k, word) in head.iter().enumerate() {
        spaces |= gather(equal(*word, b' ')) << (8 * k);
        letters |= gather(below(*word, b'Z' + 1) & !below(*word, b'A')) << (8 * k);
    }
    let method = (spaces | 1 << 63).trailing_zeros();
    if method >= len {
        return methods::begins(head[0], len, false);
    }
    let before = (1u64 << method) - 1;
    if !(3..=12).contains(&method) || letters & before != before {
        return false;
    }
    // The four bytes behind the space, across two words.
    let at = method + 1;
    let (index, shift) = (at / 8, at % 8 * 8);
    let (low, high) = if index == 0 { (head[0], head[1]) } else { (head[1], head[2]) };
    let scheme =
        fold(first_bytes(low >> shift | if shift == 0 { 0 } else { high << (64 - shift) }, 4)) as u32;
    let known = len - at;
    if known < 4 && !methods::begins(head[0], method, true) {
        return false;
    }
    let is = |name: &[u8; 4]| first_bytes(u64::from(scheme ^ u32::from_le_bytes(*name)), known) == 0;
    is(b"sip:") || is(b"sips") || is(b"tel:")
}

/// Whether the first bytes of a segment (zero padded, as three words) look like the header of a TLS record.
#[must_use]
#[inline(always)]
pub fn plausible_record(head: [u64; 3]) -> bool {
    let [kind, major, minor, high, low, ..] = head[0].to_le_bytes();
    is_record([kind, major, minor, high, low])
}

/// Whether a segment of `len` bytes is a [`plausible_record`], or the first bytes of a handshake record.
#[must_use]
#[inline(always)]
pub fn may_become_record(head: [u64; 3], len: u32) -> bool {
    // A handshake record, major version 3.
    plausible_record(head) || len < 5 && first_bytes(head[0] ^ 0x0316, if len < 2 { len } else { 2 }) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> [u64; 3] {
        let mut bytes = [0; 24];
        let len = text.len().min(24);
        bytes[..len].copy_from_slice(&text[..len]);
        [0, 8, 16].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()))
    }

    #[test]
    fn starts() {
        for text in [
            "INVITE sip:a@b SIP/2.0",
            "ACK sip:a",
            "BYE sips:b",
            "SUBSCRIBE sip:x",
            "REGISTER SIP:h",
            "SIP/2.0 200 OK",
            "OPTIONS tel:+1",
            "sip/2.0 100 T",
        ] {
            assert!(plausible_start(words(text.as_bytes())), "{text}");
        }
        for text in [
            "Via: SIP/2.0/TCP",
            "v=0\r\no=- 1",
            "",
            "IN",
            "a=rtpmap:0 PCMU/8000",
            " sip:",
            "HELLO WORLD",
            "GET / HTTP/1.1",
            "m=audio 4000 RTP/AVP 0",
            "invite sip:a@b",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ] {
            assert!(!plausible_start(words(text.as_bytes())), "{text}");
        }
    }

    #[test]
    fn pieces_of_starts() {
        for text in ["INVITE sip:a@b", "SIP/2.0 200 OK", "SUBSCRIBE sips:x", "ACK tel:+1234567890"] {
            for len in 1..=text.len() {
                let piece = &text.as_bytes()[..len];
                assert!(may_become_start(words(piece), len as u32), "{}", piece.escape_ascii());
            }
        }
        for text in [
            "EHLO pbx",
            "GET /",
            "QUIT\r\n",
            "USER a\r\n",
            "OPTIONS *",
            "a",
            "SIP/2.1",
            "AB ",
            "ABCDEFGHIJKLM",
            "\x16",
        ] {
            assert!(!may_become_start(words(text.as_bytes()), text.len() as u32), "{text}");
        }
        let hello = [22, 3, 1, 2, 0, 1];
        for len in 1..=hello.len() {
            assert!(may_become_record(words(&hello[..len]), len as u32), "{len}");
        }
        for other in [&[22, 2][..], &[23], &[0], &[22, 3, 1, 0xff, 0xff]] {
            assert!(!may_become_record(words(other), other.len() as u32), "{other:?}");
        }
    }

    #[test]
    fn line_ends_are_counted_from_the_front() {
        for (text, count) in [
            ("", 0),
            ("x\r\n", 0),
            ("\r\n\r\n", 4),
            ("\n\rINVITE", 2),
            ("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 24),
        ] {
            assert_eq!(leading_line_ends(words(text.as_bytes())), count, "{text:?}");
        }
    }
}
