//! Checks of a complete line, by its first 64 and last 8 bytes.

use super::names::{
    self, CONTENT_LENGTH, CONTENT_UNDERSCORE_LENGTH, LIST, LONG_NAME, MANDATORY, MAX_FORWARDS, SINGLETONS,
    VIA, bucket, digest, identify, looks_like_length,
};
use super::scan::{BAD_NAME, FAR_NAME};
use super::step::Cursor;
use super::value::{self, COMPLETE, HEAD, HeaderValue, OPEN};
use super::window::{SAVED_HEAD, Window};
use super::words::{
    byte_of, eight_digits, equal, first_bit, first_bytes, fold, gather, low_bits, not_visible,
};
use super::{
    ENDS_BEFORE_LENGTH, ENDS_FRAMING, ENDS_LF, ENDS_MIXED, ENDS_VIA, FLAG_BEHIND_LF, FLAG_DATAGRAM,
    FLAG_FAR_BAD, FLAG_FAR_COLON, FLAG_LF, FLAG_REQUEST, Limits, PHASE_BODY, PHASE_END, PHASE_HEADERS,
    PHASE_IDLE, PHASE_START, Stream, checks, methods,
};
use crate::Reason;

/// Most spaces and tabs that are accepted behind a request line.
const TRAILING: u32 = 7;

/// Checks the line that ends at `cursor.stop`, with CRLF or LF.
#[inline(always)]
pub(super) fn check<W: Window>(
    stream: &mut Stream,
    cursor: &Cursor,
    window: &W,
    limits: &Limits,
) -> Result<(), Reason> {
    let head = cursor.head();
    let len = cursor.stop.wrapping_sub(cursor.line);
    if stream.phase == PHASE_START {
        return start_line(stream, window, head, len, cursor, limits);
    }
    if cursor.lf != 0
        && let Some(reason) = beside_lf(stream, cursor, window, limits)
    {
        return Err(reason);
    }
    if len == 0 {
        return section_end(stream, cursor, limits);
    }
    stream.lines = stream.lines.saturating_add(1);
    if u32::from(stream.lines) > limits.header_lines {
        return Err(Reason::TooManyHeaders);
    }
    header(stream, window, cursor, limits)
}

/// Records a LF alone before or behind a line, and refuses it where it must not be. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn beside_lf<W: Window>(stream: &mut Stream, cursor: &Cursor, window: &W, limits: &Limits) -> Option<Reason> {
    let ends_with_lf = cursor.cr == 0;
    if ends_with_lf != (stream.ends & ENDS_LF != 0) {
        if limits.has(checks::SAME_ENDS) {
            return Some(Reason::BareLf);
        }
        stream.ends ^= ENDS_LF;
        stream.ends |= ENDS_MIXED;
    }
    if ends_with_lf && limits.has(checks::REFUSE_LF) {
        return Some(Reason::BareLf);
    }
    let len = cursor.stop.wrapping_sub(cursor.line);
    if len == 0 {
        stream.ends |= ENDS_FRAMING;
    } else {
        match name(stream, window, cursor.head(), len) {
            CONTENT_LENGTH => stream.ends |= if ends_with_lf { ENDS_FRAMING } else { ENDS_BEFORE_LENGTH },
            VIA if ends_with_lf => stream.ends |= ENDS_VIA,
            _ => {}
        }
    }
    // Parsers read beyond a Via that ends otherwise than other lines (CVE-2023-27598).
    let odd_via = ENDS_VIA | ENDS_MIXED;
    (stream.ends & odd_via == odd_via).then_some(Reason::BareLf)
}

