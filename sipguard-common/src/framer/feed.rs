//! The framer over a slice, as userspace drives it.

use super::{
    CHUNK, Cursor, DATA, HashKeys, HeaderLine, Limits, MatchKey, MatchSubject, ProxyOutcome, StepOutcome,
    Stream, Stun, WINDOW, Window, apply_match, finish, identity, is_keep_alive_len, is_stun, is_word,
    match_line, prime, proxy, settle, step, user_agent,
};
use crate::Reason;

/// Userspace compares no retransmissions, so the hash needs no secret.
const KEYS: HashKeys = [0; 8];
const WORDS: usize = WINDOW / 8 + 1;

/// The bytes behind a [`Window`] in userspace.
pub struct Buffer([u64; WORDS]);

impl Buffer {
    /// An empty buffer.
    pub const NEW: Buffer = Buffer([0; WORDS]);

    /// Writes bytes at an offset. They must fit.
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

/// A malformed stream, or a message that a rule stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why.
    pub reason: Reason,
    /// Offset in bytes from the payload's first byte to the line at fault (in TLS to the byte); negative where the line began in an earlier
    /// payload of the stream.
    pub line: i64,
}

/// Looks up a rule: the reason to stop a request, by a key and the key's length in bytes.
pub type FindRule<'f> = &'f dyn Fn(MatchSubject, &MatchKey, u32) -> Option<Reason>;

/// No rules.
const NO_RULES: FindRule<'_> = &|_, _, _| None;

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
    feed_with(NO_RULES, stream, limits, buffer, payload)
}

