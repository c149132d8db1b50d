//! The framer over a slice, as userspace drives it.

use super::{
    CHUNK, Cursor, DATA, HashKeys, Header, Key, Limits, Step, Stream, Stun, Subject, WINDOW, Window, answer,
    ask, finish, harmless, identity, is_stun, prime, settle, step, user_agent,
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

/// Looks for a rule: the reason to stop a request for what it is about, by a key and its length in bytes.
pub type Find<'f> = &'f dyn Fn(Subject, &Key, u32) -> Option<Reason>;

/// There is no rule about anything.
const NO_RULES: Find<'_> = &|_, _, _| None;

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
    feed_by(NO_RULES, stream, limits, buffer, payload)
}

/// The same, with rules about the lines that [`Limits::screens`] has.
///
/// # Errors
/// As [`feed`], also for what a rule stops.
pub fn feed_by(
    find: Find<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<(), Malformed> {
    walk(find, stream, limits, buffer, payload).map(|_| ()).map_err(|reason| Malformed { reason })
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
    judge_datagram_by(NO_RULES, stream, limits, buffer, payload, whole)
}

/// The same, with rules about the lines that [`Limits::screens`] has.
///
/// # Errors
/// As [`judge_datagram`], also for what a rule stops.
pub fn judge_datagram_by(
    find: Find<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
    whole: bool,
) -> Result<Reason, Malformed> {
    datagram(find, stream, limits, buffer, payload, whole).map_err(|reason| Malformed { reason })
}

fn datagram(
    find: Find<'_>,
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
    if let Some(head) = payload.first_chunk().map(|head| u64::from_le_bytes(*head))
        && is_stun(head, len)
    {
        return stun(payload, head, whole);
    }
    stream.begin_datagram();
    let left = walk(find, stream, limits, buffer, payload)?;
    finish(stream, left, whole, limits)
}

fn stun(payload: &[u8], head: u64, whole: bool) -> Result<Reason, Reason> {
    if !whole {
        return Err(Reason::BadStun);
    }
    let mut walk = Stun::begin(head, payload.len() as u32).ok_or(Reason::BadStun)?;
    while !walk.has_ended() {
        let head = payload.get(walk.at as usize..).and_then(<[u8]>::first_chunk).ok_or(Reason::BadStun)?;
        if !walk.attribute(u32::from_le_bytes(*head)) {
            return Err(Reason::BadStun);
        }
    }
    Ok(Reason::Stun)
}

/// Goes through a payload. `Ok` is how many bytes stand behind the point where the framer stopped looking.
fn walk(
    find: Find<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<u32, Reason> {
    let mut left = payload.len() as u32;
    for chunk in payload.chunks(CHUNK as usize) {
        let mut cursor = Cursor::default();
        prime(stream, buffer, &mut cursor, chunk.len() as u32);
        buffer.put(DATA, chunk);
        loop {
            let step = step(stream, &mut cursor, buffer, limits, &KEYS);
            if let Some(reason) = asked(find, stream, &mut cursor, buffer) {
                return Err(reason);
            }
            match step {
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

/// Asks rules about the line that was judged last, where that is wanted.
fn asked(find: Find<'_>, stream: &mut Stream, cursor: &mut Cursor, buffer: &Buffer) -> Option<Reason> {
    if cursor.asks == 0 {
        return None;
    }
    cursor.asks = 0;
    let header = Header::of(stream, cursor);
    let mut key = Key::default();
    let screened = ask(buffer, &header, |subject| {
        let bytes = match subject {
            Subject::Uri(at) => identity(buffer, &header, at, &mut key),
            Subject::UserAgent(at) => user_agent(buffer, &header, at, &mut key),
        };
        if bytes == 0 { None } else { find(subject, &key, bytes) }
    });
    answer(stream, screened)
}
