//! The framer over a slice, as userspace drives it.

use super::{
    ATTRIBUTES, CHUNK, Cursor, DATA, HashKeys, Limits, Step, Stream, Stun, WINDOW, Window, finish, harmless,
    is_stun, prime, settle, step,
};
use crate::Reason;

/// Userspace compares no retransmissions.
const KEYS: HashKeys = [0; 8];
const WORDS: usize = WINDOW / 8 + 1;

/// The bytes behind a [`Window`] in userspace.
pub struct Buffer([u64; WORDS]);

impl Buffer {
    /// An empty buffer.
    pub const NEW: Buffer = Buffer([0; WORDS]);

    /// Puts bytes at an offset. They must fit.
    pub fn put(&mut self, at: u32, bytes: &[u8]) {
        let at = at as usize;
        bytemuck::cast_slice_mut(&mut self.0)[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Window for Buffer {
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let at = at as usize % WINDOW;
        let mut word = [0; 8];
        word.copy_from_slice(&bytemuck::cast_slice(&self.0)[at..at + 8]);
        u64::from_le_bytes(word)
    }

    #[inline(always)]
    fn set_word(&mut self, at: u32, word: u64) {
        self.put(at % WINDOW as u32, &word.to_le_bytes());
    }

    #[inline(always)]
    fn block(&self, number: u32) -> &[u64; 8] {
        let at = number as usize % (WINDOW / 64) * 8;
        self.0[at..at + 8].try_into().expect("eight words")
    }
}

/// A malformed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why.
    pub reason: Reason,
}

/// Validates the next bytes of a stream.
///
/// # Errors
/// [`Malformed`] with the reason; `stream` is then of no further use.
pub fn feed(
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<(), Malformed> {
    walk(stream, limits, buffer, payload).map(|_| ()).map_err(|reason| Malformed { reason })
}

/// Judges a datagram; `whole` is false for the first of several IP fragments. `stream` is the judge's work space.
///
/// # Errors
/// [`Malformed`] with the reason.
pub fn judge_datagram(
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
    whole: bool,
) -> Result<Reason, Malformed> {
    datagram(stream, limits, buffer, payload, whole).map_err(|reason| Malformed { reason })
}

fn datagram(
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
    whole: bool,
) -> Result<Reason, Reason> {
    let len = payload.len() as u32;
    if harmless(len) {
        return Ok(Reason::NatPing);
    }
    buffer.put(DATA, &payload[..payload.len().min(CHUNK as usize)]);
    if is_stun(buffer, len) {
        return stun(buffer, len, whole);
    }
    stream.begin_datagram();
    let left = walk(stream, limits, buffer, payload)?;
    finish(stream, left, whole, limits)
}

fn stun(buffer: &Buffer, len: u32, whole: bool) -> Result<Reason, Reason> {
    if !whole {
        return Err(Reason::BadStun);
    }
    if len > CHUNK {
        return Ok(Reason::Stun);
    }
    let mut walk = Stun::begin(buffer, len).ok_or(Reason::BadStun)?;
    for _ in 0..ATTRIBUTES {
        if walk.attribute(buffer).ok_or(Reason::BadStun)? {
            break;
        }
    }
    Ok(Reason::Stun)
}

/// Goes through a payload. `Ok` is how many bytes stand behind the point where the framer stopped looking.
fn walk(stream: &mut Stream, limits: &Limits, buffer: &mut Buffer, payload: &[u8]) -> Result<u32, Reason> {
    let mut left = payload.len() as u32;
    for chunk in payload.chunks(CHUNK as usize) {
        let mut cursor = Cursor::default();
        prime(stream, buffer, &mut cursor, chunk.len() as u32);
        buffer.put(DATA, chunk);
        loop {
            match step(stream, &mut cursor, buffer, limits, &KEYS) {
                Step::More => {}
                Step::Done => break,
                Step::Malformed(reason) => return Err(reason),
            }
        }
        if let Some(reason) = settle(stream, buffer, &cursor, limits) {
            return Err(reason);
        }
        left -= chunk.len() as u32;
        if stream.is_at_end() {
            return Ok(left + cursor.end - cursor.pos);
        }
    }
    Ok(left)
}
