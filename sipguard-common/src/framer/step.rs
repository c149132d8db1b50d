//! One step of the framer: the next block marked, or the next control byte of the marked one.

use super::line;
use super::match_headers;
use super::names;
use super::tls;
use super::value::HEAD;
use super::window::{DATA, SAVED_HEAD, WINDOW, Window};
use super::words::{self, HashKeys, first_bit, low_bits};
use super::{
    ENDS_LF, FLAG_BEHIND_LF, FLAG_DATAGRAM, FLAG_LF, FLAG_REQUEST, Limits, PHASE_BODY, PHASE_CONTENT,
    PHASE_END, PHASE_HEADERS, PHASE_HELLO, PHASE_IDLE, PHASE_RECORD, PHASE_START, Stream, checks,
};
use crate::Reason;

/// Bytes that are marked at a time.
pub(super) const BLOCK: u32 = 64;
/// `Cursor::hash_next` once a block was left out.
pub(super) const CLOSED: u32 = u32::MAX;

/// Where the framer is in its window. Offsets are the window's; `line` and `section` may lie before it and then wrap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Every byte before this one is processed, or belongs to the current line.
    pub pos: u32,
    /// End of the payload.
    pub end: u32,
    /// Start of the current line.
    pub line: u32,
    /// Start of the current message.
    pub section: u32,
    /// Start of the marked block.
    pub base: u32,
    /// Start of the block to mark next.
    pub next: u32,
    /// Control bytes of the marked block that are still to be processed, one bit per byte.
    pub marks: u64,
    /// Hash of the blocks marked so far, from the payload's first on.
    pub hash: u64,
    /// Bytes in `hash`.
    pub hashed: u32,
    /// Block to be hashed next, or [`u32::MAX`] once a block was left out.
    pub hash_next: u32,
    /// 1 once a block was marked behind one that was not: then `hash` does not cover all inspected bytes.
    pub gap: u32,
    /// End of the line that is checked.
    pub stop: u32,
    /// 1 when its end is CRLF, 0 when it is LF alone.
    pub cr: u32,
    /// Start of the line that was checked last.
    pub judged_line: u32,
    /// Not 0 when that line is to be matched against rules; the driver of the framer resets it.
    pub match_due: u32,
    /// 1 when a LF alone is before or behind the line that is judged.
    pub lf: u32,
}

impl Cursor {
    /// Leaves out the hash, which is zero then: what is processed is compared with nothing later. Before [`super::prime`].
    #[inline(always)]
    pub fn leave_out_hash(&mut self) {
        self.hash_next = CLOSED;
    }

    /// Offset of the first 64 bytes of the current line.
    #[inline(always)]
    pub(super) fn head(&self) -> u32 {
        head(self.line)
    }

    /// Continues at an offset, with the block that contains it.
    #[inline(always)]
    fn go_to(&mut self, at: u32) {
        self.pos = at;
        self.next = at & !(BLOCK - 1);
        self.marks = 0;
    }
}

/// Offset of the first 64 bytes of a line, by its start.
#[inline(always)]
pub(super) const fn head(line: u32) -> u32 {
    if line < WINDOW as u32 { line } else { SAVED_HEAD }
}

/// Outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum StepOutcome {
    /// There may be more to do.
    More,
    /// The window is used up.
    Done,
    /// The stream is malformed.
    Malformed(Reason),
}

