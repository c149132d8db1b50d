//! The one vocabulary: why a packet passed or did not.

/// What a [`Reason`] means for the packet. `verdict` in the XDP program turns it into an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The packet goes on to the kernel's stack.
    Pass,
    /// The packet is dropped in `enforce` mode.
    Drop,
    /// The byte stream is malformed: the connection is reset (or the segment dropped, as the action is set).
    Malformed,
}

/// Declares [`Reason`] with its number, word, class and sentence, so that nothing about a reason is typed twice.
macro_rules! reasons {
    ($($variant:ident = $number:literal, $word:literal, $class:ident, $text:literal;)*) => {
        /// Why a packet passed, was dropped or had its connection reset.
        ///
        /// It is the counter's index, the word of the command line and the label of the metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The word of the command line and of the metrics' label, such as `bad-content-length`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$variant => $word,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// What the reason means for the packet.
            #[must_use]
            #[inline(always)]
            pub const fn class(self) -> Class {
                match self { $(Reason::$variant => Class::$class,)* }
            }

            /// The reason of a number, as read from a map; `None` for a number that no reason has.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Reason> {
                match number { $($number => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    NotIp = 0, "not-ip", Pass, "Not an IPv4 or IPv6 packet.";
    NotGuarded = 1, "not-guarded", Pass, "Neither port is guarded, or neither TCP nor UDP.";
    TcpControl = 2, "tcp-control", Pass, "TCP without payload: handshake, acknowledgement, probe, FIN or RST.";
    Valid = 3, "valid", Pass, "TCP payload that was validated in order.";
    Retransmission = 4, "retransmission", Pass, "TCP payload that was validated before, or that the kernel already has.";
    MidStream = 5, "mid-stream", Pass, "A connection older than the guard, in the middle of a message, within the grace time.";
    NoConnection = 6, "no-connection", Pass, "TCP payload that belongs to no connection; the kernel refuses it.";
    UdpUnchecked = 7, "udp-unchecked", Pass, "UDP on a guarded port; its content is not checked.";
    Internal = 8, "internal-error", Pass, "The guard could not judge the packet and let it pass.";
    BlockedHost = 9, "blocked-host", Drop, "The source address is blocked.";
    BlockedPrefix = 10, "blocked-prefix", Drop, "The source address lies in a blocked prefix.";
    BadIpHeader = 11, "bad-ip-header", Drop, "The IP header is shorter than it may be, or longer than the packet.";
    TcpFragment = 12, "tcp-fragment", Drop, "TCP for a guarded port in IP fragments, which cannot be judged in order.";
    BadTcpHeader = 13, "bad-tcp-header", Drop, "The TCP data offset is below 20 bytes or beyond the segment (RFC 9293 section 3.1).";
    BadTcpOptions = 14, "bad-tcp-options", Drop, "A TCP option's length is below 2 or reaches beyond the header (RFC 9293 section 3.2).";
    BadTcpFlags = 15, "bad-tcp-flags", Drop, "An impossible set of TCP flags: SYN with FIN or RST, FIN with RST, or data without ACK.";
    SequenceGap = 16, "sequence-gap", Drop, "TCP payload ahead of the next expected byte; TCP sends it again in order.";
    Conflict = 17, "conflicting-retransmission", Drop, "A retransmission whose bytes differ from those that were validated.";
    UnknownStream = 18, "unknown-stream", Malformed, "The middle of a message on a connection that the guard has not followed.";
    BadStartLine = 19, "bad-start-line", Malformed, "Neither a request line nor a status line (RFC 3261 section 7).";
    BadVersion = 20, "bad-version", Malformed, "A SIP version other than 2.0 (RFC 3261 section 7.1).";
    ControlByte = 21, "control-byte", Malformed, "A NUL or other control byte in the header section (RFC 3261 section 25.1).";
    BareLf = 22, "bare-lf", Malformed, "Line ends mixed in one header section: LF and CRLF.";
    BareCr = 23, "bare-cr", Malformed, "A CR without LF in the header section.";
    LineTooLong = 24, "line-too-long", Malformed, "A line longer than the limit.";
    HeadersTooLong = 25, "headers-too-long", Malformed, "A header section longer than the limit.";
    TooManyHeaders = 26, "too-many-headers", Malformed, "More header lines than the limit.";
    BadHeaderName = 27, "bad-header-name", Malformed, "A header line without a proper name and colon (RFC 3261 section 7.3.1).";
    MissingContentLength = 28, "missing-content-length", Malformed, "No Content-Length on a stream transport (RFC 3261 section 20.14).";
    BadContentLength = 29, "bad-content-length", Malformed, "A Content-Length that is not a number below 1,000,000,000 (RFC 3261 section 20.14).";
    DuplicateContentLength = 30, "duplicate-content-length", Malformed, "Two Content-Length values that differ.";
    BodyTooLarge = 31, "body-too-large", Malformed, "A body longer than the limit.";
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the byte stream is malformed.
    #[must_use]
    #[inline(always)]
    pub const fn is_malformed(self) -> bool {
        matches!(self.class(), Class::Malformed)
    }

    /// The counter's index and the number in events.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_words_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.number()), index, "{}", reason.word());
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            let same = Reason::ALL.iter().filter(|other| other.word() == reason.word()).count();
            assert_eq!(same, 1, "{}", reason.word());
            assert!(reason.text().ends_with('.'), "{}", reason.word());
        }
        assert_eq!(Reason::from_number(Reason::COUNT as u8), None);
        assert!(Reason::COUNT <= crate::abi::REASON_SLOTS as usize);
    }
}
