//! A datagram: one message (RFC 3261 section 18.3), a keep-alive, or STUN.

use super::line;
use super::value::HEAD;
use super::words::{first_bit, low_bits};
use super::{DATA, Limits, PHASE_END, PHASE_IDLE, PHASE_START, Stream, Window, checks};
use crate::Reason;

/// No message is this short, but keep-alives are: CRLF, CRLFCRLF, one to eight NULs, `jaK`.
const PING: u32 = 8;

/// Whether a datagram of `len` bytes is too short for anything but a NAT keep-alive.
#[must_use]
#[inline(always)]
pub const fn is_keep_alive_len(len: u32) -> bool {
    len <= PING
}

/// Most bytes of a keep-alive that is one word.
const WORD: u32 = 16;

/// Whether a datagram of `len` bytes in a window is one word, such as `PING`, and at most line ends and NULs behind it: a keep-alive that no RFC knows. A separate
/// frame in the kernel.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub fn is_word<W: Window>(window: &W, len: u32) -> bool {
    if len > HEAD {
        return false;
    }
    let all = low_bits(len);
    let filler = window.line_ends(DATA, len) | window.equal(DATA, len, 0);
    let end = first_bit(window.not_visible(DATA, len) & all | !all);
    (1..=WORD).contains(&end)
        && window.not_of_tokens(DATA, end) & low_bits(end) == 0
        && all & !low_bits(end) & !filler == 0
}

/// What a datagram is, once the framer went through it. `left` bytes stand behind the header section, and `whole` says
/// that they are all there are (more of it does not come in later IP fragments).
///
/// # Errors
/// The reason why it is malformed.
#[inline(always)]
pub fn finish(stream: &Stream, left: u32, whole: bool, limits: &Limits) -> Result<Reason, Reason> {
    match stream.phase {
        PHASE_IDLE => Ok(Reason::NatPing),
        PHASE_END => {
            let short = stream.content_length > left;
            if short && whole && limits.has(checks::WHOLE_BODY) {
                Err(Reason::TruncatedBody)
            } else {
                Ok(Reason::Valid)
            }
        }
        _ if !whole => Ok(Reason::Valid),
        PHASE_START => Err(Reason::BadStartLine),
        // A proxy or a check that leaves out the empty line; a datagram cut on its way ends in mid-line.
        _ if !limits.has(checks::WHOLE_LINES) || stream.line_bytes == 0 && !limits.has(checks::SENDER) => {
            line::is_complete(stream, limits).map(|()| Reason::Valid)
        }
        _ => Err(Reason::NoEndOfHeaders),
    }
}
