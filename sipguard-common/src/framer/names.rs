//! Header names that the framer knows (RFC 3261 sections 7.3.3 and 20), and buckets to count all names.

use super::NAME_BUCKETS;
use super::value::HEAD;
use super::window::Window;
use super::words::{first_bit, first_bytes, fold, low_bits};

pub(super) const OTHER: u8 = 0;
pub(super) const VIA: u8 = 1;
pub(super) const FROM: u8 = 2;
pub(super) const TO: u8 = 3;
pub(super) const CALL_ID: u8 = 4;
pub(super) const CSEQ: u8 = 5;
pub(super) const CONTENT_LENGTH: u8 = 6;
pub(super) const MAX_FORWARDS: u8 = 7;
pub(super) const EXPIRES: u8 = 8;
pub(super) const USER_AGENT: u8 = 9;
/// Route, Record-Route, Path, History-Info and P-Associated-URI: lists that may be long. Names from here on, which is also Contact, are not counted.
pub(super) const LIST: u8 = 10;
pub(super) const CONTACT: u8 = 11;
/// Content_Length, which Kamailio and OpenSIPS take for Content-Length where they look for the end of a message on a stream.
pub(super) const CONTENT_UNDERSCORE_LENGTH: u8 = 12;

/// The bit of a name in `Stream::seen`.
#[inline(always)]
pub(super) const fn bit(name: u8) -> u16 {
    1 << name
}

/// Mandatory in every message (RFC 3261 section 8.1.1).
pub(super) const MANDATORY: u16 = bit(VIA) | bit(FROM) | bit(TO) | bit(CALL_ID) | bit(CSEQ);
/// These come once.
pub(super) const SINGLETONS: u16 = bit(FROM) | bit(TO) | bit(CALL_ID) | bit(CSEQ);
/// The value of these must not be empty.
pub(super) const VALUED: u16 = MANDATORY | bit(CONTENT_LENGTH) | bit(MAX_FORWARDS) | bit(EXPIRES);

/// Whether it is of the names whose lines parsers keep in buffers of a fixed size.
#[inline(always)]
pub(super) const fn is_kept(name: u8) -> bool {
    bit(name) & (MANDATORY | bit(CONTACT) | bit(CONTENT_LENGTH)) != 0
}

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

/// A known name, as [`identify`] gets it.
#[derive(Clone, Copy)]
struct NameEntry {
    low: u64,
    high: u64,
    name: u8,
}

const fn entry(low: u64, high: u64, name: u8) -> NameEntry {
    NameEntry { low, high, name }
}

const fn short(text: &[u8; 8], name: u8) -> NameEntry {
    entry(word(text), 0, name)
}

const NAMES: [NameEntry; 22] = [
    short(b"via\0\0\0\0\0", VIA),
    short(b"v\0\0\0\0\0\0\0", VIA),
    short(b"from\0\0\0\0", FROM),
    short(b"f\0\0\0\0\0\0\0", FROM),
    short(b"to\0\0\0\0\0\0", TO),
    short(b"t\0\0\0\0\0\0\0", TO),
    short(b"call-id\0", CALL_ID),
    short(b"i\0\0\0\0\0\0\0", CALL_ID),
    short(b"cseq\0\0\0\0", CSEQ),
    short(b"l\0\0\0\0\0\0\0", CONTENT_LENGTH),
    short(b"expires\0", EXPIRES),
    short(b"contact\0", CONTACT),
    short(b"m\0\0\0\0\0\0\0", CONTACT),
    short(b"route\0\0\0", LIST),
    short(b"path\0\0\0\0", LIST),
    entry(CONTENT, LENGTH, CONTENT_LENGTH),
    entry(CONTENT_UNDERSCORE, LENGTH, CONTENT_UNDERSCORE_LENGTH),
    entry(HISTORY, INFO, LIST),
    entry(P_ASSOCIATED_URI, LONG_NAME, LIST),
    entry(MAX_FORW, ARDS, MAX_FORWARDS),
    entry(RECORD, RECORD_ROUTE, LIST),
    entry(USER_AGE, NT, USER_AGENT),
];

