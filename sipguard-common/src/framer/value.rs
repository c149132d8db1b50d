//! Values of the few headers that hold numbers: Content-Length, CSeq, Max-Forwards, Expires and Via.

use super::line::{digits_value, short_value};
use super::names::{self, CALL_ID, CONTENT_LENGTH, CSEQ, EXPIRES, FROM, MAX_FORWARDS, TO, VIA, digest};
use super::scan::LONG_TTL;
use super::window::Window;
use super::words::{first_bit, first_bytes, low_bits, not_digits};
use super::{FLAG_DATAGRAM, FLAG_REQUEST, Limits, Stream, checks};
use crate::Reason;

/// Nothing is missing.
pub(super) const COMPLETE: u8 = 0;
/// The value has not begun; the next line may continue it.
pub(super) const OPEN: u8 = 1;
/// The number of a CSeq has come, its method has not.
const OPEN_METHOD: u8 = 2;
/// The value has not begun, and need not.
pub(super) const OPEN_TEXT: u8 = 3;

/// A value: the bytes from `from` to `len` of the line whose first bytes are at `head`.
#[derive(Clone, Copy)]
pub(super) struct HeaderValue {
    pub head: u32,
    pub from: u32,
    pub len: u32,
}

/// Bytes of a line that are visible from its start.
pub(super) const HEAD: u32 = 64;
/// Most digits of a number, leading zeros counted.
const DIGITS: u32 = 16;
/// Content-Length values from here on are refused as invalid (they can overflow signed 32-bit parsers).
const LENGTH_END: u64 = 1_000_000_000;
/// RFC 3261 section 8.1.1.5 tells who sends a request to stay below 2**31. FreeSWITCH passes that after 249 days, and every phone echoes it.
const CSEQ_END: u64 = 1 << 31;
/// Where 32 bits end (RFC 3261 sections 20.16, 20.19).
const WORD_END: u64 = 1 << 32;

/// Checks the value of a known header, or its part in a continuation line. `stream.last` is the header's name.
#[inline(always)]
pub(super) fn check<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: HeaderValue,
    limits: &Limits,
) -> Result<(), Reason> {
    match stream.last {
        CONTENT_LENGTH => content_length(stream, window, value, limits),
        CSEQ => cseq(stream, window, value, limits),
        FROM | TO | CALL_ID if stream.open == OPEN && begins_at_once(window, &value) => {
            stream.open = COMPLETE;
            Ok(())
        }
        VIA | FROM | TO | CALL_ID | MAX_FORWARDS | EXPIRES if stream.open == OPEN => {
            rest(stream, window, &value, limits).map_or(Ok(()), Err)
        }
        _ => Ok(()),
    }
}

/// The value of a known header whose value has not begun, but for Content-Length and CSeq. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn rest<W: Window>(stream: &mut Stream, window: &W, value: &HeaderValue, limits: &Limits) -> Option<Reason> {
    match stream.last {
        MAX_FORWARDS | EXPIRES => number(stream, window, value, limits),
        name => {
            // What is not seen of a long line is taken for text.
            if begins_at_once(window, value) || !is_blank(window, value) {
                stream.open = COMPLETE;
            }
            let faulty = name == VIA && limits.has(checks::NUMBERS) && !is_good_via(window, value);
            faulty.then_some(Reason::BadNumber)
        }
    }
}

/// Whether a text is right behind the colon, or behind one space, as nearly all are.
#[inline(always)]
fn begins_at_once<W: Window>(window: &W, value: &HeaderValue) -> bool {
    let HeaderValue { head, from, len } = *value;
    let seen = if len < HEAD { len } else { HEAD };
    let word = window.word(head + from);
    let is_text = |at: u32, byte: u64| at < seen && byte as u8 > b' ';
    is_text(from, word) || is_text(from + 1, word >> 8)
}

/// Whether a value is nothing but white space. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_blank<W: Window>(window: &W, value: &HeaderValue) -> bool {
    let HeaderValue { head, from, len } = *value;
    len <= HEAD && low_bits(len) & !low_bits(from) & !window.blanks(head, len) == 0
}

/// What a header is refused for that ends without the rest of its value.
#[inline(always)]
pub(super) fn unfinished(stream: &Stream, limits: &Limits) -> Result<(), Reason> {
    match (stream.last, stream.open) {
        (_, COMPLETE) => Ok(()),
        (CONTENT_LENGTH, _) => Err(Reason::BadContentLength),
        (_, OPEN_METHOD) if limits.has(checks::CSEQ) => Err(Reason::CseqMismatch),
        (VIA | FROM | TO | CALL_ID, _) if limits.has(checks::MANDATORY) => Err(Reason::MissingHeader),
        (VIA | FROM | TO | CALL_ID, _) => Ok(()),
        (_, OPEN) if limits.has(checks::NUMBERS) => Err(Reason::BadNumber),
        _ => Ok(()),
    }
}

