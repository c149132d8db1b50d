//! A complete line judged by its first 64 and last 8 bytes.

use super::step::Cursor;
use super::window::Window;
use super::words::{below, eight_digits, equal, first_bytes, fold, gather, low_bits};
use super::{
    FLAG_LENGTH, FLAG_LENGTH_LAST, FLAG_LENGTH_OPEN, FLAG_LF, Limits, PHASE_BODY, PHASE_HEADERS, PHASE_IDLE,
    PHASE_START, Stream,
};
use crate::Reason;

/// Bytes of a line that can be looked at from its start.
const HEAD: u32 = 64;
/// Most digits of a Content-Length, leading zeros counted.
const LENGTH_DIGITS: u32 = 16;
/// Content-Length values from here on are nonsense rather than large (they overflow signed 32-bit parsers).
const LENGTH_END: u32 = 1_000_000_000;

/// Judges the line that ends at the cursor, where its LF stands. `None` is a good one.
///
/// A function of its own in the kernel, where the stack is 512 bytes for all that are under way.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn judge<W: Window>(
    stream: &mut Stream,
    cursor: &Cursor,
    window: &W,
    limits: &Limits,
) -> Option<Reason> {
    judge_line(stream, cursor, window, limits).err()
}

#[inline(always)]
fn judge_line<W: Window>(
    stream: &mut Stream,
    cursor: &Cursor,
    window: &W,
    limits: &Limits,
) -> Result<(), Reason> {
    let cr = cursor.pos != cursor.line && window.byte(cursor.pos - 1) == b'\r';
    let end = cursor.pos - u32::from(cr);
    let len = end.wrapping_sub(cursor.line);
    let head = cursor.head();
    if stream.phase == PHASE_START {
        start_line(window, head, len, end)?;
        stream.phase = PHASE_HEADERS;
        stream.flags = if cr { 0 } else { FLAG_LF };
        return Ok(());
    }
    if cr == (stream.flags & FLAG_LF != 0) {
        return Err(Reason::BareLf);
    }
    if len == 0 {
        return section_end(stream);
    }
    stream.lines += 1;
    if u32::from(stream.lines) > limits.header_lines {
        return Err(Reason::TooManyHeaders);
    }
    let first = window.byte(head);
    if first == b' ' || first == b'\t' {
        folded(stream, window, head, len, limits)
    } else {
        header(stream, window, head, len, limits)
    }
}

/// RFC 3261 section 7.1 and 7.2: `Method SP Request-URI SP SIP/2.0` or `SIP/2.0 SP Status-Code SP Reason-Phrase`.
#[inline(always)]
fn start_line<W: Window>(window: &W, head: u32, len: u32, end: u32) -> Result<(), Reason> {
    let first = first_bytes(fold(window.word(head)), len);
    if first as u32 == u32::from_le_bytes(*b"sip/") {
        return status_line(window, head, len, first);
    }
    let method = method(window, head, len)?;
    // At least one byte of Request-URI between the two spaces.
    if len < method + 2 + 8 {
        return Err(Reason::BadStartLine);
    }
    let last = fold(window.word(end - 8));
    if last == u64::from_le_bytes(*b" sip/2.0") {
        Ok(())
    } else if first_bytes(last, 5) == first_bytes(u64::from_le_bytes(*b" sip/\0\0\0"), 5) {
        Err(Reason::BadVersion)
    } else {
        Err(Reason::BadStartLine)
    }
}

#[inline(always)]
fn status_line<W: Window>(window: &W, head: u32, len: u32, first: u64) -> Result<(), Reason> {
    if first != u64::from_le_bytes(*b"sip/2.0 ") {
        return Err(Reason::BadVersion);
    }
    // Three digits, the first 1 to 6, then a space or the line's end.
    let code = window.word(head + 8);
    let digit = |k: u32| ((code >> (8 * k)) as u8).wrapping_sub(b'0');
    let digits = digit(0).wrapping_sub(1) < 6 && digit(1) < 10 && digit(2) < 10;
    let closed = len == 11 || (len > 11 && (code >> 24) as u8 == b' ');
    if digits && closed { Ok(()) } else { Err(Reason::BadStartLine) }
}

