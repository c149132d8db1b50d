//! The SIP framer: an incremental parser of a TCP stream (RFC 3261 sections 7 and 18.3), also of the one message of a datagram.
//!
//! It processes a [`Window`] of bytes in steps. A block of 64 bytes is marked and hashed with word arithmetic ([`words::control`],
//! [`words::sum`]); then each of its control bytes is a step. The step that ends a line checks it by its first 64 and last 8 bytes. Bodies are
//! skipped by arithmetic. An unfinished line is carried over in [`Stream`], so that **any segmentation of the same bytes gives the same
//! verdict**.
//!
//! The XDP program drives [`prime`], [`step`] and [`settle`] from `bpf_loop`; userspace drives the same three in [`feed`] and
//! [`decide_datagram`].

#[cfg(test)]
extern crate std;

mod datagram;
mod feed;
mod limits;
mod line;
mod match_headers;
pub mod methods;
mod names;
mod proxy;
pub mod scan;
mod start;
mod step;
mod stun;
mod switch_off;
mod tls;
mod value;
mod window;
pub mod words;

pub use datagram::{finish, is_keep_alive_len, is_word};
pub use feed::{
    Buffer, FindRule, Malformed, decide_datagram, decide_datagram_with, feed, feed_proxy, feed_with,
};
pub use limits::{LIMITS, Limits, NamedLimit, checks};
pub use match_headers::{
    HeaderLine, MATCH_KEY_BYTES, MatchKey, MatchOutcome, MatchSubject, apply_match, identity, identity_of,
    match_line, matched_headers, user_agent,
};
pub use names::name_bucket;
pub use proxy::{ProxyOutcome, proxy};
pub use start::{leading_line_ends, may_become_record, may_become_start, plausible_record, plausible_start};
pub use step::{Cursor, StepOutcome, step};
pub use stun::{ATTRIBUTES, STUN_HEAD, Stun, is_stun};
pub use window::{CHUNK, DATA, WINDOW, Window, prime, settle};
pub use words::HashKeys;

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// Between messages: CR, LF and a few NULs are filler (RFC 3261 section 7.5, RFC 5626 section 3.5.1), anything else starts a message.
pub const PHASE_IDLE: u8 = 0;
/// In the start line.
pub const PHASE_START: u8 = 1;
/// In the header section.
pub const PHASE_HEADERS: u8 = 2;
/// In the body.
pub const PHASE_BODY: u8 = 3;
/// Behind the header section of a datagram.
pub const PHASE_END: u8 = 4;
/// At the first byte of a connection to a TLS port.
pub const PHASE_HELLO: u8 = 5;
/// In the header of a TLS record.
pub const PHASE_RECORD: u8 = 6;
/// In the content of a TLS record.
pub const PHASE_CONTENT: u8 = 7;
/// In the PROXY header that a connection begins with.
pub const PHASE_PROXY: u8 = 8;

/// A request, not a response.
const FLAG_REQUEST: u8 = 2;
/// A datagram: Content-Length is optional, and what follows the message is ignored.
const FLAG_DATAGRAM: u8 = 4;
/// The first record of a TLS connection.
const FLAG_HELLO: u8 = 8;
/// The unfinished line, if it begins with 64 bytes of a header name, has its colon behind them.
const FLAG_FAR_COLON: u8 = 16;
/// Such a line cannot become a header any more.
const FLAG_FAR_BAD: u8 = 32;
/// TLS follows the PROXY header.
const FLAG_TLS: u8 = 64;
/// A header section of this stream ended with LF LF. From then on there is no LF CR LF, which ends a section for who does not know LF LF.
const FLAG_LF: u8 = 64;
/// In the body behind such a section: the last byte was a LF.
const FLAG_BEHIND_LF: u8 = 128;

/// The last line ended with LF alone.
const ENDS_LF: u8 = 1;
/// Of the lines of this message some ended with CRLF and some with LF alone.
const ENDS_MIXED: u8 = 2;
/// A line of Content-Length ended with LF alone, or the empty line is behind or before one.
const ENDS_FRAMING: u8 = 4;
/// The line before one of Content-Length ended with LF alone.
const ENDS_BEFORE_LENGTH: u8 = 8;
/// A line of Via ended with LF alone.
const ENDS_VIA: u8 = 16;

