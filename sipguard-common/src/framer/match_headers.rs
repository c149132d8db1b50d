//! Header values that rules match: SIP identities (the address of record in From and Contact) and user agents.
//!
//! If there are rules (`Limits::matched_headers`), the driver of the framer looks them up after each such line. The keys are made here, for the kernel
//! and for userspace.

use super::names::{FROM, USER_AGENT};
use super::step::{Cursor, head};
use super::value::{COMPLETE, HEAD, OPEN_TEXT};
use super::window::{CHUNK, SAVED_HEAD, Window};
use super::words::{escaped, first_bit, fold, low_bits, lower, within};
use super::{Buffer, FLAG_REQUEST, Limits, Stream};
use crate::Reason;

/// Sets of header names, one bit each, for [`Limits::matched_headers`].
pub mod matched_headers {
    use super::super::names::{CONTACT, FROM, USER_AGENT, bit};

    /// From and Contact, which have SIP identities.
    pub const IDENTITIES: u32 = (bit(FROM) | bit(CONTACT)) as u32;
    /// User-Agent.
    pub const USER_AGENTS: u32 = bit(USER_AGENT) as u32;
}

/// Bytes of a key.
pub const MATCH_KEY_BYTES: usize = 64;
/// Key of a rule: bytes, zero padded; the first in the lowest bits of the first word.
pub type MatchKey = [u64; MATCH_KEY_BYTES / 8];
/// Most possible starts of a URI in one line that are matched. A line with more in 64 bytes can only be meant to hide one, and is stopped.
const URIS: usize = 5;

/// A header line with the framer's state about it.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLine {
    /// Offset of the line in the window.
    head: u32,
    /// Length of the line in bytes.
    len: u32,
    /// Number of the header's name.
    name: u8,
    /// Whether the value had not begun when the line before ended.
    open: bool,
    /// Whether it is a request's.
    request: bool,
}

impl HeaderLine {
    /// The line that was checked last.
    #[inline(always)]
    pub fn of(stream: &Stream, cursor: &Cursor) -> HeaderLine {
        HeaderLine {
            head: head(cursor.judged_line),
            len: cursor.stop.wrapping_sub(cursor.judged_line),
            name: stream.last,
            open: stream.open == OPEN_TEXT,
            request: stream.flags & FLAG_REQUEST != 0,
        }
    }

    /// How many bytes of the line are visible: all, or the first 64 where it came in several windows.
    #[inline(always)]
    const fn seen(&self) -> u32 {
        if self.head == SAVED_HEAD && self.len > HEAD { HEAD } else { self.len }
    }
}

/// Stores the line that was checked last, and whether it is to be matched. Without a branch, which would double the verifier's work behind it.
#[inline(always)]
pub(super) fn mark_line(stream: &Stream, cursor: &mut Cursor, limits: &Limits) {
    cursor.judged_line = cursor.line;
    cursor.match_due = limits.matched_headers >> (stream.last & 31) & 1;
}

/// Applies the outcome of matching a line. `Some` is the reason to stop the message.
#[inline(always)]
pub fn apply_match(stream: &mut Stream, outcome: MatchOutcome) -> Option<Reason> {
    if stream.open == OPEN_TEXT {
        stream.open = COMPLETE;
    }
    match outcome {
        MatchOutcome::Passes => None,
        MatchOutcome::Blank => {
            stream.open = OPEN_TEXT;
            None
        }
        MatchOutcome::Stops(reason) => Some(reason),
    }
}

/// The outcome of matching a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// No rule stops it.
    Passes,
    /// Not decided: the value has not begun when its line ends.
    Blank,
    /// A rule stops the message.
    Stops(Reason),
}

/// A value to match, which begins at an offset of the line, below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchSubject {
    /// Perhaps a URI; [`identity`] decides.
    Uri(u32),
    /// A user agent.
    UserAgent(u32),
}

/// Matches a header line against rules. `find` returns the reason to stop a request for a value.
#[inline(always)]
pub fn match_line<W: Window>(
    window: &W,
    header: &HeaderLine,
    mut find: impl FnMut(MatchSubject) -> Option<Reason>,
) -> MatchOutcome {
    let goes_on = matches!(window.byte(header.head), b' ' | b'\t');
    let is_agent = header.name == USER_AGENT;
    // A user agent is matched in the line in which its value begins.
    if !header.request || header.len == 0 || is_agent && goes_on && !header.open {
        return MatchOutcome::Passes;
    }
    let solid = solid(window, header, goes_on);
    if solid == 0 {
        return if is_agent && header.len <= HEAD { MatchOutcome::Blank } else { MatchOutcome::Passes };
    }
    if is_agent {
        return find(MatchSubject::UserAgent(first_bit(solid)))
            .map_or(MatchOutcome::Passes, MatchOutcome::Stops);
    }
    let mut places = uris(window, header, solid);
    for _ in 0..URIS {
        if places == 0 {
            break;
        }
        if let Some(reason) = find(MatchSubject::Uri(first_bit(places))) {
            return MatchOutcome::Stops(reason);
        }
        places &= places - 1;
    }
    if places == 0 { MatchOutcome::Passes } else { MatchOutcome::Stops(Reason::BlockedIdentity) }
}