/// Whether a start line of which `len` bytes have come may still become a good one.
///
/// # Errors
/// [`Reason::BadStartLine`], which the complete line would get as well.
#[inline(always)]
pub(super) fn hopeful<W: Window>(window: &W, head: u32, len: u32) -> Result<(), Reason> {
    if len >= 4 && fold(window.word(head)) as u32 == u32::from_le_bytes(*b"sip/") {
        return Ok(());
    }
    method(window, head, len).map(|_| ())
}

/// Length of the method: the bytes before the first space. With fewer than 64 bytes of line and no space yet it is the length
/// of what has come.
///
/// # Errors
/// [`Reason::BadStartLine`] for an empty method, one of 64 bytes or more, and one with a control byte or a byte above 0x7e.
#[inline(always)]
fn method<W: Window>(window: &W, head: u32, len: u32) -> Result<u32, Reason> {
    let known = if len < HEAD { len } else { HEAD };
    let spaces = bytes_equal(window, head, b' ') & low_bits(known);
    let odd = bytes_below(window, head, 0x21) | !bytes_below(window, head, 0x7f);
    let method = if spaces != 0 { spaces.trailing_zeros() } else { known };
    if method == 0 || method == HEAD || odd & low_bits(method) != 0 {
        return Err(Reason::BadStartLine);
    }
    Ok(method)
}

/// RFC 3261 section 7.3.1: `name HCOLON value`; white space before the colon is legal.
#[inline(always)]
fn header<W: Window>(
    stream: &mut Stream,
    window: &W,
    head: u32,
    len: u32,
    limits: &Limits,
) -> Result<(), Reason> {
    if stream.flags & FLAG_LENGTH_OPEN != 0 {
        return Err(Reason::BadContentLength);
    }
    stream.flags &= !FLAG_LENGTH_LAST;
    let known = low_bits(len);
    // Most names end within 16 bytes.
    let (low, high) = (window.word(head), window.word(head + 8));
    let mut colons = (gather(equal(low, b':')) | gather(equal(high, b':')) << 8) & known;
    let mut odd = name_odd(low) | name_odd(high) << 8;
    if colons == 0 {
        colons = bytes_equal(window, head, b':') & known;
        odd = bytes_below(window, head, 0x21) | !bytes_below(window, head, 0x7f);
    }
    if colons == 0 {
        return Err(Reason::BadHeaderName);
    }
    let colon = colons.trailing_zeros();
    odd &= low_bits(colon);
    // The name ends at the colon or at the white space before it.
    let name = if odd != 0 { odd.trailing_zeros() } else { colon };
    if name == 0 || odd >> name != low_bits(colon - name) || !blank_to(window, head, name, colon) {
        return Err(Reason::BadHeaderName);
    }
    if !is_content_length(window, head, name) {
        return Ok(());
    }
    length_value(stream, window, head, colon + 1, len, limits)
}

/// Whether the bytes from `name` to `colon` are spaces and tabs; the common case has none.
#[inline(always)]
fn blank_to<W: Window>(window: &W, head: u32, name: u32, colon: u32) -> bool {
    name == colon || blanks(window, head) >> name & low_bits(colon - name) == low_bits(colon - name)
}

/// Bytes of a word that no header name has: below 0x21 or above 0x7e.
#[inline(always)]
fn name_odd(word: u64) -> u64 {
    gather(below(word, 0x21)) | !gather(below(word, 0x7f)) & 0xff
}

/// Spaces and tabs of the 64 bytes at `head`.
#[inline(always)]
fn blanks<W: Window>(window: &W, head: u32) -> u64 {
    bytes_equal(window, head, b' ') | bytes_equal(window, head, b'\t')
}

/// Which of the 64 bytes at `head` equal `byte`. A function of its own in the kernel, for the stack's sake.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn bytes_equal<W: Window>(window: &W, head: u32, byte: u8) -> u64 {
    (0..8).fold(0, |mask, k| mask | gather(equal(window.word(head + 8 * k), byte)) << (8 * k))
}

/// Which of the 64 bytes at `head` are below `limit` (up to 128). A function of its own in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn bytes_below<W: Window>(window: &W, head: u32, limit: u8) -> u64 {
    (0..8).fold(0, |mask, k| mask | gather(below(window.word(head + 8 * k), limit)) << (8 * k))
}

