//! Where the fault of a malformed message is: the line, and its offset. The program gives the verdict; the same framer, run here over the same
//! bytes, finds the line.

use std::collections::{BTreeSet, HashMap};

use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, Stream, decide_datagram, feed};
use sipguard_common::wire::tcp::RST;
use sipguard_core::address::Mapped;
use sipguard_core::escape::escaped;
use sipguard_observe::fault::line_text;
use sipguard_observe::header::{Ends, Header};
use sipguard_observe::redact;

use super::clients::Sender;

/// Explanations of one thread; of more malformed messages there is only the count by reason.
const MOST: usize = 10_000;
/// Bytes of a line that are shown.
const LINE_BYTES: usize = 256;
/// Connections that are followed by one thread.
const STREAMS: usize = 1 << 16;

/// Where the fault of a malformed message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// Number of the packet in the capture, from 1.
    pub packet: u64,
    /// Source address.
    pub from: Mapped,
    /// Source port.
    pub port: u16,
    /// The verdict of the program.
    pub reason: Reason,
    /// Offset in bytes from the first byte of the packet's payload to the line at fault; negative where the line began in an earlier segment. `None`
    /// where this framer cannot say: in IP fragments, in the middle of an unknown stream, under limits or checks of a trunk's own, and
    /// behind a fault that was only counted.
    pub offset: Option<i64>,
    /// The line at fault as far as it came, without its end; of a long one the first bytes. Secrets are overwritten.
    pub line: Vec<u8>,
    /// Whether nothing of the line came: the message breaks off.
    pub is_cut: bool,
}

impl Explanation {
    /// The line for people; empty where it is not known.
    #[must_use]
    pub(crate) fn shown(&self) -> String {
        if self.offset.is_none() { escaped(&self.line) } else { line_text(&self.line, self.is_cut) }
    }
}

/// Runs the framer beside the program.
pub(crate) struct Explainer {
    limits: Limits,
    tls_ports: BTreeSet<u16>,
    buffer: Box<Buffer>,
    streams: HashMap<Ends, Tracked>,
    found: Vec<Explanation>,
    resets: u64,
}

/// A TCP stream.
struct Tracked {
    stream: Stream,
    /// Sequence number of the next byte.
    next: u32,
    /// The last bytes before that.
    recent: Vec<u8>,
}

impl Explainer {
    /// `limits` are those of the guard, without the checks that are off for devices; `tls_ports` of the PBX are of SIP over TLS.
    #[must_use]
    pub(crate) fn new(limits: Limits, tls_ports: BTreeSet<u16>) -> Explainer {
        let (streams, found) = (HashMap::new(), Vec::new());
        Explainer { limits, tls_ports, buffer: Box::new(Buffer::NEW), streams, found, resets: 0 }
    }

    /// What was found, and how many resets had data.
    #[must_use]
    pub(crate) fn end(self) -> (Vec<Explanation>, u64) {
        (self.found, self.resets)
    }

    /// A packet with the reason that the program gave. `frame` is all of it.
    pub(crate) fn packet(
        &mut self,
        number: u64,
        header: &Header,
        sender: Sender,
        frame: &[u8],
        reason: Reason,
    ) {
        let payload = frame.get(header.payload.clone()).unwrap_or_default();
        let fault = if header.tcp {
            self.segment(header, payload, reason)
        } else if reason.is_malformed() {
            self.datagram(header, payload, reason)
        } else {
            None
        };
        if reason.is_malformed() && self.found.len() < MOST {
            let is_cut = fault.as_ref().is_some_and(|(offset, line)| {
                line.is_empty() && usize::try_from(*offset).is_ok_and(|at| at >= payload.len())
            });
            let (offset, mut line) = fault.unzip();
            let line = line.get_or_insert_default();
            redact::overwrite(line, offset.is_none_or(|offset| offset < 0));
            let ((from, port), line) = (sender, std::mem::take(line));
            self.found.push(Explanation { packet: number, from, port, reason, offset, line, is_cut });
        }
    }

    fn datagram(&mut self, header: &Header, payload: &[u8], reason: Reason) -> Option<(i64, Vec<u8>)> {
        if header.fragment.is_some() {
            return None;
        }
        let mut stream = Stream::NEW;
        let decided = decide_datagram(&mut stream, &self.limits, &mut self.buffer, payload, true);
        let malformed = decided.err().filter(|malformed| malformed.reason == reason)?;
        Some((malformed.line, line_at(&[], payload, malformed.line)))
    }

    fn segment(&mut self, header: &Header, payload: &[u8], reason: Reason) -> Option<(i64, Vec<u8>)> {
        // A guard before whoever captured has made a reset of a malformed segment, which has the segment's bytes as data. No stream goes on by it.
        let is_reset = header.flags & RST != 0;
        if payload.is_empty() || is_reset {
            self.resets += u64::from(!payload.is_empty());
            return None;
        }
        let tracked = self.streams.get_mut(&header.ends)?;
        let old = tracked.next.wrapping_sub(header.seq);
        let new = payload.get(old as usize..).filter(|new| !new.is_empty())?;
        let mut stream = tracked.stream;
        let fed = feed(&mut stream, &self.limits, &mut self.buffer, new);
        match fed {
            Ok(()) if !reason.is_malformed() => {
                tracked.stream = stream;
                tracked.next = tracked.next.wrapping_add(new.len() as u32);
                tracked.recent.extend_from_slice(&new[new.len().saturating_sub(LINE_BYTES)..]);
                let over = tracked.recent.len().saturating_sub(LINE_BYTES);
                tracked.recent.drain(..over);
                None
            }
            Err(malformed) if malformed.reason == reason => {
                let line = line_at(&tracked.recent, new, malformed.line);
                // What follows on a rejected connection has no fault of its own.
                self.streams.remove(&header.ends);
                Some((malformed.line + i64::from(old), line))
            }
            _ => {
                self.streams.remove(&header.ends);
                None
            }
        }
    }

    /// A connection, by its SYN; `proxied` when it begins with a PROXY header.
    pub(crate) fn begin(&mut self, header: &Header, proxied: bool) {
        if self.streams.len() == STREAMS {
            self.streams.clear();
        }
        let (mut stream, next) = (Stream::NEW, header.seq.wrapping_add(1));
        let tls = self.tls_ports.contains(&header.ends.ports[1]);
        if proxied {
            stream.begin_proxy(tls);
        } else if tls {
            stream.begin_tls(true);
        }
        self.streams.insert(header.ends, Tracked { stream, next, recent: Vec::new() });
    }
}

/// The line that begins `offset` bytes behind the start of `payload`, before which `recent` came.
fn line_at(recent: &[u8], payload: &[u8], offset: i64) -> Vec<u8> {
    let bytes = [recent, payload].concat();
    let start = usize::try_from(recent.len() as i64 + offset).unwrap_or(0).min(bytes.len());
    let line = &bytes[start..];
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len()).min(LINE_BYTES);
    let line = &line[..end];
    line.strip_suffix(b"\r").unwrap_or(line).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_put_together_from_two_segments() {
        assert_eq!(line_at(b"CSeq: 1 X\r\nConte", b"nt-Length: x\r\nA: b\r\n", -5), b"Content-Length: x");
        assert_eq!(line_at(b"", b"Via: a\r\nTo: b", 8), b"To: b");
        assert_eq!(line_at(b"ab", b"cd", -100), b"abcd", "its beginning is not kept");
        assert_eq!(line_at(b"", b"ab", 2), b"", "what is missing at the end");
        assert_eq!(line_at(b"", &[b'x'; 300], 0).len(), LINE_BYTES);
    }
}