/// Which of the first 64 bytes of the line are of the value and no white space. A continuation line is all value.
#[inline(always)]
fn solid<W: Window>(window: &W, header: &HeaderLine, goes_on: bool) -> u64 {
    let solid = low_bits(header.len) & !window.blanks(header.head, header.len);
    if goes_on {
        return solid;
    }
    let colons = window.equal(header.head, header.len, b':');
    solid & !(colons ^ colons.wrapping_sub(1))
}

/// The key of the user agent that begins at offset `at` of the line (below 64): its first 64 bytes, with ASCII letters in lower case. Returns
/// how many there are.
#[inline(always)]
pub fn user_agent<W: Window>(window: &W, header: &HeaderLine, at: u32, key: &mut MatchKey) -> u32 {
    let left = header.seen().wrapping_sub(at);
    let count = if left < HEAD { left } else { HEAD };
    put(window, header.head + at, low_bits(count), u64::MAX, key);
    count
}

/// The key of a SIP URI without a header line, and its length in bytes; `None` where [`identity`] returns 0.
#[must_use]
pub fn identity_of(uri: &str) -> Option<(MatchKey, u32)> {
    let mut buffer = Buffer::NEW;
    let len = u32::try_from(uri.len()).ok().filter(|len| *len < CHUNK)?;
    buffer.put(0, uri.as_bytes());
    let header = HeaderLine { head: 0, len, name: FROM, open: false, request: true };
    let mut key = MatchKey::default();
    let bytes = identity(&buffer, &header, 0, &mut key);
    (bytes != 0).then_some((key, bytes))
}

/// Where URIs may begin in the first 64 bytes of the line, one bit each (RFC 3261 section 20.10): behind a `<` outside of quoted
/// strings, and where the value begins. A separate frame in the kernel, like the others here.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn uris<W: Window>(window: &W, header: &HeaderLine, solid: u64) -> u64 {
    let mut angles = window.equal(header.head, header.len, b'<') & solid;
    let quotes = window.equal(header.head, header.len, b'"') & solid;
    let signs = angles | quotes;
    if quotes != 0 {
        angles &= !within(quotes & !escaped(window.equal(header.head, header.len, b'\\') & solid));
    }
    // A value that begins with one of the two signs begins with no URI.
    angles << 1 | solid & solid.wrapping_neg() & !signs
}

/// The key of the SIP URI that begins at offset `at` of the line (below 64): `user@host`, the host in lower case (RFC 3261 section 19.1.4), without
/// scheme, port, parameters and headers. Returns its length in bytes; 0 for anything that is not a SIP URI with a user, has a password, is longer
/// than 63 bytes, or is not completely visible.
#[inline(always)]
pub fn identity<W: Window>(window: &W, header: &HeaderLine, at: u32, key: &mut MatchKey) -> u32 {
    let scheme = fold(window.word(header.head + at));
    let colon = if scheme as u32 == u32::from_le_bytes(*b"sip:") {
        4
    } else if scheme & 0xff_ffff_ffff == u64::from_le_bytes(*b"sips:\0\0\0") {
        5
    } else {
        return 0;
    };
    let start = at + colon;
    let seen = header.seen();
    if start >= seen {
        return 0;
    }
    let left = seen - start;
    // Whether the line's end ends the URI.
    let last = if left < HEAD && left == header.len - start { 1 << left } else { 0 };
    let line = low_bits(left);
    let start = header.head + start;
    // An `@` that is not escaped separates user and host (RFC 3261 section 25.1).
    let signs = window.equal(start, left, b'@') & line;
    if signs == 0 {
        return 0;
    }
    let sign = first_bit(signs);
    let host = !low_bits(sign + 1);
    let mut end = window.host_ends(start, left) & line;
    let user = end & low_bits(sign);
    if user != 0 && user & !window.of_users(start, left) != 0 {
        return 0;
    }
    end &= host;
    if window.byte(start + sign + 1) == b'[' {
        // RFC 3261 section 25.1, IPv6reference.
        end = (window.equal(start, left, b']') & line & host) << 1;
    } else {
        end |= last;
    }
    if end == 0 {
        return 0;
    }
    let end = first_bit(end);
    if sign == 0 || end <= sign + 1 {
        return 0;
    }
    put(window, start, low_bits(end), host, key);
    end
}

/// Puts the bytes at `at` that `keep` has into a key, those that `folded` has in lower case. A function of its own in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn put<W: Window>(window: &W, at: u32, keep: u64, folded: u64, key: &mut MatchKey) {
    for k in 0..8u32 {
        let word = window.word(at + 8 * k);
        let folded = bytes_of(folded >> (8 * k));
        key[k as usize] = (word & !folded | lower(word) & folded) & bytes_of(keep >> (8 * k));
    }
}

/// All ones in each byte whose bit is set, by the lowest eight bits.
#[inline(always)]
const fn bytes_of(bits: u64) -> u64 {
    let spread = (bits & 0xff).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    (((spread + 0x7f7f_7f7f_7f7f_7f7f) & 0x8080_8080_8080_8080) >> 7).wrapping_mul(0xff)
}
