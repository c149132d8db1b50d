//! Where a SIP message ends in a TCP stream, and the faults that a fragile stack does not survive.

/// The longest header section it puts up with, in bytes.
const HEADER_LIMIT_BYTES: usize = 16 * 1024;

/// The longest body it puts up with, in bytes.
const BODY_LIMIT_BYTES: u64 = 65_535;

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `Content-Length: -1`.
    NegativeContentLength,
    /// `Content-Length:` and nothing behind it.
    EmptyContentLength,
    /// A Content-Length that is no number at all.
    UnreadableContentLength,
    /// More than a signed 32-bit number holds.
    OverflowingContentLength,
    /// None, although TCP needs one (RFC 3261 section 18.3).
    MissingContentLength,
    /// Two that differ.
    ConflictingContentLength,
    /// A body longer than anyone sends.
    BodyTooLarge,
    /// A NUL byte in the header section.
    NulInHeader,
    /// A first line that is neither a request nor a response.
    GarbageStartLine,
    /// A protocol version other than SIP/2.0.
    WrongVersion,
    /// A line that ends with LF alone.
    BareLineFeed,
    /// A header section that does not end.
    EndlessHeader,
}

/// What the beginning of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not yet a whole message.
    More,
    /// One whole message.
    Message {
        /// Bytes to its end, the body and keep-alives before it included.
        bytes: usize,
        /// Bytes to the end of its header section.
        header_bytes: usize,
    },
    /// Nothing that SIP allows.
    Fault(Fault),
}

impl Fault {
    /// Its name in the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NegativeContentLength => "negative-content-length",
            Self::EmptyContentLength => "empty-content-length",
            Self::UnreadableContentLength => "unreadable-content-length",
            Self::OverflowingContentLength => "overflowing-content-length",
            Self::MissingContentLength => "missing-content-length",
            Self::ConflictingContentLength => "conflicting-content-length",
            Self::BodyTooLarge => "body-too-large",
            Self::NulInHeader => "nul-in-header",
            Self::GarbageStartLine => "garbage-start-line",
            Self::WrongVersion => "wrong-version",
            Self::BareLineFeed => "bare-line-feed",
            Self::EndlessHeader => "endless-header",
        }
    }
}

/// Judges the beginning of a stream. CRLFs before a message are keep-alives (RFC 5626 section 3.5.1).
#[must_use]
pub fn frame(stream: &[u8]) -> Step {
    match judge(stream) {
        Ok(step) => step,
        Err(fault) => Step::Fault(fault),
    }
}

fn judge(stream: &[u8]) -> Result<Step, Fault> {
    let mut start = 0;
    while stream[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let message = &stream[start..];
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let header = &message[..end.unwrap_or(message.len())];
    if header.contains(&0) {
        return Err(Fault::NulInHeader);
    }
    if has_bare_line_feed(header) {
        return Err(Fault::BareLineFeed);
    }
    if let Some(line_end) = header.iter().position(|byte| *byte == b'\n') {
        judge_start_line(&String::from_utf8_lossy(&header[..line_end]))?;
    }
    if header.len() > HEADER_LIMIT_BYTES {
        return Err(Fault::EndlessHeader);
    }
    if end.is_none() {
        return Ok(Step::More);
    }
    let body_bytes = content_length(&String::from_utf8_lossy(header))?;
    let header_bytes = start + header.len();
    let bytes = header_bytes + body_bytes;
    Ok(if stream.len() < bytes { Step::More } else { Step::Message { bytes, header_bytes } })
}

fn has_bare_line_feed(header: &[u8]) -> bool {
    header.first() == Some(&b'\n') || header.windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r')
}

fn judge_start_line(line: &str) -> Result<(), Fault> {
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let version = match words.as_slice() {
        [version, code, ..] if version.starts_with("SIP/") && code.parse::<u16>().is_ok() => version,
        [method, uri, version]
            if version.starts_with("SIP/")
                && uri.contains(':')
                && method.bytes().all(|byte| byte.is_ascii_uppercase()) =>
        {
            version
        }
        _ => return Err(Fault::GarbageStartLine),
    };
    if *version == "SIP/2.0" { Ok(()) } else { Err(Fault::WrongVersion) }
}

fn content_length(header: &str) -> Result<usize, Fault> {
    let mut found = None;
    for line in header.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = name.trim_end();
        if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("l") {
            continue;
        }
        let length = parse_length(value.trim())?;
        if found.is_some_and(|other| other != length) {
            return Err(Fault::ConflictingContentLength);
        }
        found = Some(length);
    }
    match found {
        None => Err(Fault::MissingContentLength),
        Some(length) if length > BODY_LIMIT_BYTES => Err(Fault::BodyTooLarge),
        Some(length) => Ok(usize::try_from(length).unwrap_or(usize::MAX)),
    }
}

fn parse_length(value: &str) -> Result<u64, Fault> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if value.is_empty() {
        Err(Fault::EmptyContentLength)
    } else if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Err(Fault::UnreadableContentLength)
    } else if value.starts_with('-') {
        Err(Fault::NegativeContentLength)
    } else {
        let length = digits.parse().unwrap_or(u64::MAX);
        if length > u64::from(i32::MAX.unsigned_abs()) {
            Err(Fault::OverflowingContentLength)
        } else {
            Ok(length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(lines: &str) -> Step {
        frame(format!("OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>\r\n{lines}\r\n").as_bytes())
    }

    #[test]
    fn good_messages_end_where_they_should() {
        assert!(matches!(with("Content-Length: 0\r\n"), Step::Message { .. }));
        assert_eq!(with("l : 4\r\n"), Step::More);
        let text = b"\r\n\r\nSIP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nbodyNEXT";
        assert_eq!(frame(text), Step::Message { bytes: text.len() - 4, header_bytes: text.len() - 8 });
        assert_eq!(frame(b"\r\n\r\n"), Step::More);
        assert_eq!(frame(b"OPTIONS"), Step::More);
    }

    #[test]
    fn each_fault_is_known() {
        for (lines, fault) in [
            ("Content-Length: -1\r\n", Fault::NegativeContentLength),
            ("Content-Length: \r\n", Fault::EmptyContentLength),
            ("Content-Length: x\r\n", Fault::UnreadableContentLength),
            ("Content-Length: 2147483648\r\n", Fault::OverflowingContentLength),
            ("Content-Length: 99999999999999999999999\r\n", Fault::OverflowingContentLength),
            ("", Fault::MissingContentLength),
            ("Content-Length: 0\r\nl: 5\r\n", Fault::ConflictingContentLength),
            ("Content-Length: 65536\r\n", Fault::BodyTooLarge),
            ("X: a\0b\r\nContent-Length: 0\r\n", Fault::NulInHeader),
            ("X: a\nContent-Length: 0\r\n", Fault::BareLineFeed),
        ] {
            assert_eq!(with(lines), Step::Fault(fault), "{lines:?}");
        }
        assert_eq!(frame(b"hello\r\n"), Step::Fault(Fault::GarbageStartLine));
        assert_eq!(frame(b"OPTIONS sip:a SIP/3.0\r\n"), Step::Fault(Fault::WrongVersion));
        assert_eq!(frame(&[b'a'; HEADER_LIMIT_BYTES + 1]), Step::Fault(Fault::EndlessHeader));
    }
}
