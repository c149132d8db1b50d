//! The reasons: why a packet passed or did not.

/// What a [`Reason`] means for the packet. `verdict` in the XDP program turns it into an XDP action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The packet goes on to the kernel's stack.
    Pass,
    /// The packet is dropped in `enforce` mode.
    Drop,
    /// The connection cannot be validated any further and is reset, or its segments are dropped, as the action is set. No violation of the sender.
    Reset,
    /// The sender's data is malformed: a connection is reset, or its segments are dropped, as the action is set; a datagram is dropped.
    Malformed,
}

impl Class {
    /// Its name, as metrics and JSON have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Pass => "pass",
            Class::Drop => "drop",
            Class::Reset => "reset",
            Class::Malformed => "malformed",
        }
    }
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// In both profiles, subject to a switch or limit of its own.
    Default,
    /// More is refused in the `strict` profile than by default, as the text says.
    Stricter,
    /// In the `strict` profile alone.
    Strict,
}

/// Declares [`Reason`] so that nothing about a reason is typed twice.
macro_rules! reasons {
    ($($variant:ident = $number:literal, $name:literal, $class:ident, $when:ident, $text:literal,
        $spec:literal, $advisories:literal;)*) => {
        /// Why a packet passed, was dropped or had its connection reset.
        ///
        /// It is the counter's index, the name on the command line, the label of the metrics and a row of `docs/reference/checks.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The name on the command line and in the metrics' label, such as `bad-content-length`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// One or more sentences for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// The specification of the rule, such as `RFC 3261 7.1`; empty where the rule is the guard's own.
            #[must_use]
            pub const fn spec(self) -> &'static str {
                match self { $(Reason::$variant => $spec,)* }
            }

            /// Published faults of real systems that the check catches.
            #[must_use]
            pub const fn advisories(self) -> &'static str {
                match self { $(Reason::$variant => $advisories,)* }
            }

            /// When the check is made.
            #[must_use]
            pub const fn when(self) -> When {
                match self { $(Reason::$variant => When::$when,)* }
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
    NotIp = 0, "not-ip", Pass, Always,
        "Not an IPv4 or IPv6 packet.",
        "", "";
    NotGuarded = 1, "not-guarded", Pass, Always,
        "Neither port is guarded, or neither TCP nor UDP.",
        "", "";
    TcpControl = 2, "tcp-control", Pass, Always,
        "TCP without payload: handshake, acknowledgement, probe, FIN or RST.",
        "RFC 9293 3.5", "";
    Valid = 3, "valid", Pass, Always,
        "SIP that was validated: the next bytes of a TCP connection, or a datagram.",
        "RFC 3261 7, 18.3", "";
    Retransmission = 4, "retransmission", Pass, Always,
        "TCP payload that was validated before, or that the kernel already has.",
        "RFC 9293 3.8", "";
    MidStream = 5, "mid-stream", Pass, Always,
        "A connection older than the guard, in the middle of a message, within the grace time.",
        "", "";
    NoConnection = 6, "no-connection", Pass, Always,
        "TCP payload that belongs to no connection; the kernel refuses it.",
        "", "";
    NatPing = 7, "nat-ping", Pass, Always,
        "A UDP keep-alive: at most 8 bytes; or line ends alone, or at most 64 bytes of line ends and NULs, or of one word and such.",
        "RFC 5626 3.5.1", "";
    Stun = 8, "stun", Pass, Always,
        "STUN on a guarded UDP port, with lengths that are true.",
        "RFC 8489 5", "";
    Tls = 9, "tls", Pass, Always,
        "TLS records whose framing is right. Nothing is decrypted.",
        "RFC 8446 5.1", "";
    Internal = 10, "internal-error", Pass, Always,
        "The guard could not judge the packet and let it pass.",
        "", "";
    BlockedHost = 11, "blocked-host", Drop, Always,
        "The source address is blocked.",
        "", "";
    BlockedPrefix = 12, "blocked-prefix", Drop, Always,
        "The source address lies in a blocked prefix.",
        "", "";
    BadIpHeader = 13, "bad-ip-header", Drop, Always,
        "The IP header is shorter than it may be, or longer than the packet, or says twice which fragment it is.",
        "RFC 791 3.1, RFC 8200 3", "";
    TcpFragment = 14, "tcp-fragment", Drop, Always,
        "The first IP fragment of TCP for a guarded port, or of a connection that the PBX dialled: fragments cannot be judged in order.",
        "RFC 791 3.2, RFC 3128", "";
    TinyFragment = 15, "tiny-fragment", Drop, Always,
        "A first fragment of UDP for a guarded port that is too short to be judged.",
        "RFC 1858 3", "";
    BadTcpHeader = 16, "bad-tcp-header", Drop, Always,
        "The TCP data offset is below 20 bytes or beyond the segment.",
        "RFC 9293 3.1", "";
    BadTcpOptions = 17, "bad-tcp-options", Drop, Always,
        "A TCP option's length is below 2 or reaches beyond the header.",
        "RFC 9293 3.2", "";
    BadTcpFlags = 18, "bad-tcp-flags", Drop, Always,
        "An impossible set of TCP flags (SYN with FIN or RST, FIN with RST, data without ACK), or urgent data.",
        "RFC 9293 3.1", "";
    SynData = 19, "data-on-syn", Drop, Always,
        "A SYN with payload that could not be cut off: in monitor mode, which changes nothing.",
        "RFC 7413 4.2", "";
    BadUdpHeader = 20, "bad-udp-header", Drop, Always,
        "The UDP length is below 8 bytes or beyond the packet.",
        "RFC 768", "";
    BadChecksum = 21, "bad-tcp-checksum", Drop, Always,
        "Payload that would be malformed, in a segment whose TCP checksum is wrong: damaged on its way.",
        "RFC 9293 3.1", "";
    SequenceGap = 22, "sequence-gap", Drop, Always,
        "TCP payload ahead of the next expected byte; TCP sends it again in order.",
        "RFC 9293 3.10.7", "";
    Conflict = 23, "conflicting-retransmission", Drop, Always,
        "A retransmission whose bytes differ from those that were validated.",
        "RFC 9293 3.10.7", "";
    OutOfStep = 24, "out-of-step", Reset, Always,
        "Retransmissions that keep differing from what was validated, of bytes that the kernel does not have.",
        "", "";
    UnknownStream = 25, "unknown-stream", Reset, Always,
        "The middle of a message on a connection that the guard has not followed.",
        "", "";
    SlowMessage = 26, "slow-message", Reset, Default,
        "A message that takes longer, or comes in more segments, than the limits allow.",
        "", "slow senders";
    BadStartLine = 27, "bad-start-line", Malformed, Stricter,
        "Neither a request line nor a status line; on a stream also more than 16 NULs in a row before it, a CR where messages end with LF alone, or a request line that reads like Content-Length. Strict: a method that is no token, more spaces than two in a request line, or a NUL before it.",
        "RFC 3261 7.1, 7.2", "OpenSIPS #950, OpenSIPS #3454, Kamailio #2044";
    BadVersion = 28, "bad-version", Malformed, Default,
        "A SIP version other than 2.0.",
        "RFC 3261 7.1", "";
    ControlByte = 29, "control-byte", Malformed, Stricter,
        "A NUL or other byte below 0x20 in the header section, unless a backslash quotes it in a quoted string, within the first 64 bytes of its line. Strict: there too.",
        "RFC 3261 25.1", "CVE-2011-2529, CVE-2016-9938, CVE-2023-27598";
    BareLf = 30, "bare-lf", Malformed, Stricter,
        "Line ends mixed in one header section, LF and CRLF, on a stream where the Content-Length line or the empty line is bounded by a LF alone: receivers would find different ends; also CRLF behind a message on the same stream whose empty line ended with LF alone, and LF CR in the body of such a message. On either transport a Via line that ends with LF alone among lines that end with CRLF. Strict: any mixture. With `refuse-lf`, any LF alone.",
        "RFC 3261 7", "CVE-2023-27598";
    BareCr = 31, "bare-cr", Malformed, Default,
        "A CR without LF in the header section.",
        "RFC 3261 7", "";
    LineTooLong = 32, "line-too-long", Malformed, Default,
        "A start line, Via, From, To, Contact, Call-ID, CSeq or Content-Length line longer than `line-bytes`, or another line longer than `other-line-bytes`. Brings nobody nearer to a ban.",
        "", "CVE-2018-8828, CVE-2020-27507, CVE-2017-9372, AST-2016-004, Kamailio #2044";
    HeadersTooLong = 33, "headers-too-long", Malformed, Default,
        "A header section longer than the limit. Brings nobody nearer to a ban.",
        "", "CVE-2016-2385";
    TooManyHeaders = 34, "too-many-headers", Malformed, Default,
        "More header lines than the limit, or more of one name; Via, Route, Record-Route, Path and Contact may repeat freely. Brings nobody nearer to a ban.",
        "", "CVE-2018-7284";
    BadHeaderName = 35, "bad-header-name", Malformed, Stricter,
        "A header line without a proper name of at most 127 bytes and a colon. Strict: a name of 64 bytes or more, one that is no token, or white space before the colon.",
        "RFC 3261 7.3.1", "CVE-2016-9938, CVE-2026-45538, CVE-2020-28361";
    MissingHeader = 36, "missing-header", Malformed, Default,
        "Via, From, To, Call-ID or CSeq is missing, or empty. Strict: Max-Forwards in a request too.",
        "RFC 3261 8.1.1", "";
    DuplicateHeader = 37, "duplicate-header", Malformed, Default,
        "From, To, Call-ID or CSeq twice, or two values of Max-Forwards.",
        "RFC 3261 7.3.1", "CVE-2018-14767, CVE-2020-27507";
    BadNumber = 38, "bad-number", Malformed, Stricter,
        "A number that overflows, or none where one must be: CSeq, Max-Forwards or Expires above 4294967295, negative or no number (Expires may be a date), a port in the first 64 bytes of a Via line that is not 0 to 65535, a ttl of five digits. Strict: CSeq above 2147483647, Max-Forwards above 255.",
        "RFC 3261 20.16, 20.19, 20.22, 20.42", "CVE-2017-16872";
    CseqMismatch = 39, "cseq-mismatch", Malformed, Default,
        "The method of CSeq is not that of the request, or is missing.",
        "RFC 3261 8.1.1.5", "CVE-2017-9372";
    MissingContentLength = 40, "missing-content-length", Malformed, Default,
        "No Content-Length on a stream transport.",
        "RFC 3261 18.3, 20.14", "tcp_accept_no_cl (Kamailio)";
    BadContentLength = 41, "bad-content-length", Malformed, Default,
        "A Content-Length that is not a number below 1,000,000,000. On a stream also what only some receivers take for one: a header Content_Length, a continuation line that begins with such a name and a colon, and a number that is not in the line of the name.",
        "RFC 3261 20.14", "CVE-2026-45103, CVE-2023-28097, OpenSIPS #78, CVE-2026-58268, CVE-2026-23457, Envoy sip_proxy";
    DuplicateContentLength = 42, "duplicate-content-length", Malformed, Default,
        "Two Content-Length values that differ.",
        "RFC 3261 20.14", "request smuggling";
    BodyTooLarge = 43, "body-too-large", Malformed, Default,
        "A body longer than the limit. Brings nobody nearer to a ban.",
        "", "CVE-2026-58268";
    NoEndOfHeaders = 44, "no-end-of-headers", Malformed, Stricter,
        "A datagram that ends within a line of its header section. Strict: or without the empty line.",
        "RFC 3261 18.3", "";
    TruncatedBody = 45, "truncated-body", Malformed, Strict,
        "A datagram that ends before its body does.",
        "RFC 3261 18.3", "";
    BadStun = 46, "bad-stun", Malformed, Default,
        "STUN whose length, or the length of an attribute, is not true, that has more than 64 attributes, or that comes in IP fragments.",
        "RFC 8489 5, 14", "CVE-2023-22741, CVE-2023-32307";
    NotTls = 47, "not-tls", Malformed, Default,
        "A new connection to a TLS port that starts neither with a handshake record nor with SIP.",
        "RFC 8446 5.1", "";
    BadTlsRecord = 48, "bad-tls-record", Malformed, Default,
        "A TLS record of an unknown type, version or length.",
        "RFC 8446 5.1, RFC 5246 6.2", "";
    TransportDenied = 49, "transport-denied", Drop, Default,
        "A transport that trunks, devices or this trunk may not use.",
        "", "";
    MethodDenied = 50, "method-denied", Reset, Default,
        "A method that trunks, devices or this trunk may not send by this transport. A connection is reset, a datagram dropped.",
        "", "";
    BlockedDevice = 51, "blocked-device", Drop, Default,
        "From a blocked address and port: one device behind a NAT.",
        "", "";
    RatePackets = 52, "rate-packets", Drop, Default,
        "More packets to guarded ports than the limit of the source or trunk.",
        "", "";
    RateMessages = 53, "rate-messages", Drop, Default,
        "More SIP messages than the limit of the source or trunk. A TCP segment that is dropped comes again.",
        "", "";
    RateRegister = 54, "rate-register", Drop, Default,
        "More REGISTER requests than the limit of the source or trunk.",
        "", "";
    RateInvite = 55, "rate-invite", Drop, Default,
        "More INVITE requests than the limit of the source or trunk.",
        "", "";
    RateConnections = 56, "rate-connections", Drop, Default,
        "More new TCP connections than the limit of the source or trunk.",
        "", "";
    FragmentOrder = 57, "fragment-order", Drop, Always,
        "A fragment of a datagram whose header section is longer than its first one: ahead of the one before it, twice, overlapping, or one of too many at once.",
        "RFC 791 3.2, RFC 8200 4.5, RFC 5722 4", "";
    BannedDevice = 58, "banned-device", Drop, Default,
        "From an address and port that sent several malformed streams on established TCP connections, for a time that doubles.",
        "", "";
    BannedAddress = 59, "banned-address", Drop, Default,
        "From an address that sent many malformed streams on established TCP connections and nothing well-formed, for a time that doubles.",
        "", "";
    OpenConnections = 60, "open-connections", Drop, Default,
        "A new TCP connection while the source or trunk has as many open as it may. The sender tries again.",
        "", "AST-2016-005";
    BlockedIdentity = 61, "blocked-identity", Reset, Default,
        "A request From or with a Contact of a blocked SIP identity, or while there are such with more than five places in a line where one may begin. A connection is reset, a datagram dropped.",
        "RFC 3261 20.10, 20.20", "";
    BlockedUserAgent = 62, "blocked-user-agent", Reset, Default,
        "A request whose User-Agent begins with what is blocked. A connection is reset, a datagram dropped.",
        "RFC 3261 20.41", "";
    NotAcceptable = 63, "not-acceptable", Drop, Always,
        "TCP payload that its receiver would not take: it acknowledges what the PBX never sent, or its clock runs backwards.",
        "RFC 5961 5.2, RFC 7323 5.3", "";
    FlowBusy = 64, "flow-busy", Drop, Always,
        "TCP payload that came while another CPU was judging the same connection for too long; TCP sends it again.",
        "", "";
    EarlyAnswer = 65, "early-answer", Drop, Always,
        "From a server that the PBX dialled, before the PBX has sent anything: what is no SIP from a guarded port, and anything from another port for 0.18 s. TCP sends it again.",
        "", "";
    BadProxyHeader = 66, "bad-proxy-header", Malformed, Default,
        "A connection of a trunk with `--proxy-protocol` that does not begin with a PROXY header of version 1 or 2, of at most 4096 bytes. Brings nobody nearer to a ban.",
        "HAProxy proxy-protocol.txt 2", "";
    UnfinishedMessages = 67, "unfinished-messages", Drop, Default,
        "A new TCP connection while the source or trunk has as many messages begun and not finished as it may. The sender tries again.",
        "", "slow senders";
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

    /// Whether a message is only too large, which accuses nobody: a limit of the guard, not a fault of the sender.
    #[must_use]
    #[inline(always)]
    pub const fn is_too_large(self) -> bool {
        matches!(
            self,
            Reason::LineTooLong | Reason::HeadersTooLong | Reason::TooManyHeaders | Reason::BodyTooLarge
        )
    }

    /// Whether a rule about the sender stops the packet. Behind a balancer that resets the client's connection.
    #[must_use]
    pub const fn is_of_sender(self) -> bool {
        matches!(
            self,
            Reason::BlockedHost
                | Reason::BlockedPrefix
                | Reason::BlockedDevice
                | Reason::BannedDevice
                | Reason::BannedAddress
                | Reason::TransportDenied
        )
    }

    /// Whether its source or trunk sends more than a limit lets it: well-formed, or not looked at.
    #[must_use]
    #[inline(always)]
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Reason::RatePackets
                | Reason::RateMessages
                | Reason::RateRegister
                | Reason::RateInvite
                | Reason::RateConnections
                | Reason::OpenConnections
                | Reason::UnfinishedMessages
        )
    }

    /// Whether it is the reason of a check of messages, which can be switched: [`crate::abi::CheckSwitches`].
    #[must_use]
    #[inline(always)]
    pub const fn is_check(self) -> bool {
        self.is_malformed() || matches!(self, Reason::SlowMessage)
    }

    /// Whether behind such a fault it is uncertain where the message ends, so that nothing more of the connection can be judged. Such a check
    /// can be monitored, and not be switched off.
    #[must_use]
    #[inline(always)]
    pub const fn loses_framing(self) -> bool {
        matches!(
            self,
            Reason::BadStartLine
                | Reason::BareLf
                | Reason::BareCr
                | Reason::MissingContentLength
                | Reason::BadContentLength
                | Reason::DuplicateContentLength
                | Reason::NotTls
                | Reason::BadTlsRecord
                | Reason::BadProxyHeader
        )
    }

    /// Its bit in the sets of [`crate::abi::CheckSwitches`]; of a reason that is no check some other bit, or none.
    #[must_use]
    #[inline(always)]
    pub const fn check_bit(self) -> u64 {
        let position = self.number().wrapping_sub(Reason::SlowMessage.number());
        if position < 64 { 1 << position } else { 0 }
    }

    /// Whether only datagrams are refused for it, which have no connection to reset.
    #[must_use]
    pub const fn is_of_datagrams(self) -> bool {
        matches!(self, Reason::NoEndOfHeaders | Reason::TruncatedBody | Reason::BadStun)
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
            assert_eq!(usize::from(reason.number()), index, "{}", reason.name());
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name()).count();
            assert_eq!(same, 1, "{}", reason.name());
            assert!(reason.text().ends_with('.'), "{}", reason.name());
        }
        assert_eq!(Reason::from_number(Reason::COUNT as u8), None);
        assert!(Reason::COUNT <= crate::abi::REASON_SLOTS as usize);
    }

    #[test]
    fn each_check_has_a_bit_of_its_own() {
        let mut all = 0;
        for reason in Reason::ALL.iter().filter(|reason| reason.is_check()) {
            assert_eq!(reason.check_bit().count_ones(), 1, "{}", reason.name());
            assert_eq!(all & reason.check_bit(), 0, "{}", reason.name());
            all |= reason.check_bit();
        }
        assert!(Reason::ALL.iter().all(|reason| !reason.loses_framing() || reason.is_check()));
    }
}
