//! The window: the bytes that the framer processes at a time, and what is carried over to the next window.

use super::step::Cursor;
use super::step::{CLOSED, within};
use super::{FLAG_FAR_BAD, FLAG_FAR_COLON, Limits, PHASE_HEADERS, PHASE_START, Stream, line, scan};
use crate::Reason;

/// Offset in the window of a chunk of payload. The unfinished line that is carried over is in front of it.
pub const DATA: u32 = 64;
/// Most payload bytes in one window.
pub const CHUNK: u32 = 4096;
/// Offset of the first 64 bytes of a line that began before the bytes carried over.
pub(super) const SAVED_HEAD: u32 = 4352;
/// Size of the bytes behind a [`Window`]. Any offset below 4416 may be read; a power of two, so that one mask bounds it.
pub const WINDOW: usize = 8192;

/// Access to the window's bytes. Offsets are taken modulo [`WINDOW`]; eight bytes at once, unaligned, little endian.
pub trait Window {
    /// The eight bytes at an offset.
    fn word(&self, at: u32) -> u64;
    /// Writes eight bytes at an offset.
    fn set_word(&mut self, at: u32, word: u64);

    /// The 64 bytes of a block, by its number. Taken modulo the blocks of a [`WINDOW`].
    fn block(&self, number: u32) -> &[u64; 8];

    /// One byte.
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        self.word(at) as u8
    }

    // The functions of `scan`, which are separate global functions in the kernel.

    /// See [`scan::equal`].
    #[inline(always)]
    fn equal(&self, at: u32, len: u32, byte: u8) -> u64
    where
        Self: Sized,
    {
        scan::equal(self, at, len, byte)
    }

    /// See [`scan::name`].
    #[inline(always)]
    fn name(&self, at: u32, len: u32) -> u32
    where
        Self: Sized,
    {
        scan::name(self, at, len)
    }

    /// See [`scan::via`].
    #[inline(always)]
    fn via(&self, at: u32, len: u32, from: u32) -> u32
    where
        Self: Sized,
    {
        scan::via(self, at, len, from)
    }

    /// See [`scan::blanks`].
    #[inline(always)]
    fn blanks(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::blanks(self, at, len)
    }

    /// See [`scan::line_ends`].
    #[inline(always)]
    fn line_ends(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::line_ends(self, at, len)
    }

    /// See [`scan::host_ends`].
    #[inline(always)]
    fn host_ends(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::host_ends(self, at, len)
    }

    /// See [`scan::of_users`].
    #[inline(always)]
    fn of_users(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::of_users(self, at, len)
    }

    /// See [`scan::digits`].
    #[inline(always)]
    fn digits(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::digits(self, at, len)
    }

    /// See [`scan::not_visible`].
    #[inline(always)]
    fn not_visible(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::not_visible(self, at, len)
    }

    /// See [`scan::not_of_tokens`].
    #[inline(always)]
    fn not_of_tokens(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::not_of_tokens(self, at, len)
    }

    /// See [`scan::quoted_pairs`].
    #[inline(always)]
    fn quoted_pairs(&self, at: u32, len: u32) -> u64
    where
        Self: Sized,
    {
        scan::quoted_pairs(self, at, len)
    }
}

/// Restores the unfinished line of earlier windows in front of [`DATA`], and sets the cursor. Write the payload to [`DATA`] afterwards, over
/// what this writes there. `len` is the payload's length, 1 to [`CHUNK`].
#[inline(always)]
pub fn prime<W: Window>(stream: &Stream, window: &mut W, cursor: &mut Cursor, len: u32) {
    if cursor.hash_next != CLOSED {
        cursor.hash_next = if cursor.hash_next >= cursor.end { DATA } else { CLOSED };
    }
    cursor.end = DATA + len;
    cursor.marks = 0;
    cursor.line = DATA;
    cursor.section = DATA.wrapping_sub(stream.section_bytes);
    cursor.pos = DATA;
    cursor.next = DATA;
    if stream.line_bytes != 0 {
        put_back(stream, window, cursor);
    }
}

/// Writes an unfinished line in front of [`DATA`]. Not inlined in the kernel: most windows begin with a new line.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn put_back<W: Window>(stream: &Stream, window: &mut W, cursor: &mut Cursor) {
    let carried = stream.line_bytes;
    cursor.line = DATA.wrapping_sub(carried);
    if carried <= DATA {
        for k in 0..8 {
            window.set_word(DATA - carried + 8 * k, stream.head[k as usize]);
        }
        cursor.pos = DATA - carried;
    } else {
        for k in 0..8 {
            window.set_word(SAVED_HEAD + 8 * k, stream.head[k as usize]);
        }
        window.set_word(DATA - 16, stream.tail[0]);
        window.set_word(DATA - 8, stream.tail[1]);
        // The last byte is processed again: it may be the CR of a CRLF.
        cursor.pos = DATA - 1;
    }
    cursor.next = cursor.pos & !(DATA - 1);
}

/// Saves the unfinished line at the window's end. `Some` is the reason why it cannot be well-formed any more.
#[must_use]
#[inline(always)]
pub fn settle<W: Window>(
    stream: &mut Stream,
    window: &W,
    cursor: &Cursor,
    limits: &Limits,
) -> Option<Reason> {
    if stream.phase != PHASE_START && stream.phase != PHASE_HEADERS {
        stream.line_bytes = 0;
        stream.section_bytes = 0;
        return None;
    }
    keep(stream, window, cursor, limits)
}

/// Saves an unfinished line. Not inlined in the kernel: most windows end between messages.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn keep<W: Window>(stream: &mut Stream, window: &W, cursor: &Cursor, limits: &Limits) -> Option<Reason> {
    if let Err(reason) = within(stream, cursor, window, limits, cursor.end) {
        return Some(reason);
    }
    let line_bytes = cursor.end.wrapping_sub(cursor.line);
    let head_at = cursor.head();
    if head_at != SAVED_HEAD {
        for k in 0..8u32 {
            stream.head[k as usize] = window.word(head_at + 8 * k);
        }
    }
    if line_bytes > DATA {
        stream.tail = [window.word(cursor.end - 16), window.word(cursor.end - 8)];
        let far = line::far_name(stream, window, head_at, cursor.line, line_bytes);
        stream.flags = stream.flags & !(FLAG_FAR_COLON | FLAG_FAR_BAD) | far;
    }
    stream.line_bytes = line_bytes;
    stream.section_bytes = cursor.end.wrapping_sub(cursor.section);
    if stream.phase == PHASE_START {
        line::can_be_start_line(window, head_at, line_bytes).err()
    } else {
        None
    }
}