/// RFC 3261 section 7.1 and 7.2: `Method SP Request-URI SP SIP/2.0` or `SIP/2.0 SP Status-Code SP Reason-Phrase`.
#[inline(always)]
fn start_line<W: Window>(
    stream: &mut Stream,
    window: &W,
    head: u32,
    len: u32,
    cursor: &Cursor,
    limits: &Limits,
) -> Result<(), Reason> {
    let first = first_bytes(fold(window.word(head)), len);
    stream.method_bytes = 0;
    stream.method = 0;
    if first as u32 == u32::from_le_bytes(*b"sip/") {
        status_line(window, head, len, first, limits)?;
    } else {
        stream.flags |= FLAG_REQUEST;
        if matches!(first as u8, b'c' | b'l')
            && stream.flags & FLAG_DATAGRAM == 0
            && looks_like_length(window, head, len)
        {
            return Err(Reason::BadStartLine);
        }
        request_line(stream, window, head, len, cursor.stop, limits)?;
        let method = stream.method;
        // RFC 4975 is no SIP. Kamailio takes what begins so for a frame of it, which ends where the body says.
        if method == methods::MSRP_WORD && stream.flags & FLAG_DATAGRAM == 0 {
            return Err(Reason::BadStartLine);
        }
        stream.registers = stream.registers.saturating_add(u8::from(method == methods::REGISTER_WORD));
        stream.invites = stream.invites.saturating_add(u8::from(method == methods::INVITE_WORD));
        if limits.denied != 0 && methods::bit(stream.method) & limits.denied != 0 {
            return Err(Reason::MethodDenied);
        }
    }
    if cursor.cr == 0 {
        if limits.has(checks::REFUSE_LF) {
            return Err(Reason::BareLf);
        }
        stream.ends |= ENDS_LF;
    }
    stream.phase = PHASE_HEADERS;
    Ok(())
}

#[inline(always)]
fn request_line<W: Window>(
    stream: &mut Stream,
    window: &W,
    head: u32,
    len: u32,
    end: u32,
    limits: &Limits,
) -> Result<(), Reason> {
    let method = method(window, head, len)?;
    // At least one byte of Request-URI between the two spaces.
    if len < method + 2 + 8 {
        return Err(Reason::BadStartLine);
    }
    version(window, method, len, end, limits)?;
    if limits.has(checks::TOKENS | checks::SPACES) && !strict_request(window, head, method, len, limits) {
        return Err(Reason::BadStartLine);
    }
    stream.method_bytes = method as u8;
    stream.method = if method <= 8 {
        first_bytes(window.word(head), method)
    } else {
        digest(window, head, method, false)
    };
    Ok(())
}

/// The end of a request line.
#[inline(always)]
fn version<W: Window>(window: &W, method: u32, len: u32, end: u32, limits: &Limits) -> Result<(), Reason> {
    let mut last = fold(window.word(end - 8));
    if last == u64::from_le_bytes(*b" sip/2.0") {
        return Ok(());
    }
    if !limits.has(checks::SPACES) {
        // Some senders put white space behind the version (RFC 4475 section 3.1.2.15 lets one be liberal there).
        let mut spare = 0;
        for _ in 0..TRAILING {
            let byte = window.byte(end - 1 - spare);
            if (byte == b' ' || byte == b'\t') && len > method + 2 + 8 + spare {
                spare += 1;
            }
        }
        last = fold(window.word(end - 8 - spare));
    }
    if last == u64::from_le_bytes(*b" sip/2.0") {
        Ok(())
    } else if last & 0xff_ffff_ffff == u64::from_le_bytes(*b" sip/\0\0\0") {
        limits.refuse(checks::VERSION, Reason::BadVersion)
    } else {
        Err(Reason::BadStartLine)
    }
}

/// The strict profile's request line: the method is a token, and its two spaces are the only ones.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn strict_request<W: Window>(window: &W, head: u32, method: u32, len: u32, limits: &Limits) -> bool {
    let spaces = window.equal(head, len, b' ') & low_bits(len) & !(1 << (method & 63));
    let last = if len - 8 < HEAD { 1 << (len - 8) } else { 0 };
    (!limits.has(checks::SPACES) || spaces & !last == 0)
        && (!limits.has(checks::TOKENS) || is_token(window, head, method))
}