/// Places that a name is looked up in.
const SLOTS: usize = 2 * NAME_BUCKETS;

/// The known names by their [`slot`]. Each has one of its own.
static BY_SLOT: [NameEntry; SLOTS] = {
    let mut slots = [entry(0, 0, OTHER); SLOTS];
    let mut k = 0;
    while k < NAMES.len() {
        let slot = &mut slots[slot(NAMES[k].low, NAMES[k].high)];
        assert!(slot.name == OTHER, "two names have one slot: choose another multiplier");
        *slot = NAMES[k];
        k += 1;
    }
    slots
};

/// Multiplicative hash of a name, with a multiplier for which no two known names collide, and the 18 names that come most often are in buckets of their own.
#[inline(always)]
const fn slot(low: u64, high: u64) -> usize {
    ((low ^ high.rotate_left(23)).wrapping_mul(0xf8e3_16da_d662_f0e5) >> 58) as usize
}

/// The name whose first 16 bytes, folded and zero padded, these words are; of longer names the digest and [`LONG_NAME`].
#[inline(always)]
pub(super) fn identify(low: u64, high: u64) -> u8 {
    let known = &BY_SLOT[slot(low, high)];
    if known.low == low && known.high == high { known.name } else { OTHER }
}

const CONTENT: u64 = word(b"content-");
/// With the underscore as [`fold`] leaves it.
const CONTENT_UNDERSCORE: u64 = word(b"content\x7f");
const LENGTH: u64 = word(b"length\0\0");
const HISTORY: u64 = word(b"history-");
const INFO: u64 = word(b"info\0\0\0\0");
const P_ASSOCIATED_URI: u64 = mixed(word(b"p-associ"), word(b"ated-uri"));
const MAX_FORW: u64 = word(b"max-forw");
const ARDS: u64 = word(b"ards\0\0\0\0");
const RECORD: u64 = word(b"record-r");
const RECORD_ROUTE: u64 = word(b"oute\0\0\0\0");
const USER_AGE: u64 = word(b"user-age");
const NT: u64 = word(b"nt\0\0\0\0\0\0");

/// The second word of a name of 16 bytes or more, whose first is its digest.
pub(super) const LONG_NAME: u64 = u64::MAX;

/// Bucket that a name of up to 16 bytes is counted in. Two names may share a bucket; the limit is large enough for that.
#[inline(always)]
pub(super) const fn bucket(low: u64, high: u64) -> usize {
    slot(low, high) / 2
}

/// Bucket, below 32, that a header name of up to 63 bytes is counted in.
#[must_use]
pub fn name_bucket(name: &[u8]) -> usize {
    let mut buffer = super::Buffer::NEW;
    buffer.put(0, name);
    let len = name.len() as u32;
    if len > 15 {
        return bucket(digest(&buffer, 0, len, true), LONG_NAME);
    }
    bucket(first_bytes(fold(buffer.word(0)), len), first_bytes(fold(buffer.word(8)), len.saturating_sub(8)))
}

/// Up to 63 bytes of a name or method in one word: the first eight as they are, or mixed with the others.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn digest<W: Window>(window: &W, at: u32, len: u32, folded: bool) -> u64 {
    let end = if len < HEAD { len } else { HEAD };
    let (mut mixed, mut k) = (0, 0);
    while k < end {
        let word = window.word(at + k);
        let word = first_bytes(if folded { fold(word) } else { word }, len - k);
        mixed = if k == 0 { word } else { self::mixed(mixed, word) };
        k += 8;
    }
    mixed
}