/// `Content-Length` or its compact form `l`, in any case (RFC 3261 sections 7.3.1 and 7.3.3).
#[inline(always)]
fn is_content_length<W: Window>(window: &W, head: u32, name: u32) -> bool {
    let first = fold(window.word(head));
    if name == 1 {
        return first as u8 == b'l';
    }
    name == 14
        && first == u64::from_le_bytes(*b"content-")
        && first_bytes(fold(window.word(head + 8)), 6) == u64::from_le_bytes(*b"length\0\0")
}

/// RFC 3261 section 7.3.1: a line that begins with white space continues the header before it.
#[inline(always)]
fn folded<W: Window>(
    stream: &mut Stream,
    window: &W,
    head: u32,
    len: u32,
    limits: &Limits,
) -> Result<(), Reason> {
    if stream.lines == 1 {
        return Err(Reason::BadHeaderName);
    }
    if stream.flags & FLAG_LENGTH_OPEN != 0 {
        return length_value(stream, window, head, 0, len, limits);
    }
    if stream.flags & FLAG_LENGTH_LAST != 0
        && (len > HEAD || blanks(window, head) & low_bits(len) != low_bits(len))
    {
        return Err(Reason::BadContentLength);
    }
    Ok(())
}

/// RFC 3261 section 20.14: `1*DIGIT`, white space around it. The value stands from `from` to `len` of the line.
#[inline(always)]
fn length_value<W: Window>(
    stream: &mut Stream,
    window: &W,
    head: u32,
    from: u32,
    len: u32,
    limits: &Limits,
) -> Result<(), Reason> {
    stream.flags |= FLAG_LENGTH_LAST;
    if len > HEAD {
        return Err(Reason::BadContentLength);
    }
    let digits = bytes_below(window, head, b'9' + 1) & !bytes_below(window, head, b'0');
    let value = low_bits(len) & !low_bits(from) & !blanks(window, head);
    if value == 0 {
        stream.flags |= FLAG_LENGTH_OPEN;
        return Ok(());
    }
    let first = value.trailing_zeros();
    let run = value >> first;
    let count = (!run).trailing_zeros();
    if run & run.wrapping_add(1) != 0 || value & !digits != 0 || count > LENGTH_DIGITS {
        return Err(Reason::BadContentLength);
    }
    let number = digits_value(window, head + first, count);
    if number >= LENGTH_END {
        return Err(Reason::BadContentLength);
    }
    if number > limits.body_bytes {
        return Err(Reason::BodyTooLarge);
    }
    if stream.flags & FLAG_LENGTH != 0 && stream.content_length != number {
        return Err(Reason::DuplicateContentLength);
    }
    stream.content_length = number;
    stream.flags = stream.flags & !FLAG_LENGTH_OPEN | FLAG_LENGTH;
    Ok(())
}

/// Value of `count` digits (1 to 16) at `at`; [`LENGTH_END`] for anything that is not smaller.
#[inline(always)]
fn digits_value<W: Window>(window: &W, at: u32, count: u32) -> u32 {
    if count <= 8 {
        return short_value(window.word(at), count);
    }
    let high = short_value(window.word(at), count - 8);
    if high > 9 {
        return LENGTH_END;
    }
    high * 100_000_000 + eight_digits(window.word(at + count - 8))
}

/// Value of the first `count` digits (1 to 8) of a word.
#[inline(always)]
fn short_value(word: u64, count: u32) -> u32 {
    let missing = (8 - count) * 8;
    // Shifted to the end, zeros come in from the front: a zero byte counts as the digit 0.
    eight_digits(if missing == 0 { word } else { word << missing })
}

/// The empty line: what the header section as a whole must have.
#[inline(always)]
fn section_end(stream: &mut Stream) -> Result<(), Reason> {
    if stream.flags & FLAG_LENGTH_OPEN != 0 {
        return Err(Reason::BadContentLength);
    }
    if stream.flags & FLAG_LENGTH == 0 {
        return Err(Reason::MissingContentLength);
    }
    stream.messages = stream.messages.wrapping_add(1);
    stream.body_left = stream.content_length;
    stream.phase = if stream.body_left > 0 { PHASE_BODY } else { PHASE_IDLE };
    Ok(())
}