/// Does one step. Call it until it returns something else than [`StepOutcome::More`], then [`super::settle`] the window. When
/// [`Cursor::match_due`] is not 0, first match the line of [`super::HeaderLine::of`] against rules.
#[inline(always)]
pub fn step<W: Window>(
    stream: &mut Stream,
    cursor: &mut Cursor,
    window: &W,
    limits: &Limits,
    keys: &HashKeys,
) -> StepOutcome {
    if cursor.marks == 0 {
        if cursor.pos >= cursor.end {
            return StepOutcome::Done;
        }
        match stream.phase {
            PHASE_BODY if stream.flags & FLAG_LF != 0 => return outcome(lf_body(stream, cursor, window)),
            PHASE_BODY | PHASE_CONTENT => {
                let here = cursor.end - cursor.pos;
                skip_body(stream, cursor, here);
                return StepOutcome::More;
            }
            PHASE_HELLO | PHASE_RECORD => {
                return outcome(tls::header(stream, cursor, window));
            }
            PHASE_END => return StepOutcome::Done,
            _ => {}
        }
        if !next_block(stream, cursor, window, keys) {
            return StepOutcome::Done;
        }
        if cursor.marks == 0 {
            return StepOutcome::More;
        }
    }
    let at = cursor.base + first_bit(cursor.marks);
    if let Err(reason) = control(stream, cursor, window, limits, at) {
        return StepOutcome::Malformed(reason);
    }
    // Most windows end with a message.
    if cursor.pos >= cursor.end { StepOutcome::Done } else { StepOutcome::More }
}

#[inline(always)]
fn outcome(fault: Option<Reason>) -> StepOutcome {
    fault.map_or(StepOutcome::More, StepOutcome::Malformed)
}

/// The body behind a header section that ended with LF LF, up to the end of its block. Who ends sections at LF CR LF alone looks for that here,
/// and takes what is behind it for a message. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn lf_body<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W) -> Option<Reason> {
    let base = cursor.pos & !(BLOCK - 1);
    let from = cursor.pos - base;
    let mut here = cursor.end - cursor.pos;
    if here > BLOCK - from {
        here = BLOCK - from;
    }
    if here > stream.body_left {
        here = stream.body_left;
    }
    let part = low_bits(from + here) & !low_bits(from);
    let lf = window.equal(base, BLOCK, b'\n') & part;
    let behind = lf << 1 | u64::from(stream.flags & FLAG_BEHIND_LF != 0) << (from & (BLOCK - 1));
    if behind & part & window.equal(base, BLOCK, b'\r') != 0 {
        return Some(Reason::BareLf);
    }
    stream.flags &= !FLAG_BEHIND_LF;
    if lf >> ((from + here).wrapping_sub(1) & (BLOCK - 1)) & 1 != 0 {
        stream.flags |= FLAG_BEHIND_LF;
    }
    // Looked at, and not in the hash.
    cursor.gap = 1;
    skip_body(stream, cursor, here);
    None
}

/// Skips the body, or what has come of it in the next `here` bytes. RFC 3261 section 18.3: on a stream transport the Content-Length alone says
/// where the message ends.
#[inline(always)]
fn skip_body(stream: &mut Stream, cursor: &mut Cursor, here: u32) {
    let taken = if stream.body_left < here { stream.body_left } else { here };
    stream.body_left -= taken;
    cursor.go_to(cursor.pos + taken);
    if stream.body_left == 0 {
        stream.phase = if stream.phase == PHASE_BODY { PHASE_IDLE } else { PHASE_RECORD };
    }
}

/// Marks the next block, if there is one. The rest of the last block is text.
#[inline(always)]
fn next_block<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W, keys: &HashKeys) -> bool {
    let base = cursor.next;
    if stream.phase == PHASE_IDLE && cursor.pos < base {
        begin(stream, cursor);
    }
    if base >= cursor.end {
        return false;
    }
    let control = words::control(window.block(base / BLOCK));
    cursor.base = base;
    cursor.next = base + BLOCK;
    let before = if cursor.pos > base { low_bits(cursor.pos - base) } else { 0 };
    cursor.marks = control & low_bits(cursor.end - base) & !before;
    if base == cursor.hash_next {
        cursor.hash = words::chain(cursor.hash, words::sum(window.block(base / BLOCK), keys));
        cursor.hash_next = base + BLOCK;
        cursor.hashed += BLOCK;
    } else if base >= DATA && (base > cursor.hash_next || cursor.hash_next == CLOSED) {
        cursor.gap = 1;
    }
    true
}

