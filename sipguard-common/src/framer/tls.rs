//! TLS record framing (RFC 8446 section 5.1, RFC 5246 section 6.2). Nothing is decrypted: only record
//! headers and the type of the first handshake message are checked.

use super::step::Cursor;
use super::window::Window;
use super::words::first_bytes;
use super::{FLAG_HELLO, PHASE_CONTENT, PHASE_HELLO, PHASE_IDLE, PHASE_RECORD, Stream};
use crate::Reason;

const HANDSHAKE: u8 = 22;
/// change_cipher_spec to heartbeat (RFC 6520).
const TYPES: core::ops::RangeInclusive<u8> = 20..=24;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Type, version and length.
const HEADER: u16 = 5;
/// Longest content: TLS 1.2 allows 2048 bytes more than the plaintext's 2^14.
const LONGEST: u16 = (1 << 14) + 2048;

/// Whether five bytes are the header of a record.
#[inline(always)]
pub(super) const fn is_record(header: [u8; 5]) -> bool {
    let [kind, major, minor, high, low] = header;
    kind >= *TYPES.start()
        && kind <= *TYPES.end()
        && major == 3
        && minor <= 4
        && u16::from_be_bytes([high, low]) <= LONGEST
}

/// Processes a record's header, or one byte of it, or of a connection's first bytes. `Some` is the reason to refuse it. A separate frame in the
/// kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn header<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W) -> Option<Reason> {
    take(stream, cursor, window).err()
}

#[inline(always)]
fn take<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W) -> Result<(), Reason> {
    let byte = window.byte(cursor.pos);
    if stream.phase == PHASE_HELLO {
        return hello(stream, byte);
    }
    // Looked at, and not in the hash.
    cursor.gap = 1;
    if stream.lines == 0 && stream.flags & FLAG_HELLO == 0 && cursor.end - cursor.pos >= u32::from(HEADER) {
        // Most headers come in one piece.
        cursor.pos += u32::from(HEADER);
        return record(stream, first_bytes(window.word(cursor.pos - u32::from(HEADER)), u32::from(HEADER)));
    }
    cursor.pos += 1;
    if stream.lines == HEADER {
        // The first byte of the first record's content.
        stream.lines = 0;
        stream.flags = 0;
        stream.body_left -= 1;
        stream.phase = if stream.body_left == 0 { PHASE_RECORD } else { PHASE_CONTENT };
        return if byte == CLIENT_HELLO || byte == SERVER_HELLO { Ok(()) } else { Err(Reason::NotTls) };
    }
    stream.head[0] |= u64::from(byte) << (8 * (stream.lines & 7));
    stream.lines += 1;
    if stream.lines < HEADER {
        return Ok(());
    }
    record(stream, stream.head[0])
}

/// Checks a complete record header.
#[inline(always)]
fn record(stream: &mut Stream, header: u64) -> Result<(), Reason> {
    let [kind, major, minor, high, low, ..] = header.to_le_bytes();
    if !is_record([kind, major, minor, high, low]) {
        return Err(Reason::BadTlsRecord);
    }
    let first = stream.flags & FLAG_HELLO != 0;
    stream.head[0] = 0;
    stream.body_left = u32::from(u16::from_be_bytes([high, low]));
    if first && stream.body_left == 0 {
        return Err(Reason::NotTls);
    }
    if !first {
        stream.lines = 0;
        stream.phase = if stream.body_left == 0 { PHASE_RECORD } else { PHASE_CONTENT };
    }
    Ok(())
}

/// The first byte of a connection to a TLS port: a handshake record, or SIP from a sender without TLS.
#[inline(always)]
fn hello(stream: &mut Stream, byte: u8) -> Result<(), Reason> {
    stream.phase = match byte {
        HANDSHAKE => PHASE_RECORD,
        b'A'..=b'Z' | b'a'..=b'z' | b'\r' | b'\n' => PHASE_IDLE,
        _ => return Err(Reason::NotTls),
    };
    stream.flags = if byte == HANDSHAKE { FLAG_HELLO } else { 0 };
    Ok(())
}
