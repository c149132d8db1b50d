//! A datagram: one message (RFC 3261 section 18.3), a keep-alive, or STUN.

use super::{Limits, PHASE_END, PHASE_IDLE, PHASE_START, Stream, checks};
use crate::Reason;

/// No message is this short, but keep-alives are: CRLF, CRLFCRLF, one to eight NULs, `jaK`.
const PING: u32 = 8;

/// Whether a datagram of `len` bytes is too short for anything but a NAT keep-alive.
#[must_use]
#[inline(always)]
pub const fn is_keep_alive_len(len: u32) -> bool {
    len <= PING
}

/// Decides about a datagram after the framer has processed it. `left` bytes are behind the header section; `whole` is false when more come in later
/// IP fragments.
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
        _ => Err(Reason::NoEndOfHeaders),
    }
}
