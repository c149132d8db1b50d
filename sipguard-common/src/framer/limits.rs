//! Limits and optional checks of the framer: values of a map, not constants.

use bytemuck::{Pod, Zeroable};

use crate::Reason;

/// Bits of [`Limits::checks`].
pub mod checks {
    /// Via, From, To, Call-ID and CSeq must be there (RFC 3261 section 8.1.1).
    pub const MANDATORY: u32 = 1;
    /// From, To, Call-ID and CSeq come once, and Max-Forwards has one value.
    pub const SINGLETONS: u32 = 2;
    /// The method of CSeq is the request's (RFC 3261 section 8.1.1.5).
    pub const CSEQ: u32 = 4;
    /// Numbers must not overflow.
    pub const NUMBERS: u32 = 8;
    /// Strict: methods and header names are tokens (RFC 3261 section 25.1).
    pub const TOKENS: u32 = 16;
    /// Strict: no white space where most senders put none: before a header's colon, at the ends of a Request-URI.
    pub const SPACES: u32 = 32;
    /// Strict: a request has a Max-Forwards of at most 255 (RFC 3261 section 20.22).
    pub const MAX_FORWARDS: u32 = 64;
    /// Strict: a datagram holds the whole body that its Content-Length promises (RFC 3261 section 18.3).
    pub const WHOLE_BODY: u32 = 128;
    /// Lines end with CRLF; LF alone is refused even where every line ends so.
    pub const REFUSE_LF: u32 = 256;
    /// Strict: all lines of a header section end alike.
    pub const SAME_ENDS: u32 = 512;
    /// Strict: what only its sender must keep to: CSeq is below 2**31 (RFC 3261 section 8.1.1.5), and the empty line is there in a datagram.
    pub const SENDER: u32 = 1024;
    /// The version is 2.0 (RFC 3261 section 7.1).
    pub const VERSION: u32 = 2048;
    /// No byte below 0x20 in the header section (RFC 3261 section 25.1).
    pub const CONTROL_BYTES: u32 = 4096;
    /// Each header line has a proper name and a colon (RFC 3261 section 7.3.1).
    pub const NAMES: u32 = 8192;
    /// A datagram does not end within a line of its header section.
    pub const WHOLE_LINES: u32 = 16_384;

    /// The default profile.
    pub const DEFAULT: u32 =
        MANDATORY | SINGLETONS | CSEQ | NUMBERS | VERSION | CONTROL_BYTES | NAMES | WHOLE_LINES;
    /// The strict profile.
    pub const STRICT: u32 = DEFAULT | TOKENS | SPACES | MAX_FORWARDS | WHOLE_BODY | SAME_ENDS | SENDER;
}

/// Limits and checks of the framer. A message beyond a limit is malformed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Limits {
    /// Longest start line, Via, From, To, Contact, Call-ID, CSeq or Content-Length line in bytes, the LF not counted: those that parsers keep in buffers of a fixed size.
    /// 64 to 65535.
    pub line_bytes: u32,
    /// Longest line of any other header in bytes, the LF not counted. 64 to 1,000,000.
    pub other_line_bytes: u32,
    /// Longest start line and header section together, in bytes. 64 to 1,000,000.
    pub section_bytes: u32,
    /// Most header lines, continuation lines counted. 1 to 65535.
    pub header_lines: u32,
    /// Most header lines of one name. 1 to 255, which is no limit.
    pub same_name: u32,
    /// Longest body in bytes. 0 to 999,999,999.
    pub body_bytes: u32,
    /// Longest time from the first byte of a message to its last, in milliseconds; 0 is no limit. Checked in the flow, not by the framer.
    pub message_ms: u32,
    /// Most segments that one message comes in; 0 is no limit. Checked in the flow, not by the framer.
    pub message_segments: u32,
    /// Which checks are made: bits of [`checks`].
    pub checks: u32,
    /// Methods that are refused though well-formed: bits of [`super::methods`].
    pub denied: u32,
    /// Which header lines are matched against rules: sets of [`super::matched_headers`].
    pub matched_headers: u32,
    /// Zero.
    pub pad: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line_bytes: 4096,
            other_line_bytes: 65_535,
            section_bytes: 65_535,
            header_lines: 150,
            same_name: 32,
            body_bytes: 512 << 10,
            message_ms: 30_000,
            message_segments: 0,
            checks: checks::DEFAULT,
            denied: 0,
            matched_headers: 0,
            pad: 0,
        }
    }
}

impl Limits {
    /// The strict profile: grammar as well, and less patience.
    #[must_use]
    pub fn strict() -> Self {
        Limits {
            other_line_bytes: 4096,
            section_bytes: 16_384,
            header_lines: 128,
            body_bytes: 65_535,
            message_ms: 10_000,
            message_segments: 512,
            checks: checks::STRICT,
            ..Limits::default()
        }
    }

    /// Whether a check is made.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, check: u32) -> bool {
        self.checks & check != 0
    }

    /// Refuses a message for a reason where a check is made.
    #[inline(always)]
    pub(super) const fn refuse(&self, check: u32, reason: Reason) -> Result<(), Reason> {
        if self.has(check) { Err(reason) } else { Ok(()) }
    }
}

/// A limit with its name on the command line and in the documentation.
pub struct NamedLimit {
    /// Its name, such as `line-bytes`.
    pub name: &'static str,
    /// Its lowest and highest value.
    pub range: (u32, u32),
    /// What it limits.
    pub text: &'static str,
    get: fn(&Limits) -> u32,
    set: fn(&mut Limits, u32),
}

macro_rules! named {
    ($($field:ident, $name:literal, $low:literal..=$high:literal, $text:literal;)*) => {
        /// Every limit.
        pub const LIMITS: &[NamedLimit] = &[$(NamedLimit {
            name: $name,
            range: ($low, $high),
            text: $text,
            get: |limits| limits.$field,
            set: |limits, value| limits.$field = value,
        },)*];
    };
}

named! {
    line_bytes, "line-bytes", 64..=65_535, "bytes of the start line, or of a Via, From, To, Contact, Call-ID, CSeq or Content-Length line";
    other_line_bytes, "other-line-bytes", 64..=1_000_000, "bytes of a line of any other header";
    section_bytes, "section-bytes", 64..=1_000_000, "bytes of start line and header section together";
    header_lines, "header-lines", 1..=65_535, "header lines of one message, continuation lines counted";
    same_name, "same-name", 1..=255, "header lines of one name (255: no limit)";
    body_bytes, "body-bytes", 0..=999_999_999, "bytes of a body";
    message_ms, "message-ms", 0..=3_600_000, "milliseconds from a message's first segment to its last (0: no limit)";
    message_segments, "message-segments", 0..=1_000_000, "TCP segments that one message comes in (0: no limit)";
}

impl NamedLimit {
    /// The limit's value.
    #[must_use]
    pub fn get(&self, limits: &Limits) -> u32 {
        (self.get)(limits)
    }

    /// Sets the limit's value, which must lie within its range.
    pub fn set(&self, limits: &mut Limits, value: u32) {
        (self.set)(limits, value);
    }
}