/// The common case, one space and a few digits: the value, and the offset in the line behind it.
#[inline(always)]
fn plain<W: Window>(window: &W, value: HeaderValue) -> Option<(u64, u32)> {
    if value.len > HEAD {
        return None;
    }
    let mut at = value.from;
    if window.byte(value.head + at) == b' ' {
        at += 1;
    }
    let word = window.word(value.head + at);
    let behind = not_digits(word);
    if behind == 0 {
        return None;
    }
    let count = first_bit(behind) >> 3;
    if count == 0 || at + count > value.len {
        return None;
    }
    Some((digits_value(window, value.head + at, count), at + count))
}

/// RFC 3261 section 20.14: `1*DIGIT`, white space around it.
#[inline(always)]
fn content_length<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: HeaderValue,
    limits: &Limits,
) -> Result<(), Reason> {
    let number = match plain(window, value) {
        Some((number, end)) if end == value.len && stream.open == OPEN => number,
        _ => match padded_number(stream.open, window, &value) {
            // Kamailio and OpenSIPS look for the number in the line of the name alone.
            EMPTY if stream.open == OPEN && stream.flags & FLAG_DATAGRAM == 0 => {
                return Err(Reason::BadContentLength);
            }
            EMPTY => return Ok(()),
            number => number,
        },
    };
    if number >= LENGTH_END {
        return Err(Reason::BadContentLength);
    }
    let number = number as u32;
    if number > limits.body_bytes {
        return Err(Reason::BodyTooLarge);
    }
    if stream.seen & names::bit(CONTENT_LENGTH) != 0 && stream.content_length != number {
        return Err(Reason::DuplicateContentLength);
    }
    stream.seen |= names::bit(CONTENT_LENGTH);
    stream.content_length = number;
    stream.open = COMPLETE;
    Ok(())
}

/// What [`padded_number`] returns for white space alone.
const EMPTY: u64 = u64::MAX;

/// The number of a value that has other white space than one space before it, or that goes on in a continuation line;
/// [`LENGTH_END`] for anything else. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn padded_number<W: Window>(open: u8, window: &W, value: &HeaderValue) -> u64 {
    if value.len > HEAD {
        return LENGTH_END;
    }
    let solid = low_bits(value.len) & !low_bits(value.from) & !window.blanks(value.head, value.len);
    if solid == 0 {
        return EMPTY;
    }
    let first = first_bit(solid);
    let run = solid >> first;
    let count = first_bit(!run);
    if open != OPEN
        || run & run.wrapping_add(1) != 0
        || solid & !window.digits(value.head, value.len) != 0
        || count > DIGITS
    {
        return LENGTH_END;
    }
    digits_value(window, value.head + first, count)
}

/// RFC 3261 section 20.16: `1*DIGIT LWS Method`, the request's own (section 8.1.1.5).
#[inline(always)]
fn cseq<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: HeaderValue,
    limits: &Limits,
) -> Result<(), Reason> {
    if stream.open == OPEN
        && let Some((number, end)) = plain(window, value)
        && window.byte(value.head + end) == b' '
        && end + 1 < value.len
    {
        let at = end + 1;
        let len = value.len - at;
        let same = !judges_method(stream, limits) && window.byte(value.head + at) > b' '
            || len == u32::from(stream.method_bytes)
                && len <= 8
                && first_bytes(window.word(value.head + at), len) == stream.method;
        if same && number < cseq_end(limits) {
            stream.open = COMPLETE;
            return Ok(());
        }
    }
    match cseq_padded(stream, window, &value, limits) {
        None => Ok(()),
        Some(reason) => Err(reason),
    }
}

#[inline(always)]
fn cseq_end(limits: &Limits) -> u64 {
    if limits.has(checks::SENDER) { CSEQ_END } else { WORD_END }
}

#[inline(always)]
fn judges_method(stream: &Stream, limits: &Limits) -> bool {
    limits.has(checks::CSEQ) && stream.flags & FLAG_REQUEST != 0
}

/// Any other CSeq. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn cseq_padded<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: &HeaderValue,
    limits: &Limits,
) -> Option<Reason> {
    let HeaderValue { head, from, len } = *value;
    let mut solid = low_bits(len) & !low_bits(from) & !window.blanks(head, len);
    if stream.open == OPEN {
        if solid == 0 {
            return if len > HEAD && limits.has(checks::NUMBERS) { Some(Reason::BadNumber) } else { None };
        }
        let first = first_bit(solid);
        let run = (window.digits(head, len) & solid) >> first;
        let count = first_bit(!run);
        if limits.has(checks::NUMBERS)
            && (count == 0 || count > DIGITS || digits_value(window, head + first, count) >= cseq_end(limits))
        {
            return Some(Reason::BadNumber);
        }
        stream.open = OPEN_METHOD;
        let end = first + count;
        if limits.has(checks::CSEQ) && end < HEAD && solid >> end & 1 != 0 {
            return Some(Reason::CseqMismatch);
        }
        solid &= !low_bits(end);
    }
    if solid == 0 && len <= HEAD {
        return None;
    }
    stream.open = COMPLETE;
    if !judges_method(stream, limits) {
        return None;
    }
    if solid == 0 {
        return Some(Reason::CseqMismatch);
    }
    let start = first_bit(solid);
    let run = solid >> start;
    let bytes = first_bit(!run);
    let cut = start + bytes >= HEAD && len > HEAD;
    let same = bytes == u32::from(stream.method_bytes)
        && digest(window, head + start, bytes, false) == stream.method;
    if same || cut && bytes < u32::from(stream.method_bytes) { None } else { Some(Reason::CseqMismatch) }
}