#[inline(always)]
fn status_line<W: Window>(
    window: &W,
    head: u32,
    len: u32,
    first: u64,
    limits: &Limits,
) -> Result<(), Reason> {
    if first != u64::from_le_bytes(*b"sip/2.0 ") {
        return limits.refuse(checks::VERSION, Reason::BadVersion);
    }
    // Three digits, the first 1 to 6, then a space or the line's end.
    let code = window.word(head + 8);
    let digit = |k: u32| ((code >> (8 * k)) as u8).wrapping_sub(b'0');
    let digits = digit(0).wrapping_sub(1) < 6 && digit(1) < 10 && digit(2) < 10;
    let closed = len == 11 || (len > 11 && (code >> 24) as u8 == b' ');
    if digits && closed { Ok(()) } else { Err(Reason::BadStartLine) }
}

/// Whether a start line of which `len` bytes have come can still be well-formed. `Err` is [`Reason::BadStartLine`], which the complete line would
/// get too.
#[inline(always)]
pub(super) fn can_be_start_line<W: Window>(window: &W, head: u32, len: u32) -> Result<(), Reason> {
    if len >= 4 && fold(window.word(head)) as u32 == u32::from_le_bytes(*b"sip/") {
        return Ok(());
    }
    method(window, head, len).map(|_| ())
}

/// Length of the method: the bytes before the first space. With fewer than 64 bytes of line and no space yet it is the length
/// of what has come.
///
/// `Err` is [`Reason::BadStartLine`]: an empty method, one of 64 bytes or more, or one with a control byte or a byte above 0x7e.
#[inline(always)]
fn method<W: Window>(window: &W, head: u32, len: u32) -> Result<u32, Reason> {
    // Most methods end within 16 bytes. The first byte that is not visible ends it, and must be a space.
    let mut odd = gather(not_visible(window.word(head))) | gather(not_visible(window.word(head + 8))) << 8;
    if odd == 0 {
        odd = window.not_visible(head, len);
    }
    let known = if len < HEAD { len } else { HEAD };
    let method = if odd == 0 { HEAD } else { first_bit(odd) };
    if method >= known {
        return if known == 0 || known == HEAD { Err(Reason::BadStartLine) } else { Ok(known) };
    }
    if method == 0 || window.byte(head + method) != b' ' { Err(Reason::BadStartLine) } else { Ok(method) }
}

/// RFC 3261 section 7.3.1: `name HCOLON value`, or a line that begins with white space and continues the one before.
#[inline(always)]
fn header<W: Window>(
    stream: &mut Stream,
    window: &W,
    cursor: &Cursor,
    limits: &Limits,
) -> Result<(), Reason> {
    let head = cursor.head();
    let len = cursor.stop.wrapping_sub(cursor.line);
    let (low, high) = (window.word(head), window.word(head + 8));
    let first = low as u8;
    if first == b' ' || first == b'\t' {
        if stream.lines == 1 {
            limits.refuse(checks::NAMES, Reason::BadHeaderName)?;
        }
        if stream.flags & FLAG_DATAGRAM == 0 && looks_like_length(window, head, len) {
            return Err(Reason::BadContentLength);
        }
        return value::check(stream, window, HeaderValue { head, from: 0, len }, limits);
    }
    value::unfinished(stream, limits)?;
    // Most names are followed by their colon, within 16 bytes. Below the lowest bit of a colon's byte stands the name.
    let lowest = |colon: u64| (colon & colon.wrapping_neg()) >> 7;
    let (colon, far) = (equal(low, b':'), equal(high, b':'));
    let (mut low, mut high, mut from, odd) = if colon != 0 {
        let colon = lowest(colon);
        let below = colon.wrapping_sub(1);
        (fold(low) & below, 0, byte_of(colon) + 1, not_visible(low) & below)
    } else {
        let colon = lowest(far);
        let below = colon.wrapping_sub(1);
        (fold(low), fold(high) & below, byte_of(colon) + 9, not_visible(low) | not_visible(high) & below)
    };
    if colon | far == 0 || odd != 0 || low == 0 || limits.has(checks::TOKENS) {
        let name = unusual(window, stream, cursor, limits);
        if name == BAD_NAME {
            let tolerated = !limits.has(checks::NAMES) && stream.flags & FLAG_DATAGRAM == 0;
            if tolerated && looks_like_length(window, head, len) {
                return Err(Reason::BadContentLength);
            }
            // No header that anything is known of.
            (stream.last, stream.open) = (names::OTHER, COMPLETE);
            return limits.refuse(checks::NAMES, Reason::BadHeaderName);
        }
        from = (name >> 8) + 1;
        let bytes = name & 0xff;
        (low, high) = if bytes > 15 {
            (digest(window, head, bytes, true), LONG_NAME)
        } else {
            folded(window, head, bytes)
        };
    }
    named(stream, identify(low, high), bucket(low, high), limits)?;
    value::check(stream, window, HeaderValue { head, from, len }, limits)
}

