//! Values of the few headers that hold numbers: Content-Length, CSeq, Max-Forwards, Expires and Via.

use super::line::digits_value;
use super::names::{self, CONTENT_LENGTH, CSEQ, EXPIRES, MAX_FORWARDS, VIA, digest};
use super::window::Window;
use super::words::{first_bit, first_bytes, fold, low_bits, not_digits};
use super::{FLAG_REQUEST, Limits, Stream, checks};
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
/// RFC 3261 section 8.1.1.5: the sequence number is less than 2**31.
const CSEQ_END: u64 = 1 << 31;
/// Where 32 bits end (RFC 3261 section 20.19).
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
        MAX_FORWARDS | EXPIRES if limits.has(checks::NUMBERS | checks::MAX_FORWARDS) => {
            number(stream, window, value, limits)
        }
        VIA if limits.has(checks::NUMBERS) => via(window, value),
        _ => Ok(()),
    }
}

/// Refuses a header that ends without the rest of its value.
#[inline(always)]
pub(super) fn unfinished(stream: &Stream, limits: &Limits) -> Result<(), Reason> {
    match (stream.last, stream.open) {
        (_, COMPLETE) => Ok(()),
        (CONTENT_LENGTH, _) => Err(Reason::BadContentLength),
        (_, OPEN_METHOD) if limits.has(checks::CSEQ) => Err(Reason::CseqMismatch),
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
        if same && number < CSEQ_END {
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
            && (count == 0 || count > DIGITS || digits_value(window, head + first, count) >= CSEQ_END)
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

/// Max-Forwards and Expires: a number that does not overflow. Expires may be a date (RFC 2543), so a value that is no number passes.
#[inline(always)]
fn number<W: Window>(
    stream: &mut Stream,
    window: &W,
    value: HeaderValue,
    limits: &Limits,
) -> Result<(), Reason> {
    let number = match plain(window, value) {
        Some((number, end)) if end == value.len => number,
        _ => match long_number(window, &value) {
            NO_NUMBER => return Ok(()),
            number => number,
        },
    };
    stream.open = COMPLETE;
    let hops = stream.last == MAX_FORWARDS && limits.has(checks::MAX_FORWARDS) && number > 255;
    if hops || number >= WORD_END { Err(Reason::BadNumber) } else { Ok(()) }
}

/// What [`long_number`] returns for what is no number.
const NO_NUMBER: u64 = u64::MAX;

/// The number of a value that is nothing but digits and white space around them; beyond 16 digits it is [`WORD_END`]. A separate
/// frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn long_number<W: Window>(window: &W, value: &HeaderValue) -> u64 {
    let solid = low_bits(value.len) & !low_bits(value.from) & !window.blanks(value.head, value.len);
    if solid == 0 || solid & !window.digits(value.head, value.len) != 0 {
        return NO_NUMBER;
    }
    let first = first_bit(solid);
    let run = solid >> first;
    if run & run.wrapping_add(1) != 0 {
        return NO_NUMBER;
    }
    let count = first_bit(!run);
    if count > DIGITS { WORD_END } else { digits_value(window, value.head + first, count) }
}

/// RFC 3261 section 20.42: the port of sent-by and the ttl, as far as the first 64 bytes of the line show them.
#[inline(always)]
fn via<W: Window>(window: &W, value: HeaderValue) -> Result<(), Reason> {
    let digits = window.digits(value.head, value.len) & low_bits(value.len);
    // Where five digits or more begin.
    let long = digits & digits >> 1 & digits >> 2 & digits >> 3 & digits >> 4 & !(digits << 1);
    if long != 0 && follows_sign(window, value.head, long) && via_overflows(window, &value, long, digits) {
        return Err(Reason::BadNumber);
    }
    Ok(())
}

/// Most runs of five digits and one byte between them in 64 bytes.
const RUNS: u32 = 11;

/// Whether any of the runs of digits that begin at `long` follows a colon or an equals sign; those of a branch rarely do. Not inlined
/// in the kernel, for the size of the program.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn follows_sign<W: Window>(window: &W, head: u32, long: u64) -> bool {
    let mut runs = long & !1;
    for _ in 0..RUNS {
        if runs == 0 {
            return false;
        }
        let before = window.byte(head + first_bit(runs) - 1);
        if before == b':' || before == b'=' {
            return true;
        }
        runs &= runs - 1;
    }
    true
}

/// Whether port or ttl of a Via with long runs of digits overflow. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn via_overflows<W: Window>(window: &W, value: &HeaderValue, long: u64, digits: u64) -> bool {
    let HeaderValue { head, len, .. } = *value;
    let found = window.via_numbers(head, len, long);
    let (port, ttl) = (found >> 8, found & 0xff);
    if port < HEAD {
        let count = first_bit(!(digits >> port) | 1 << 63);
        if count > DIGITS || digits_value(window, head + port, count) > 65535 {
            return true;
        }
    }
    // The value follows `;ttl=`.
    (5..HEAD).contains(&ttl)
        && fold(window.word(head + ttl - 5)) & 0xff_ffff_ffff == u64::from_le_bytes(*b";ttl=\0\0\0")
}
