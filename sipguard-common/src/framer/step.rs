//! One step of the framer: at most one line, and at most to the end of a block of 64 bytes.

use super::line;
use super::window::{SAVED_HEAD, WINDOW, Window};
use super::words::{low_bits, mark};
use super::{Limits, PHASE_BODY, PHASE_HEADERS, PHASE_IDLE, PHASE_START, Stream};
use crate::Reason;

/// Where the framer is in its window. Offsets are the window's; `line` and `section` may lie before it and then wrap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Next byte to look at.
    pub pos: u32,
    /// End of the payload.
    pub end: u32,
    /// Start of the current line.
    pub line: u32,
    /// Start of the current message.
    pub section: u32,
    /// Block whose marks are held, or `u32::MAX`.
    pub block: u32,
    /// Zero.
    pub pad: u32,
    /// Line feeds of that block.
    pub lf: u64,
    /// Odd bytes of that block, see [`super::words::Marks`].
    pub odd: u64,
}

impl Cursor {
    /// Where the first 64 bytes of the current line stand.
    #[inline(always)]
    pub(super) fn head(&self) -> u32 {
        if self.line < WINDOW as u32 { self.line } else { SAVED_HEAD }
    }
}

/// Outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// There may be more to do.
    More,
    /// The window is used up.
    Done,
    /// The stream is malformed.
    Malformed(Reason),
}

/// Does one step. Call it until it says something else than [`Step::More`], then [`super::settle`] the window.
#[inline(always)]
pub fn step<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W, limits: &Limits) -> Step {
    if cursor.pos >= cursor.end {
        return Step::Done;
    }
    match stream.phase {
        PHASE_BODY => skip_body(stream, cursor),
        PHASE_IDLE => skip_keep_alive(stream, cursor, window),
        _ => match piece(stream, cursor, window, limits) {
            Ok(()) => Step::More,
            Err(reason) => Step::Malformed(reason),
        },
    }
}

/// RFC 3261 section 18.3: on a stream transport the Content-Length alone says where the message ends.
#[inline(always)]
fn skip_body(stream: &mut Stream, cursor: &mut Cursor) -> Step {
    let here = cursor.end - cursor.pos;
    let taken = if stream.body_left < here { stream.body_left } else { here };
    stream.body_left -= taken;
    cursor.pos += taken;
    if stream.body_left == 0 {
        stream.phase = PHASE_IDLE;
    }
    Step::More
}

/// RFC 3261 section 7.5 (CRLF before a start line) and RFC 5626 section 3.5.1 (CRLF keep-alives).
#[inline(always)]
fn skip_keep_alive<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W) -> Step {
    let byte = window.byte(cursor.pos);
    if byte == b'\r' || byte == b'\n' {
        cursor.pos += 1;
    } else {
        stream.phase = PHASE_START;
        stream.flags = 0;
        stream.lines = 0;
        cursor.line = cursor.pos;
        cursor.section = cursor.pos;
    }
    Step::More
}

/// Looks at the current line up to its LF, the end of the block or the end of the window, whichever comes first.
#[inline(always)]
fn piece<W: Window>(
    stream: &mut Stream,
    cursor: &mut Cursor,
    window: &W,
    limits: &Limits,
) -> Result<(), Reason> {
    let block = cursor.pos >> 6;
    if cursor.block != block {
        scan(cursor, window, block);
    }
    let from = cursor.pos & 63;
    let block_end = (block + 1) << 6;
    let stop = if block_end < cursor.end { block_end } else { cursor.end };
    // Bits of this piece, the lowest its first byte.
    let lf = (cursor.lf >> from) & low_bits(stop - cursor.pos);
    let ended = lf != 0;
    let len = if ended { lf.trailing_zeros() } else { stop - cursor.pos };

    let line_room = limits.line_bytes.saturating_sub(cursor.pos.wrapping_sub(cursor.line));
    let section_room = limits.section_bytes.saturating_sub(cursor.pos.wrapping_sub(cursor.section));
    let room = if line_room < section_room { line_room } else { section_room };
    let judged = if len < room { len } else { room };

    let after_cr = cursor.pos != cursor.line && window.byte(cursor.pos - 1) == b'\r';
    if after_cr && judged > 0 {
        return Err(odd_byte(stream, b'\r'));
    }
    let mut odd = (cursor.odd >> from) & low_bits(judged);
    if odd != 0 {
        if window.byte(cursor.pos + judged - 1) == b'\r' {
            // Right before the LF, or the next byte decides.
            odd &= !(1 << (judged - 1));
        }
        if odd != 0 {
            odd &= !(line::bytes_equal(window, block << 6, b'\t') >> from);
        }
        if odd != 0 {
            return Err(odd_byte(stream, window.byte(cursor.pos + odd.trailing_zeros())));
        }
    }
    if len > room {
        return Err(too_long(stream, cursor, window, line_room <= section_room));
    }

    cursor.pos += len;
    if ended {
        if let Some(reason) = line::judge(stream, cursor, window, limits) {
            return Err(reason);
        }
        cursor.pos += 1;
        cursor.line = cursor.pos;
    }
    Ok(())
}

/// Marks a block. A function of its own in the kernel, where the stack is 512 bytes for all that are under way.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn scan<W: Window>(cursor: &mut Cursor, window: &W, block: u32) {
    cursor.block = block;
    cursor.lf = 0;
    cursor.odd = 0;
    for k in 0..8 {
        let marks = mark(window.word((block << 6) + 8 * k));
        cursor.lf |= marks.lf << (8 * k);
        cursor.odd |= marks.odd << (8 * k);
    }
}

#[inline(always)]
fn odd_byte(stream: &Stream, byte: u8) -> Reason {
    if stream.phase == PHASE_START {
        Reason::BadStartLine
    } else if byte == b'\r' {
        Reason::BareCr
    } else {
        Reason::ControlByte
    }
}

/// A start line whose method is no method is told so even when it is also too long, as it would be in smaller windows.
#[inline(always)]
fn too_long<W: Window>(stream: &Stream, cursor: &Cursor, window: &W, line: bool) -> Reason {
    if stream.phase == PHASE_START && line::hopeful(window, cursor.head(), u32::MAX).is_err() {
        return Reason::BadStartLine;
    }
    debug_assert!(stream.phase == PHASE_START || stream.phase == PHASE_HEADERS);
    if line { Reason::LineTooLong } else { Reason::HeadersTooLong }
}