/// The two words of a name of up to 15 bytes, for [`identify`].
#[inline(always)]
fn folded<W: Window>(window: &W, head: u32, bytes: u32) -> (u64, u64) {
    let low = first_bytes(fold(window.word(head)), bytes);
    (low, first_bytes(fold(window.word(head + 8)), bytes.saturating_sub(8)))
}

/// Records a header line's name.
#[inline(always)]
fn named(stream: &mut Stream, name: u8, bucket: usize, limits: &Limits) -> Result<(), Reason> {
    if name == CONTENT_UNDERSCORE_LENGTH && stream.flags & FLAG_DATAGRAM == 0 {
        return Err(Reason::BadContentLength);
    }
    stream.last = name;
    stream.open = if names::bit(name) & names::VALUED != 0 { OPEN } else { COMPLETE };
    let bit = names::bit(name);
    if stream.seen & bit & SINGLETONS != 0 && limits.has(checks::SINGLETONS) {
        return Err(Reason::DuplicateHeader);
    }
    if name != CONTENT_LENGTH && name != MAX_FORWARDS {
        // Those two are recorded with their values.
        stream.seen |= bit;
    }
    if name != VIA && name < LIST {
        let count = stream.names[bucket].saturating_add(1);
        stream.names[bucket] = count;
        if u32::from(count) > limits.same_name && limits.same_name < 255 {
            return Err(Reason::TooManyHeaders);
        }
    }
    Ok(())
}

/// Finds a name of up to 127 bytes. Returns its length (63 when it is longer) plus 256 times the offset of its colon (64 when that is further), or
/// [`BAD_NAME`]. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn unusual<W: Window>(window: &W, stream: &Stream, cursor: &Cursor, limits: &Limits) -> u32 {
    let head = cursor.head();
    let len = cursor.stop.wrapping_sub(cursor.line);
    let found = window.name(head, len);
    if found == FAR_NAME {
        let far =
            !limits.has(checks::TOKENS) && far_name(stream, window, head, cursor.line, len) == FLAG_FAR_COLON;
        return if far { HEAD << 8 | (HEAD - 1) } else { BAD_NAME };
    }
    let (colon, name) = (found >> 8, found & 0xff);
    // There may be white space between name and colon.
    if found == BAD_NAME
        || name != colon && limits.has(checks::SPACES)
        || limits.has(checks::TOKENS) && !is_token(window, head, name)
    {
        return BAD_NAME;
    }
    found
}

/// The known name of a header line of which `len` bytes have come, more than its name; a line that begins with white space goes on with the one before.
#[inline(always)]
pub(super) fn name<W: Window>(stream: &Stream, window: &W, head: u32, len: u32) -> u8 {
    if matches!(window.byte(head), b' ' | b'\t') {
        return stream.last;
    }
    let found = window.name(head, len);
    let bytes = found & 0xff;
    if found == BAD_NAME || found == FAR_NAME || bytes > 15 {
        return names::OTHER;
    }
    short_name(window, head, bytes)
}

/// The known name of `bytes` bytes, up to 15. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn short_name<W: Window>(window: &W, head: u32, bytes: u32) -> u8 {
    let (low, high) = folded(window, head, bytes);
    identify(low, high)
}

/// Most bytes of a header name and its colon.
const NAME_END: u32 = 128;