/// Kinds of [`Stream::place`], in its two highest bits.
const PLACE_IDLE: u32 = 0;
const PLACE_BODY: u32 = 1 << 30;
const PLACE_TLS: u32 = 2 << 30;
/// The other bits: bytes that are left, or what is known between messages.
const PLACE_REST: u32 = (1 << 30) - 1;

/// Buckets that header names are counted in.
const NAME_BUCKETS: usize = 32;

/// State of the framer between two windows. Flat, so that it lives in the flow map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// One of the `PHASE_` constants.
    pub phase: u8,
    flags: u8,
    /// HeaderLine lines of this message so far; in a TLS record or PROXY header, bytes of it.
    lines: u16,
    /// One bit for each known header name that has come.
    seen: u16,
    /// The known name of the last header line; of a PROXY header 1 once it has named a client.
    last: u8,
    /// What is still missing of the value of the last header line.
    open: u8,
    /// Bytes of the unfinished line so far.
    line_bytes: u32,
    /// Bytes of the start line and header section so far.
    section_bytes: u32,
    /// Content-Length of this message, once read.
    content_length: u32,
    /// Bytes of the body, of a TLS record, or behind the addresses of a PROXY header, that are still to come.
    pub body_left: u32,
    /// Complete messages.
    pub messages: u32,
    /// Length of the request's method.
    method_bytes: u8,
    /// NULs in a row that came last between two messages.
    nuls: u8,
    /// REGISTER requests that began since this was set to zero, up to 255.
    pub registers: u8,
    /// INVITE requests that began since this was set to zero, up to 255.
    pub invites: u8,
    /// The request's method: up to eight bytes as they are, longer ones hashed.
    method: u64,
    /// Value of Max-Forwards, once it has come.
    hops: u32,
    /// How the lines of this message ended: `ENDS_` bits.
    ends: u8,
    /// Zero.
    pad: [u8; 3],
    /// Header lines of this message by the bucket of their name.
    names: [u8; NAME_BUCKETS],
    /// First 64 bytes of the unfinished line; in a PROXY header what is known of it.
    head: [u64; 8],
    /// Last 16 bytes of the unfinished line, kept once it is longer than `head`.
    tail: [u64; 2],
}

impl Stream {
    /// 64-bit words of a stream.
    pub const WORDS: usize = size_of::<Stream>() / 8;
    /// Words up to `method_bytes`: the part that is in use between messages and in a body.
    pub const FEWEST_WORDS: usize = 4;

    /// What [`Stream::place`] is where the state is more than a number.
    pub const NO_PLACE: u32 = u32::MAX;

    /// A stream before its first byte.
    pub const NEW: Stream = Stream {
        phase: PHASE_IDLE,
        flags: 0,
        lines: 0,
        seen: 0,
        last: 0,
        open: 0,
        line_bytes: 0,
        section_bytes: 0,
        content_length: 0,
        body_left: 0,
        messages: 0,
        method_bytes: 0,
        nuls: 0,
        registers: 0,
        invites: 0,
        method: 0,
        hops: 0,
        ends: 0,
        pad: [0; 3],
        names: [0; NAME_BUCKETS],
        head: [0; 8],
        tail: [0; 2],
    };

