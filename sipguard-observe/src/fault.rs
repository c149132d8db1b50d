//! Where the fault of what an offender sent is, and who it says it is: From and User-Agent, the line and its offset. Made of the sample that the
//! kernel keeps.

use sipguard_common::Reason;
use sipguard_common::abi::SAMPLE_BYTES;
use sipguard_common::framer::{Buffer, Limits, Stream, decide_datagram, feed};
use sipguard_core::escape::{escaped, escaped_lines};
use sipguard_core::offenders::OffenderRow;

use crate::events::Sip;
use crate::redact;

/// Bytes of a line that are shown.
const LINE_BYTES: usize = 256;

/// What can be told of an offender's sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The sample; without its secrets where that was asked for.
    pub sample: Vec<u8>,
    /// Offset of the line at fault in the segment; negative where it began in an earlier one. `None` where nobody knows: TLS, PROXY headers, limits,
    /// and the middle of a message behind a fault that was only counted.
    pub offset: Option<i64>,
    /// The line at fault as far as the sample has it, without its end; of a long one the first bytes. Empty at the end of the headers, and where it
    /// is not known.
    pub line: Vec<u8>,
    /// Where the line is in `sample`.
    pub line_at: Option<usize>,
    /// From, as the message has it.
    pub from: Option<String>,
    /// User-Agent.
    pub user_agent: Option<String>,
}

impl Fault {
    /// Of what came, as it came.
    #[must_use]
    pub fn of(row: &OffenderRow) -> Fault {
        Fault::in_sample(row, row.sample.clone())
    }

    /// The same with credentials overwritten. A segment may begin within one.
    #[must_use]
    pub fn redacted(row: &OffenderRow) -> Fault {
        let mut sample = row.sample.clone();
        redact::overwrite(&mut sample, true);
        Fault::in_sample(row, sample)
    }

    /// Where the fault is, in words, with the line; how the message begins where that is not known.
    #[must_use]
    pub fn text(&self) -> String {
        match self.offset {
            Some(offset) => {
                let left = self.line_at.and_then(|at| self.sample.get(at..));
                format!("at byte {offset}: {}", line_text(&self.line, left.is_none_or(<[u8]>::is_empty)))
            }
            None => match self.lines().0.into_iter().next() {
                Some(begin) if !begin.is_empty() => format!("begins: {begin}"),
                _ => "not kept".to_owned(),
            },
        }
    }

    /// The sample in lines, other bytes than printable ones as `\xNN`, so that a LF without CR is seen; and which of them is at fault.
    #[must_use]
    pub fn lines(&self) -> (Vec<String>, Option<usize>) {
        let lines = self.sample.split_inclusive(|byte| *byte == b'\n');
        let shown = |line: &[u8]| escaped_lines(line).trim_end_matches('\n').to_owned();
        let number = self.line_at.map(|at| self.sample[..at].iter().filter(|byte| **byte == b'\n').count());
        (lines.map(shown).collect(), number)
    }

    fn in_sample(row: &OffenderRow, sample: Vec<u8>) -> Fault {
        let offset = offset(row);
        // What began before the sample is shown from there on.
        let line_at = offset.map(|at| usize::try_from(at - i64::from(row.sample_at)).unwrap_or(0));
        let line_at = line_at.filter(|at| *at <= sample.len());
        let line = line_at.map_or(&[][..], |at| line(&sample[at..])).to_vec();
        let Sip { from, user_agent, .. } =
            if row.reason.is_malformed() { Sip::read(&sample) } else { Sip::default() };
        let from = from.map(|from| without_tag(&from).to_owned());
        Fault { offset, line, line_at, from, user_agent, sample }
    }
}

/// The value of a From without its tag and what follows, which are another one with each dialog (RFC 3261 section 19.3).
fn without_tag(from: &str) -> &str {
    let end = from.rfind('>').map_or(0, |at| at + 1);
    let tag = from[end..].to_ascii_lowercase().find(";tag=");
    tag.map_or(from, |at| &from[..end + at])
}

/// A line at fault for people. An empty one is the end of the headers, unless nothing is there any more: `is_cut`.
#[must_use]
pub fn line_text(line: &[u8], is_cut: bool) -> String {
    match (line.is_empty(), is_cut) {
        (false, _) => escaped(line),
        (true, false) => "the end of the headers".to_owned(),
        (true, true) => "where it breaks off".to_owned(),
    }
}

/// The line that begins here, without its end.
fn line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()).min(LINE_BYTES);
    bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end])
}

/// Offset of the line at fault in the segment.
fn offset(row: &OffenderRow) -> Option<i64> {
    match row.reason {
        // No lines, or not of SIP.
        Reason::BadStun | Reason::NotTls | Reason::BadTlsRecord | Reason::BadProxyHeader => None,
        reason if reason.is_malformed() => row.fault_at.map(i64::from).or_else(|| judged(row, reason)),
        _ => None,
    }
}