/// A message begins at the cursor.
#[inline(always)]
fn begin(stream: &mut Stream, cursor: &mut Cursor) {
    stream.phase = PHASE_START;
    stream.flags &= FLAG_DATAGRAM | FLAG_LF;
    stream.lines = 0;
    stream.seen = 0;
    stream.last = 0;
    stream.open = 0;
    stream.ends = 0;
    stream.nuls = 0;
    stream.names = [0; super::NAME_BUCKETS];
    cursor.line = cursor.pos;
    cursor.section = cursor.pos;
}

/// Processes the control byte at `at`; the current line is text before it.
#[inline(always)]
fn control<W: Window>(
    stream: &mut Stream,
    cursor: &mut Cursor,
    window: &W,
    limits: &Limits,
    at: u32,
) -> Result<(), Reason> {
    let pair = window.word(at);
    let byte = pair as u8;
    cursor.marks &= cursor.marks - 1;
    if stream.phase == PHASE_IDLE {
        // RFC 3261 section 7.5 (CRLF before a start line) and RFC 5626 section 3.5.1 (CRLF keep-alives).
        if at == cursor.pos && matches!(byte, b'\r' | b'\n' | 0) {
            return if skip_filler(stream, cursor, window, limits) {
                Ok(())
            } else {
                Err(Reason::BadStartLine)
            };
        }
        begin(stream, cursor);
    }
    // All but a LF counts for the limits of line and section.
    let lf = byte == b'\n';
    within(stream, cursor, window, limits, if lf { at } else { at + 1 })?;
    if byte == b'\t' {
        // Text, as all the others of the block.
        cursor.marks &= !window.blanks(cursor.base, BLOCK);
        return Ok(());
    }
    if !lf {
        if byte != b'\r'
            && stream.phase == PHASE_HEADERS
            && !limits.has(checks::TOKENS)
            && is_quoted(cursor, window, at)
        {
            return Ok(());
        }
        if byte != b'\r' {
            if stream.phase == PHASE_HEADERS {
                return limits.refuse(checks::CONTROL_BYTES, Reason::ControlByte);
            }
            return Err(Reason::BadStartLine);
        }
        if at + 1 == cursor.end {
            // The next byte decides.
            return Ok(());
        }
        if (pair >> 8) as u8 != b'\n' {
            within(stream, cursor, window, limits, at + 2)?;
            return Err(odd_byte(stream, Reason::BareCr));
        }
    }
    cursor.stop = at;
    cursor.cr = u32::from(!lf);
    cursor.lf = u32::from(lf) | u32::from(stream.ends & ENDS_LF);
    line::check(stream, cursor, window, limits)?;
    match_headers::mark_line(stream, cursor, limits);
    let behind = at + 1 + cursor.cr;
    cursor.pos = behind;
    cursor.line = behind;
    let ends = matches!(stream.phase, PHASE_BODY | PHASE_END);
    if (ends || behind >= cursor.end) && (behind > cursor.hash_next || cursor.hash_next == CLOSED) {
        // The LF is in a block that is not marked any more.
        cursor.gap = 1;
    }
    if ends {
        cursor.go_to(behind);
    } else {
        cursor.marks &= !low_bits(behind - cursor.base);
    }
    Ok(())
}

/// Whether line and section keep their limits up to `end`, the LF of a line not counted. A line that parsers keep in a buffer of a fixed size has a
/// limit of its own.
#[inline(always)]
pub(super) fn within<W: Window>(
    stream: &Stream,
    cursor: &Cursor,
    window: &W,
    limits: &Limits,
    end: u32,
) -> Result<(), Reason> {
    let line = end.wrapping_sub(cursor.line);
    let section = end.wrapping_sub(cursor.section);
    if line <= limits.line_bytes && section <= limits.section_bytes {
        return Ok(());
    }
    too_long(stream, cursor, window, limits, end).map_or(Ok(()), Err)
}