/// As [`feed`], with rules about the header lines of [`Limits::matched_headers`].
///
/// # Errors
/// As [`feed`], also for what a rule stops.
pub fn feed_with(
    find: FindRule<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<(), Malformed> {
    frame_payload(find, stream, limits, buffer, payload).map(drop)
}

/// Validates the next bytes of a stream that are of a PROXY header ([`Stream::is_proxy`]). `Some` is how many of the payload's bytes belong to the
/// header, once it has ended; [`Stream::end_proxy`] then turns to what follows.
///
/// # Errors
/// [`Malformed`] with the reason; `stream` is then of no further use.
pub fn feed_proxy(
    stream: &mut Stream,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<Option<usize>, Malformed> {
    let mut before = 0;
    for chunk in payload.chunks(CHUNK as usize) {
        let end = DATA + chunk.len() as u32;
        let mut cursor = Cursor { pos: DATA, end, ..Cursor::default() };
        buffer.put(DATA, chunk);
        while cursor.pos < end {
            let outcome = proxy(stream, &mut cursor, buffer);
            let taken = before + (cursor.pos - DATA) as usize;
            match outcome {
                ProxyOutcome::More => {}
                ProxyOutcome::Ended => return Ok(Some(taken)),
                ProxyOutcome::Malformed => {
                    return Err(Malformed { reason: Reason::BadProxyHeader, line: taken as i64 - 1 });
                }
            }
        }
        before += chunk.len();
    }
    Ok(None)
}

/// Decides about a datagram; `whole` is false for the first of several IP fragments. `stream` may have any content.
///
/// # Errors
/// [`Malformed`] with the reason.
pub fn decide_datagram(
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
    whole: bool,
) -> Result<Reason, Malformed> {
    decide_datagram_with(NO_RULES, stream, limits, buffer, payload, whole)
}

/// As [`decide_datagram`], with rules about the header lines of [`Limits::matched_headers`].
///
/// # Errors
/// As [`decide_datagram`], also for what a rule stops.
pub fn decide_datagram_with(
    find: FindRule<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
    whole: bool,
) -> Result<Reason, Malformed> {
    let len = payload.len() as u32;
    if is_keep_alive_len(len) {
        return Ok(Reason::NatPing);
    }
    if let Some(head) = payload.first_chunk().map(|head| u64::from_le_bytes(*head))
        && is_stun(head, len)
    {
        return stun(payload, head, whole).map_err(|reason| Malformed { reason, line: 0 });
    }
    stream.begin_datagram();
    // What is missing is missing at the end.
    let at_end = |reason| Malformed { reason, line: i64::from(len) };
    let decided = frame_payload(find, stream, limits, buffer, payload);
    match decided.and_then(|left| finish(stream, left, whole, limits).map_err(at_end)) {
        Err(Malformed { reason: Reason::BadStartLine, .. }) if whole && is_word(buffer, len) => {
            Ok(Reason::NatPing)
        }
        decided => decided,
    }
}

fn stun(payload: &[u8], head: u64, whole: bool) -> Result<Reason, Reason> {
    if !whole {
        return Err(Reason::BadStun);
    }
    let mut stun = Stun::begin(head, payload.len() as u32).ok_or(Reason::BadStun)?;
    while !stun.has_ended() {
        let head = payload.get(stun.at as usize..).and_then(<[u8]>::first_chunk).ok_or(Reason::BadStun)?;
        if !stun.attribute(u32::from_le_bytes(*head)) {
            return Err(Reason::BadStun);
        }
    }
    Ok(Reason::Stun)
}

/// Runs the framer over a payload. `Ok` is how many bytes are behind the point where it stopped.
fn frame_payload(
    find: FindRule<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &mut Buffer,
    payload: &[u8],
) -> Result<u32, Malformed> {
    let mut left = payload.len() as u32;
    if stream.is_proxy() {
        let Some(header) = feed_proxy(stream, buffer, payload)? else { return Ok(0) };
        stream.end_proxy();
        let rest = frame_payload(find, stream, limits, buffer, &payload[header..]);
        return rest.map_err(|fault| Malformed { line: fault.line + header as i64, ..fault });
    }
    for (number, chunk) in payload.chunks(CHUNK as usize).enumerate() {
        let mut cursor = Cursor::default();
        prime(stream, buffer, &mut cursor, chunk.len() as u32);
        buffer.put(DATA, chunk);
        frame_chunk(find, stream, limits, buffer, &mut cursor).map_err(|(reason, at)| {
            // Offsets in the window wrap where a line began before it.
            let within = i64::from(at.wrapping_sub(DATA).cast_signed());
            Malformed { reason, line: number as i64 * i64::from(CHUNK) + within }
        })?;
        left -= chunk.len() as u32;
        if stream.is_at_end() {
            return Ok(left + cursor.end - cursor.pos);
        }
    }
    Ok(left)
}

/// Runs the framer over the window. `Err` is the reason, and the offset in the window of the line at fault.
fn frame_chunk(
    find: FindRule<'_>,
    stream: &mut Stream,
    limits: &Limits,
    buffer: &Buffer,
    cursor: &mut Cursor,
) -> Result<(), (Reason, u32)> {
    loop {
        let in_tls = stream.is_tls();
        let outcome = step(stream, cursor, buffer, limits, &KEYS);
        if let Some(reason) = match_rules(find, stream, cursor, buffer) {
            return Err((reason, cursor.judged_line));
        }
        match outcome {
            StepOutcome::More => {}
            StepOutcome::Done => break,
            StepOutcome::Malformed(reason) => {
                return Err((reason, if in_tls { cursor.pos } else { cursor.line }));
            }
        }
    }
    settle(stream, buffer, cursor, limits).map_or(Ok(()), |reason| Err((reason, cursor.line)))
}

/// Matches the last header line against rules, if it is one of those to be matched.
fn match_rules(
    find: FindRule<'_>,
    stream: &mut Stream,
    cursor: &mut Cursor,
    buffer: &Buffer,
) -> Option<Reason> {
    if cursor.match_due == 0 {
        return None;
    }
    cursor.match_due = 0;
    let header = HeaderLine::of(stream, cursor);
    let mut key = MatchKey::default();
    let outcome = match_line(buffer, &header, |subject| {
        let bytes = match subject {
            MatchSubject::Uri(at) => identity(buffer, &header, at, &mut key),
            MatchSubject::UserAgent(at) => user_agent(buffer, &header, at, &mut key),
        };
        if bytes == 0 { None } else { find(subject, &key, bytes) }
    });
    apply_match(stream, outcome)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    const GOOD: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c\r\nFrom: <sip:a@b>\r\nTo: <sip:b@c>\r\nCall-ID: 1\r\n\
                        CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn the_line_at_fault_is_found_in_every_segmentation() {
        let good = GOOD.repeat(40);
        let bad = GOOD.replace("Content-Length: 0", "Content-Length: x");
        let bytes = [good.as_bytes(), bad.as_bytes()].concat();
        let expected = (good.len() + bad.find("Content-Length").unwrap()) as i64;
        for cut in [0, 1, 100, 4096, good.len(), expected as usize, expected as usize + 5, bytes.len() - 6] {
            let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
            feed(&mut stream, &Limits::default(), &mut buffer, &bytes[..cut]).unwrap();
            let rest = feed(&mut stream, &Limits::default(), &mut buffer, &bytes[cut..]);
            let expected = Malformed { reason: Reason::BadContentLength, line: expected - cut as i64 };
            assert_eq!(rest, Err(expected), "cut at {cut}");
        }
    }

    #[test]
    fn a_datagram_that_ends_too_early_is_at_fault_at_its_end() {
        let cut = &GOOD.as_bytes()[..100];
        let (mut stream, mut buffer) = (Stream::NEW, Buffer::NEW);
        let found = decide_datagram(&mut stream, &Limits::default(), &mut buffer, cut, true);
        assert_eq!(found, Err(Malformed { reason: Reason::NoEndOfHeaders, line: 100 }));
    }
}