/// Whether the line of `len` bytes at `head` begins, behind white space, with Content-Length or `l` and a colon. Kamailio and OpenSIPS look for that in every line of a
/// stream, also in the start line and in lines that go on with another. `true` where the first 64 bytes don't tell. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn looks_like_length<W: Window>(window: &W, head: u32, len: u32) -> bool {
    let seen = low_bits(len) & !window.blanks(head, len);
    if seen == 0 {
        return len > HEAD;
    }
    let first = first_bit(seen);
    if first > HEAD - 16 && len > HEAD {
        return true;
    }
    let (low, high) = (fold(window.word(head + first)), fold(window.word(head + first + 8)));
    let name = if low as u8 == b'l' {
        1
    } else if matches!(low, CONTENT | CONTENT_UNDERSCORE) && first_bytes(high, 6) == LENGTH {
        14
    } else {
        return false;
    };
    let behind = seen & !low_bits(first + name);
    if behind == 0 { len > HEAD } else { window.byte(head + first_bit(behind)) == b':' }
}

/// One more word in a digest.
#[inline(always)]
pub(super) const fn mixed(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framer::Buffer;

    fn name(text: &str) -> (u64, u64) {
        let mut buffer = Buffer::NEW;
        buffer.put(0, text.as_bytes());
        let len = text.len() as u32;
        let low = first_bytes(fold(buffer.word(0)), len);
        (low, first_bytes(fold(buffer.word(8)), len.saturating_sub(8)))
    }

    #[test]
    fn known_names() {
        for (text, id) in [
            ("Via", VIA),
            ("v", VIA),
            ("FROM", FROM),
            ("f", FROM),
            ("To", TO),
            ("T", TO),
            ("Call-ID", CALL_ID),
            ("i", CALL_ID),
            ("CSeq", CSEQ),
            ("Content-Length", CONTENT_LENGTH),
            ("l", CONTENT_LENGTH),
            ("max-forwards", MAX_FORWARDS),
            ("Expires", EXPIRES),
            ("Contact", CONTACT),
            ("m", CONTACT),
            ("User-Agent", USER_AGENT),
            ("User-Agen", OTHER),
            ("User-Agents", OTHER),
            ("Route", LIST),
            ("Record-Route", LIST),
            ("Path", LIST),
            ("History-Info", LIST),
            ("Content_length", CONTENT_UNDERSCORE_LENGTH),
            ("Accept", OTHER),
            ("Content-Type", OTHER),
            ("Vi", OTHER),
            ("Via2", OTHER),
            ("Content-Length2", OTHER),
        ] {
            let (low, high) = name(text);
            assert_eq!(identify(low, high), id, "{text}");
        }
    }

    #[test]
    fn ordinary_names_spread_over_the_buckets() {
        let names = [
            "Accept",
            "Allow",
            "Supported",
            "User-Agent",
            "Subject",
            "Require",
            "Event",
            "Date",
            "Privacy",
            "Reason",
            "Session-Expires",
            "Min-SE",
            "Content-Type",
            "Authorization",
            "P-Preferred-Id",
            "Server",
            "Warning",
        ];
        let mut taken = [0; NAME_BUCKETS];
        for text in names {
            let (low, high) = name(text);
            taken[bucket(low, high)] += 1;
        }
        assert!(taken.iter().all(|count| *count <= 2), "{taken:?}");
        let often = [
            "Content-Type",
            "Content-Length",
            "User-Agent",
            "Accept",
            "Allow",
            "Supported",
            "Expires",
            "Authorization",
            "Event",
            "Require",
            "From",
            "To",
            "Call-ID",
            "CSeq",
            "Max-Forwards",
            "Session-Expires",
            "Min-SE",
            "Proxy-Authorization",
        ];
        let mut buckets = often.map(|text| name_bucket(text.as_bytes()));
        buckets.sort_unstable();
        assert!(buckets.windows(2).all(|pair| pair[0] != pair[1]), "{buckets:?}");
    }

    #[test]
    fn a_digest_depends_on_every_byte() {
        let mut buffer = Buffer::NEW;
        let text = *b"a-method-of-forty-bytes-that-is-very-long";
        buffer.put(0, &text);
        let whole = digest(&buffer, 0, 40, false);
        for k in 0..40 {
            let mut other = text;
            other[k] ^= 1;
            buffer.put(0, &other);
            assert_ne!(digest(&buffer, 0, 40, false), whole, "byte {k}");
        }
    }
}
