//! Checks that are switched off, as limits: the one place that knows which limit or check makes which reason.

use super::{Limits, checks};
use crate::Reason;

/// What a size that is not checked is held to, so that no count of bytes overflows: 1 GiB.
const ENDLESS: u32 = 1 << 30;
/// What the Content-Length of a body that is not checked is held to, as [`Reason::BadContentLength`] is.
const LARGEST_BODY: u32 = 999_999_999;

/// What makes the reasons whose checks can be switched off. [`Reason::BadStun`] is none of the framer's.
const CHECKS: [(Reason, u32); 9] = [
    (Reason::BadVersion, checks::VERSION),
    (Reason::ControlByte, checks::CONTROL_BYTES),
    (Reason::BadHeaderName, checks::NAMES),
    (Reason::MissingHeader, checks::MANDATORY),
    (Reason::DuplicateHeader, checks::SINGLETONS),
    (Reason::BadNumber, checks::NUMBERS),
    (Reason::CseqMismatch, checks::CSEQ),
    (Reason::NoEndOfHeaders, checks::WHOLE_LINES),
    (Reason::TruncatedBody, checks::WHOLE_BODY),
];

impl Limits {
    /// Switches checks off: a set of [`Reason::check_bit`]. Those of reasons that lose the framing are not.
    #[inline(always)]
    pub fn switch_off(&mut self, off: u64) {
        let is_off = |reason: Reason| off & reason.check_bit() != 0;
        for (reason, check) in CHECKS {
            if is_off(reason) {
                self.checks &= !check;
            }
        }
        if is_off(Reason::LineTooLong) {
            (self.line_bytes, self.other_line_bytes) = (ENDLESS, ENDLESS);
        }
        if is_off(Reason::HeadersTooLong) {
            self.section_bytes = ENDLESS;
        }
        if is_off(Reason::TooManyHeaders) {
            (self.header_lines, self.same_name) = (u32::MAX, 255);
        }
        if is_off(Reason::BodyTooLarge) {
            self.body_bytes = LARGEST_BODY;
        }
        if is_off(Reason::SlowMessage) {
            (self.message_ms, self.message_segments) = (0, 0);
        }
    }
}
