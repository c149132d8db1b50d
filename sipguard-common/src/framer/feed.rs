//! The framer over a slice, as userspace drives it.

use super::{CHUNK, Cursor, DATA, Limits, Step, Stream, WINDOW, Window, prime, settle, step};
use crate::Reason;

/// The bytes behind a [`Window`] in userspace.
pub struct Buffer([u8; WINDOW + 8]);

impl Buffer {
    /// An empty buffer.
    pub const NEW: Buffer = Buffer([0; WINDOW + 8]);
}

impl Window for Buffer {
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let at = at as usize % WINDOW;
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(word)
    }

    #[inline(always)]
    fn set_word(&mut self, at: u32, word: u64) {
        let at = at as usize % WINDOW;
        self.0[at..at + 8].copy_from_slice(&word.to_le_bytes());
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
    for chunk in payload.chunks(CHUNK as usize) {
        let mut cursor = Cursor::default();
        prime(stream, buffer, &mut cursor, chunk.len() as u32);
        let data = DATA as usize;
        buffer.0[data..data + chunk.len()].copy_from_slice(chunk);
        loop {
            match step(stream, &mut cursor, buffer, limits) {
                Step::More => {}
                Step::Done => break,
                Step::Malformed(reason) => return Err(Malformed { reason }),
            }
        }
        if let Some(reason) = settle(stream, buffer, &cursor) {
            return Err(Malformed { reason });
        }
    }
    Ok(())
}