    /// Resets to a stream before its first byte. `messages` keeps its value.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.phase = PHASE_IDLE;
        self.flags = 0;
        self.lines = 0;
        self.seen = 0;
        self.last = 0;
        self.open = 0;
        self.line_bytes = 0;
        self.section_bytes = 0;
        self.content_length = 0;
        self.body_left = 0;
        self.nuls = 0;
    }

    /// Turns a stream before its first byte into that of a datagram.
    #[inline(always)]
    pub fn begin_datagram(&mut self) {
        self.phase = PHASE_IDLE;
        self.flags = FLAG_DATAGRAM;
        self.line_bytes = 0;
        self.section_bytes = 0;
        self.messages = 0;
    }

    /// Turns a stream before its first byte into that of a TLS port; `known` when that is the connection's first byte.
    #[inline(always)]
    pub fn begin_tls(&mut self, known: bool) {
        self.phase = if known { PHASE_HELLO } else { PHASE_RECORD };
        self.flags = 0;
        self.lines = 0;
        self.head[0] = 0;
    }

    /// Skips the next `len` bytes if they are within a body or TLS record that continues behind them and that nobody looks at. Returns whether
    /// it did.
    #[inline(always)]
    pub fn skip(&mut self, len: u32) -> bool {
        let unseen = self.phase == PHASE_BODY && self.flags & FLAG_LF == 0 || self.phase == PHASE_CONTENT;
        let within = unseen && len < self.body_left;
        if within {
            self.body_left -= len;
        }
        within
    }

    /// The whole state as one number, where it is so small: between messages, in a body, and at or in a TLS record. [`Stream::NO_PLACE`] in a
    /// start line, in a header section, in the header of a TLS record, and in a body that is looked at.
    #[must_use]
    #[inline(always)]
    pub fn place(&self) -> u32 {
        match self.phase {
            PHASE_IDLE => PLACE_IDLE | u32::from(self.flags & FLAG_LF) << 8 | u32::from(self.nuls),
            PHASE_BODY if self.flags & FLAG_LF == 0 => PLACE_BODY | self.body_left,
            PHASE_CONTENT => PLACE_TLS | self.body_left,
            PHASE_RECORD if self.lines == 0 && self.flags & FLAG_HELLO == 0 => PLACE_TLS,
            _ => Self::NO_PLACE,
        }
    }

    /// Goes to a [`Stream::place`] that is one.
    #[inline(always)]
    pub fn resume(&mut self, place: u32) {
        self.begin();
        self.registers = 0;
        self.invites = 0;
        let rest = place & PLACE_REST;
        match place & !PLACE_REST {
            PLACE_IDLE => {
                self.flags = (rest >> 8) as u8;
                self.nuls = rest as u8;
            }
            PLACE_BODY => {
                self.phase = PHASE_BODY;
                self.body_left = rest;
            }
            _ => {
                self.begin_tls(false);
                if rest != 0 {
                    self.phase = PHASE_CONTENT;
                    self.body_left = rest;
                }
            }
        }
    }

    /// How many of the stream's 64-bit words are in use in its phase; the others have any value.
    #[inline(always)]
    pub fn words(&self) -> usize {
        if self.phase == PHASE_IDLE || self.phase == PHASE_BODY {
            Stream::FEWEST_WORDS
        } else {
            Stream::WORDS
        }
    }

    /// Whether the next byte is of a TLS record.
    #[must_use]
    #[inline(always)]
    pub fn is_tls(&self) -> bool {
        matches!(self.phase, PHASE_HELLO | PHASE_RECORD | PHASE_CONTENT)
    }

    /// Whether the header section of a datagram has ended.
    #[must_use]
    #[inline(always)]
    pub fn is_at_end(&self) -> bool {
        self.phase == PHASE_END
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    #[inline(always)]
    pub fn is_within_message(&self) -> bool {
        matches!(self.phase, PHASE_START | PHASE_HEADERS | PHASE_BODY)
    }
}

/// The fields of [`Stream`] with offset and size, for the ABI's layout.
pub(crate) fn stream_layout(out: &mut dyn fmt::Write) -> fmt::Result {
    use core::mem::{offset_of, size_of_val};
    macro_rules! fields {
        ($($field:ident),* $(,)?) => {{
            let Stream { $($field),* } = Stream::NEW;
            $(writeln!(out, "  {} at {} size {}", stringify!($field), offset_of!(Stream, $field), size_of_val(&$field))?;)*
            Ok(())
        }};
    }
    fields!(
        phase,
        flags,
        lines,
        seen,
        last,
        open,
        line_bytes,
        section_bytes,
        content_length,
        body_left,
        messages,
        method_bytes,
        nuls,
        registers,
        invites,
        method,
        hops,
        ends,
        pad,
        names,
        head,
        tail
    )
}