/// The same where the kernel has not kept it: the framer goes through the sample once more. It must find the same fault.
fn judged(row: &OffenderRow, reason: Reason) -> Option<i64> {
    if row.sample_at != 0 || row.sample.is_empty() {
        return None;
    }
    let (limits, mut buffer) = (Limits::default(), Box::new(Buffer::NEW));
    let of_stream = feed(&mut Stream::NEW.clone(), &limits, &mut buffer, &row.sample).err();
    let whole = row.sample.len() < SAMPLE_BYTES;
    let mut of_datagram =
        || decide_datagram(&mut Stream::NEW.clone(), &limits, &mut buffer, &row.sample, whole).err();
    let same = |fault: &sipguard_common::framer::Malformed| fault.reason == reason;
    let found = of_stream.filter(same).or_else(|| of_datagram().filter(same))?;
    Some(found.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"REGISTER sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP a\r\nFrom: <sip:201@pbx>;tag=1\r\nTo: <sip:201@pbx>\r\nCall-ID: 1\r\n\
        CSeq: 1 REGISTER\r\nUser-Agent: Yealink SIP-T46S 66.86.0.15\r\nAuthorization: Digest response=\"f00\"\r\nContent-Length: -1\r\n\r\n";

    fn row(reason: Reason, sample: &[u8], fault_at: Option<i32>) -> OffenderRow {
        OffenderRow {
            address: "203.0.113.7".parse().unwrap(),
            port: 4001,
            reason,
            packets: 2,
            lately: 0,
            passed: 0,
            first_seen: None,
            last_seen: None,
            sample: sample.to_vec(),
            sample_at: 0,
            fault_at,
        }
    }

    fn at(text: &str) -> usize {
        std::str::from_utf8(MESSAGE).unwrap().find(text).unwrap()
    }

    #[test]
    fn a_tag_is_no_part_of_who_it_is() {
        for (from, shown) in [
            ("<sip:1@h;tag=x>;tag=1;p=2", "<sip:1@h;tag=x>"),
            ("sip:1@h;TAG=1", "sip:1@h"),
            ("\"a;tag=b\" <sip:1@h>", "\"a;tag=b\" <sip:1@h>"),
            ("", ""),
        ] {
            assert_eq!(without_tag(from), shown);
        }
    }

    #[test]
    fn the_line_and_who_sent_it_are_found() {
        let line_at = at("Content-Length");
        for fault_at in [Some(line_at as i32), None] {
            let fault = Fault::of(&row(Reason::BadContentLength, MESSAGE, fault_at));
            assert_eq!(fault.offset, Some(line_at as i64), "{fault_at:?}");
            assert_eq!(fault.line, b"Content-Length: -1");
            assert_eq!(fault.user_agent.as_deref(), Some("Yealink SIP-T46S 66.86.0.15"));
            assert_eq!(fault.from.as_deref(), Some("<sip:201@pbx>"), "its tag is another one each time");
        }
        // The sample begins behind the first byte of the segment.
        let far = OffenderRow {
            sample_at: 5000,
            ..row(Reason::BadContentLength, &MESSAGE[30..], Some(4970 + line_at as i32))
        };
        let fault = Fault::of(&OffenderRow { fault_at: Some(5000 - 30 + line_at as i32), ..far });
        assert_eq!((fault.line_at, &fault.line[..]), (Some(line_at - 30), &b"Content-Length: -1"[..]));
        assert_eq!(fault.offset, Some(4970 + line_at as i64));
    }

    #[test]
    fn no_line_is_told_that_is_not_known() {
        for (reason, sample, fault_at) in [
            (Reason::BadNumber, MESSAGE, None),
            (Reason::BadTlsRecord, MESSAGE, Some(7)),
            (Reason::RateRegister, MESSAGE, Some(7)),
            (Reason::BadContentLength, &b""[..], Some(70)),
        ] {
            let fault = Fault::of(&row(reason, sample, fault_at));
            assert_eq!((fault.line_at, fault.line.len()), (None, 0), "{}", reason.name());
        }
        let begun = Fault::of(&row(Reason::BadContentLength, b"gth: -1\r\n\r\n", Some(-11)));
        assert_eq!((begun.offset, &begun.line[..]), (Some(-11), &b"gth: -1"[..]));
    }

    #[test]
    fn what_breaks_off_is_not_the_end_of_the_headers() {
        let text = |sample: &[u8], at| Fault::of(&row(Reason::BareLf, sample, Some(at))).text();
        assert_eq!(text(b"A: b\r\n\r\n", 6), "at byte 6: the end of the headers");
        assert_eq!(text(b"A: b\r\nC", 6), "at byte 6: C");
        assert_eq!(text(b"INVITE sip:a", 12), "at byte 12: where it breaks off");
        assert_eq!(text(b"INVITE sip:a", 0), "at byte 0: INVITE sip:a");
        assert_eq!(Fault::of(&row(Reason::BadNumber, b"INVITE x\r\n", None)).text(), "begins: INVITE x");
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_seen() {
        let fault = Fault::of(&row(Reason::BareLf, b"A: b\r\nC: d\nE: f\r\n\r\n", Some(6)));
        assert_eq!(fault.lines(), (["A: b", "C: d\\x0a", "E: f", ""].map(str::to_owned).to_vec(), Some(1)));
    }

    #[test]
    fn over_http_no_credential_is_shown() {
        let row = row(Reason::BadContentLength, MESSAGE, Some(at("Authorization") as i32));
        assert_eq!(Fault::of(&row).line, b"Authorization: Digest response=\"f00\"");
        let fault = Fault::redacted(&row);
        assert!(!fault.sample.windows(3).any(|part| part == b"f00"), "{fault:?}");
        assert!(fault.line.starts_with(b"Authorization: Digest xxx"), "{fault:?}");
        assert_eq!(fault.user_agent.as_deref(), Some("Yealink SIP-T46S 66.86.0.15"));
    }
}