/// The state of a line of which `len` bytes (more than 64) have come and whose first 64 are of a header name: [`FLAG_FAR_COLON`],
/// [`FLAG_FAR_BAD`], or 0 when the name continues. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn far_name<W: Window>(stream: &Stream, window: &W, head: u32, line: u32, len: u32) -> u8 {
    let mut from = HEAD;
    if head == SAVED_HEAD {
        // Bytes before this window were checked at the end of the last one.
        let known = stream.flags & (FLAG_FAR_COLON | FLAG_FAR_BAD);
        if known != 0 {
            return known;
        }
        from = stream.line_bytes;
    }
    let behind = line.wrapping_add(HEAD);
    let here = low_bits(len - HEAD) & !low_bits(from.wrapping_sub(HEAD));
    let stops = (window.equal(behind, len - HEAD, b':') | window.not_visible(behind, len - HEAD)) & here;
    if stops == 0 {
        return if len < NAME_END { 0 } else { FLAG_FAR_BAD };
    }
    if window.byte(behind.wrapping_add(first_bit(stops))) == b':' { FLAG_FAR_COLON } else { FLAG_FAR_BAD }
}

/// Whether the first `len` bytes (up to 63) at `head` are of an RFC 3261 section 25.1 token.
#[inline(always)]
fn is_token<W: Window>(window: &W, head: u32, len: u32) -> bool {
    window.not_of_tokens(head, len) & low_bits(len) == 0
}

/// Value of `count` digits (1 to 16) at `at`.
#[inline(always)]
pub(super) fn digits_value<W: Window>(window: &W, at: u32, count: u32) -> u64 {
    if count <= 8 {
        return u64::from(short_value(window.word(at), count));
    }
    let high = u64::from(short_value(window.word(at), count - 8));
    high * 100_000_000 + u64::from(eight_digits(window.word(at + count - 8)))
}

/// Value of the first `count` digits (1 to 8) of a word.
#[inline(always)]
pub(super) fn short_value(word: u64, count: u32) -> u32 {
    let missing = (8 - count) * 8;
    // Shifted to the end, zeros come in from the front: a zero byte counts as the digit 0.
    eight_digits(if missing == 0 { word } else { word << missing })
}

/// What the header section as a whole must have.
#[inline(always)]
pub(super) fn is_complete(stream: &Stream, limits: &Limits) -> Result<(), Reason> {
    value::unfinished(stream, limits)?;
    let datagram = stream.flags & FLAG_DATAGRAM != 0;
    if stream.seen & names::bit(CONTENT_LENGTH) == 0 && !datagram {
        return Err(Reason::MissingContentLength);
    }
    let hops = limits.has(checks::MAX_FORWARDS)
        && stream.flags & FLAG_REQUEST != 0
        && stream.seen & names::bit(MAX_FORWARDS) == 0;
    if hops || stream.seen & MANDATORY != MANDATORY {
        return limits.refuse(checks::MANDATORY, Reason::MissingHeader);
    }
    Ok(())
}

/// The empty line: the header section ends, and with it a message without a body.
#[inline(always)]
fn section_end(stream: &mut Stream, cursor: &Cursor, limits: &Limits) -> Result<(), Reason> {
    is_complete(stream, limits)?;
    let datagram = stream.flags & FLAG_DATAGRAM != 0;
    // One receiver ends lines at every LF, another at CRLF alone: both must find the same length and the same end. Who takes no line of Content-Length
    // for one finds no body.
    let framing = stream.ends & ENDS_FRAMING != 0
        || stream.ends & ENDS_BEFORE_LENGTH != 0 && stream.content_length != 0;
    if framing && stream.ends & ENDS_MIXED != 0 && !datagram {
        return Err(Reason::BareLf);
    }
    if cursor.cr == 0 {
        stream.flags |= FLAG_LF | FLAG_BEHIND_LF;
    } else if stream.flags & FLAG_LF != 0 {
        return Err(Reason::BareLf);
    }
    if stream.seen & names::bit(CONTENT_LENGTH) == 0 {
        // RFC 3261 section 18.3: without it the body of a datagram goes to its end.
        stream.content_length = 0;
    }
    stream.messages = stream.messages.wrapping_add(1);
    stream.body_left = stream.content_length;
    stream.phase = if datagram {
        PHASE_END
    } else if stream.body_left > 0 {
        PHASE_BODY
    } else {
        PHASE_IDLE
    };
    Ok(())
}
