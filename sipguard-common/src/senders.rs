//! Who is known to send what a check is near to, or refuses, and means no harm by it.

use crate::Reason;

impl Reason {
    /// Systems that are known to send it, or something near to it, and mean no harm, with the public source; empty where none is known.
    #[must_use]
    pub const fn harmless_senders(self) -> &'static str {
        match self {
            Reason::BadStartLine => {
                "Load balancers with the PROXY protocol in front of SIP (kamailio#1757, #2103, #3665), which pass as a trunk with `--proxy-protocol`. \
                 NULs between messages pass, up to 16 (resiprocate#38, opensips#4116)."
            }
            Reason::ControlByte => {
                "Senders of quoted pairs, as in RFC 4475 3.1.1.2, beyond the first 64 bytes of a line."
            }
            Reason::BareLf => {
                "SEMS and an OpenSIPS SBC end one header line with LF among CRLF (sems#425, SIPp#380, pkts#110); refused only where the end of the \
                 message is then in doubt."
            }
            Reason::LineTooLong => {
                "Calling tokens and JWTs above 4 kB (livekit/sip#789, janus-gateway#3459); other lines than those that parsers keep in fixed buffers \
                 may be as long."
            }
            Reason::HeadersTooLong => {
                "FreeSWITCH and RLS servers send messages above 64 kB (SIPp#422, doubango#258)."
            }
            Reason::TooManyHeaders => {
                "FreePBX with 130 Contact lines (FreePBX issue-tracker#515), which pass."
            }
            Reason::MissingHeader => {
                "Kamailio's nathelper pings with an empty URI in From (kamailio#1587), which pass."
            }
            Reason::DuplicateHeader => {
                "OpenSIPS with topology hiding sends From twice in an ACK (opensips#3249). Max-Forwards twice with one value passes \
                 (rsipstack#49)."
            }
            Reason::BadNumber => {
                "FreeSWITCH counts CSeq beyond 2147483647 after some 249 days (freeswitch#929, #2435), which passes unless the profile is strict. \
                 MCPTT clients send Expires 4294967295 (kamailio#521), which passes."
            }
            Reason::MissingContentLength => {
                "Oracle SBCs leave it out of pings over UDP (kamailio#3210), which pass."
            }
            Reason::BodyTooLarge => "Presence servers with long resource lists (SIPp#422).",
            Reason::NoEndOfHeaders => {
                "OpenSIPS' mid-registrar and checks of Nagios leave out the empty line (opensips#1141), which passes unless the profile is strict."
            }
            Reason::NotTls => {
                "Load balancers with the PROXY protocol in front of TLS (kamailio#1757), which pass as a trunk with `--proxy-protocol`."
            }
            _ => "",
        }
    }
}