/// Max-Forwards (RFC 3261 section 20.22) and Expires (section 20.19): a number of 32 bits. Expires may be a date too (RFC 2543 section 6.20).
#[inline(always)]
fn number<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: &HeaderValue,
    limits: &Limits,
) -> Option<Reason> {
    let number = match plain(window, *value) {
        Some((number, end)) if end == value.len => number,
        _ => match long_number(window, value) {
            EMPTY => return None,
            number => number,
        },
    };
    stream.open = COMPLETE;
    let mut too_large = number >= WORD_END;
    if stream.last == MAX_FORWARDS {
        let bit = names::bit(MAX_FORWARDS);
        if stream.seen & bit != 0 && u64::from(stream.hops) != number && limits.has(checks::SINGLETONS) {
            return Some(Reason::DuplicateHeader);
        }
        if !too_large {
            stream.seen |= bit;
            stream.hops = number as u32;
        }
        too_large |= limits.has(checks::MAX_FORWARDS) && number > 255;
    } else if number == DATE {
        too_large = false;
    }
    if too_large && limits.has(checks::NUMBERS) { Some(Reason::BadNumber) } else { None }
}

/// What [`long_number`] returns for a date: three letters and a comma.
const DATE: u64 = EMPTY - 1;

/// The number that a value begins with, and which white space, `;` or `,` ends; [`EMPTY`] for white space alone, [`DATE`], and [`WORD_END`] for
/// what is no number of 16 digits. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn long_number<W: Window>(window: &W, value: &HeaderValue) -> u64 {
    let HeaderValue { head, from, len } = *value;
    let solid = low_bits(len) & !low_bits(from) & !window.blanks(head, len);
    if solid == 0 {
        return if len > HEAD { WORD_END } else { EMPTY };
    }
    let first = first_bit(solid);
    let run = (solid & window.digits(head, len)) >> first;
    let count = first_bit(!run);
    if count == 0 {
        let date = first + 3 < len && window.byte(head + first + 3) == b',';
        return if date { DATE } else { WORD_END };
    }
    let end = first + count;
    let ends = end >= len || matches!(window.byte(head + end), b' ' | b'\t' | b';' | b',');
    if count > DIGITS || !ends { WORD_END } else { digits_value(window, head + first, count) }
}

/// Whether a Via has a good port in its first sent-by, and no ttl that overflows (RFC 3261 section 20.42), as far as the first 64 bytes of the line show
/// them.
#[inline(always)]
fn is_good_via<W: Window>(window: &W, value: &HeaderValue) -> bool {
    let found = window.via(value.head, value.len, value.from);
    let port = found & (LONG_TTL - 1);
    found & LONG_TTL == 0 && (port >= HEAD || is_port(window, port, value))
}

/// Whether a number of 16 bits is at `port` of the line, with white space before it; what does not end in the first 64 bytes may be one.
#[inline(always)]
fn is_port<W: Window>(window: &W, port: u32, value: &HeaderValue) -> bool {
    let word = window.word(value.head + port);
    let count = first_bit(not_digits(word) | 1 << 63) >> 3;
    let end = port + count;
    let behind = (word >> (count * 8)) as u8;
    let ends = end < value.len && end < HEAD && behind == b';';
    count != 0 && ends && short_value(word, count) <= 65535 || is_odd_port(window, port, value)
}

/// The same for any port. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_odd_port<W: Window>(window: &W, port: u32, value: &HeaderValue) -> bool {
    let HeaderValue { head, len, .. } = *value;
    let text = low_bits(len) & !low_bits(port) & !window.blanks(head, len);
    if text == 0 {
        // It goes on in the next line, or where nobody looks.
        return true;
    }
    let first = first_bit(text);
    let run = (text & window.digits(head, len)) >> first;
    let count = first_bit(!run);
    let end = first + count;
    if end >= HEAD {
        return true;
    }
    let ends = end >= len || matches!(window.byte(head + end), b';' | b',' | b' ' | b'\t');
    (1..=DIGITS).contains(&count) && ends && digits_value(window, head + first, count) <= 65535
}