/// Which limit was passed first, if any. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn too_long<W: Window>(
    stream: &Stream,
    cursor: &Cursor,
    window: &W,
    limits: &Limits,
    end: u32,
) -> Option<Reason> {
    let head = cursor.head();
    // A start line whose method is none is told so even when it is also too long, as it would be in smaller windows.
    if stream.phase == PHASE_START && line::can_be_start_line(window, head, u32::MAX).is_err() {
        return Some(Reason::BadStartLine);
    }
    let line = end.wrapping_sub(cursor.line);
    let name = line::name(stream, window, head, line);
    // Registrars join all contacts in one line of their answer.
    let is_joined = name == names::CONTACT && stream.flags & FLAG_REQUEST == 0;
    let is_kept = stream.phase == PHASE_START || names::is_kept(name) && !is_joined;
    let most = if is_kept { limits.line_bytes } else { limits.other_line_bytes };
    let over_line = line.saturating_sub(most);
    let over_section = end.wrapping_sub(cursor.section).saturating_sub(limits.section_bytes);
    match (over_line, over_section) {
        (0, 0) => None,
        _ if over_line >= over_section => Some(Reason::LineTooLong),
        _ => Some(Reason::HeadersTooLong),
    }
}

/// Whether a backslash quotes the byte at `at`, with which those that the same line quotes behind it become text. Few parsers support
/// quoted pairs, so strict mode refuses them. Otherwise they are accepted in the first 64 bytes of the line, which are visible in every
/// segmentation. Reads twice as many bytes as needed, so that a line with many pairs is read less often. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_quoted<W: Window>(cursor: &mut Cursor, window: &W, at: u32) -> bool {
    let place = at.wrapping_sub(cursor.line);
    if place.wrapping_sub(1) >= HEAD - 1 || window.byte(at - 1) != b'\\' {
        return false;
    }
    let quoted = window.quoted_pairs(cursor.head(), 2 * place + 2);
    // From places of the line to those of the block.
    let begin = cursor.base.wrapping_sub(cursor.line);
    let quoted = if begin < BLOCK { quoted >> begin } else { quoted << (begin.wrapping_neg() & (BLOCK - 1)) };
    cursor.marks &= !quoted;
    quoted >> (at - cursor.base) & 1 != 0
}

/// Most NULs in a row between two messages: Asterisk keeps connections alive with CRLF NUL, OpenSIPS puts one behind an answer.
pub(super) const NULS: u32 = 16;

/// Goes over the CR, LF and NUL from where the cursor is to the end of the marked block. `false` where they are no filler on a stream: more than [`NULS`] NULs in a
/// row, or one in the strict profile; a CR behind a section that ended with LF LF. A separate frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn skip_filler<W: Window>(stream: &mut Stream, cursor: &mut Cursor, window: &W, limits: &Limits) -> bool {
    let from = (cursor.pos - cursor.base) & (BLOCK - 1);
    let marked = low_bits(cursor.end - cursor.base);
    let nuls = (window.equal(cursor.base, BLOCK, 0) & marked) >> from;
    let filler = (window.line_ends(cursor.base, BLOCK) & marked) >> from | nuls;
    let crs = window.equal(cursor.base, BLOCK, b'\r') >> from;
    let run = first_bit(!filler);
    let nuls = nuls & low_bits(run);
    cursor.pos += run;
    cursor.marks &= !low_bits(from + run);
    if stream.flags & FLAG_DATAGRAM != 0 {
        // NULs keep a binding alive, and do so alone.
        return nuls == 0 || cursor.pos == cursor.end;
    }
    let first = first_bit(!nuls);
    let row = u32::from(stream.nuls) + first;
    // Places at which 17 NULs in a row begin.
    let pairs = nuls & nuls >> 1;
    let fours = pairs & pairs >> 2;
    let eights = fours & fours >> 4;
    let long = eights & eights >> 8 & nuls >> 16;
    let last = (!nuls & low_bits(run)).leading_zeros();
    stream.nuls = if first == run { row } else { last - (BLOCK - run) } as u8;
    let no_nuls = limits.has(checks::SENDER) && nuls != 0;
    let no_crs = stream.flags & FLAG_LF != 0 && crs & low_bits(run) != 0;
    row <= NULS && long == 0 && !no_nuls && !no_crs
}

#[inline(always)]
fn odd_byte(stream: &Stream, reason: Reason) -> Reason {
    if stream.phase == PHASE_START { Reason::BadStartLine } else { reason }
}
