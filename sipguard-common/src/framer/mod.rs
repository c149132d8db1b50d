//! The SIP framer: a push machine over a TCP stream, after RFC 3261 sections 7 and 18.3.
//!
//! It works through a [`Window`] of bytes in steps of at most one line or 64 bytes: a block of 64 bytes is marked with word
//! arithmetic ([`words::mark`]), then one step a line judges it by its first 64 and last 8 bytes. Bodies are skipped by
//! arithmetic. What is unfinished at the window's end is carried over in [`Stream`], so that **any segmentation of the
//! same bytes gives the same verdict**.
//!
//! The XDP program drives [`prime`], [`step`] and [`settle`] from `bpf_loop`; userspace drives the same three in [`feed`].

mod feed;
mod line;
mod start;
mod step;
mod window;
pub mod words;

pub use feed::{Buffer, Malformed, feed};
pub use start::{leading_line_ends, plausible_start};
pub use step::{Cursor, Step, step};
pub use window::{CHUNK, DATA, WINDOW, Window, prime, settle};

use bytemuck::{Pod, Zeroable};

/// Limits of the framer. A value beyond its limit makes the stream malformed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Limits {
    /// Longest line in bytes, the LF not counted. 64 to 65535.
    pub line_bytes: u32,
    /// Longest start line and header section together, in bytes. 64 to 1,000,000.
    pub section_bytes: u32,
    /// Most header lines, continuation lines counted. 1 to 65535.
    pub header_lines: u32,
    /// Longest body in bytes. 0 to 999,999,999.
    pub body_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line_bytes: 4096, section_bytes: 16384, header_lines: 128, body_bytes: 65535 }
    }
}

/// Between messages: CR and LF are keep-alives (RFC 5626 section 3.5.1), anything else starts a message.
pub const PHASE_IDLE: u8 = 0;
/// In the start line.
pub const PHASE_START: u8 = 1;
/// In the header section.
pub const PHASE_HEADERS: u8 = 2;
/// In the body.
pub const PHASE_BODY: u8 = 3;

/// The start line ended with LF alone, so every line of this header section must.
const FLAG_LF: u8 = 1;
/// A Content-Length value was read.
const FLAG_LENGTH: u8 = 2;
/// A Content-Length without a value yet: the next line must continue it.
const FLAG_LENGTH_OPEN: u8 = 4;
/// The last header line was Content-Length, so a continuation line may only hold white space.
const FLAG_LENGTH_LAST: u8 = 8;

/// State of the framer between two windows. Flat, so that it lives in the flow map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// One of the `PHASE_` constants.
    pub phase: u8,
    flags: u8,
    /// Header lines of this message so far.
    lines: u16,
    /// Bytes of the unfinished line so far.
    line_bytes: u32,
    /// Bytes of the start line and header section so far.
    section_bytes: u32,
    /// Content-Length of this message, once read.
    content_length: u32,
    /// Bytes of the body that have not come yet.
    body_left: u32,
    /// Complete messages.
    pub messages: u32,
    /// First 64 bytes of the unfinished line.
    head: [u64; 8],
    /// Last 16 bytes of the unfinished line, kept once it is longer than `head`.
    tail: [u64; 2],
}

impl Stream {
    /// A stream before its first byte.
    pub const NEW: Stream = Stream {
        phase: PHASE_IDLE,
        flags: 0,
        lines: 0,
        line_bytes: 0,
        section_bytes: 0,
        content_length: 0,
        body_left: 0,
        messages: 0,
        head: [0; 8],
        tail: [0; 2],
    };
}
