//! Lines as the byte-wise framer finds them: where one ends, what its name is, and what is wrong before its end.

use sipguard_common::Reason;
use sipguard_common::framer::{Limits, checks};

/// What is known of a header by its name.
#[derive(Clone, Copy, PartialEq)]
pub enum Name {
    Via,
    From,
    To,
    CallId,
    Cseq,
    ContentLength,
    MaxForwards,
    Expires,
    Contact,
    List,
    Other,
}

pub fn known(name: &[u8]) -> Name {
    match std::str::from_utf8(name).unwrap_or("").to_ascii_lowercase().as_str() {
        "via" | "v" => Name::Via,
        "from" | "f" => Name::From,
        "to" | "t" => Name::To,
        "call-id" | "i" => Name::CallId,
        "cseq" => Name::Cseq,
        "content-length" | "l" => Name::ContentLength,
        "max-forwards" => Name::MaxForwards,
        "expires" => Name::Expires,
        "contact" | "m" => Name::Contact,
        "route" | "record-route" | "path" | "history-info" | "p-associated-uri" => Name::List,
        _ => Name::Other,
    }
}

pub fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The line at `at` without its LF; `None` while it has not ended.
pub fn line<'a>(
    bytes: &'a [u8],
    at: usize,
    first: bool,
    limits: &Limits,
    last: Name,
) -> Result<Option<&'a [u8]>, Reason> {
    if at > limits.section_bytes as usize {
        // The line ends before this one count; only the LF of the line itself does not.
        return Err(Reason::HeadersTooLong);
    }
    let mut in_method = first;
    let mut quoting = Quoting::default();
    for now in at.. {
        if now == bytes.len() {
            return if first && too_long_method(&bytes[at..now]) {
                Err(Reason::BadStartLine)
            } else {
                Ok(None)
            };
        }
        let byte = bytes[now];
        if byte == b'\n' {
            return Ok(Some(&bytes[at..now]));
        }
        let after_cr = now > at && bytes[now - 1] == b'\r';
        let most = if first || is_kept(&bytes[at..now], last, is_status(bytes)) {
            limits.line_bytes
        } else {
            limits.other_line_bytes
        };
        let length = now - at >= most as usize;
        if length || now >= limits.section_bytes as usize {
            return Err(if length { Reason::LineTooLong } else { Reason::HeadersTooLong });
        }
        if after_cr {
            return Err(if first { Reason::BadStartLine } else { Reason::BareCr });
        }
        let quoted = quoting.take(now - at, byte) && !first && limits.checks & checks::TOKENS == 0;
        let text = quoted || !first && limits.checks & checks::CONTROL_BYTES == 0;
        if byte < 0x20 && byte != b'\t' && byte != b'\r' && !text {
            return Err(if first { Reason::BadStartLine } else { Reason::ControlByte });
        }
        if in_method {
            in_method = byte != b' ' && !is_status(&bytes[at..=now]);
            let bad = if is_status(&bytes[at..=now]) {
                false
            } else if byte == b' ' {
                now == at
            } else {
                !(0x21..0x7f).contains(&byte)
            };
            if bad || too_long_method(&bytes[at..=now]) {
                return Err(Reason::BadStartLine);
            }
        }
    }
    unreachable!("the loop ends at the end of the bytes")
}

/// The known name of a line, which goes on with the header `last` if it begins with white space.
pub fn name_of(line: &[u8], last: Name) -> Name {
    match line.first() {
        Some(byte) if blank(*byte) => last,
        _ => line.iter().take(64).position(|b| *b == b':').map_or(Name::Other, |colon| {
            let mut name = &line[..colon];
            while let [front @ .., b' ' | b'\t'] = name {
                name = front;
            }
            known(name)
        }),
    }
}

/// Whether a line, which goes on with the header `last` if it begins with white space, is one that parsers keep in a buffer of a fixed size.
fn is_kept(line: &[u8], last: Name, answer: bool) -> bool {
    let name = name_of(line, last);
    use Name::{CallId, Contact, ContentLength, Cseq, From, To, Via};
    matches!(name, Via | From | To | CallId | Cseq | ContentLength) || name == Contact && !answer
}

/// Where in a header line quoted pairs are (RFC 3261 section 25.1): `quoted-string = DQUOTE *(qdtext / quoted-pair) DQUOTE`.
#[derive(Default)]
enum Quoting {
    /// Before the colon.
    #[default]
    Name,
    /// In the value, and in no quoted string.
    Outside,
    Inside,
    /// Behind a backslash in a quoted string.
    Pair,
    /// Nobody knows: a line that goes on with another, or a backslash that quotes nothing.
    Unknown,
}

impl Quoting {
    /// Takes the byte at an offset of the line, and tells whether it is quoted and among the first 64, which are kept of any line.
    fn take(&mut self, offset: usize, byte: u8) -> bool {
        let quoted = matches!(self, Quoting::Pair) && offset < 64;
        *self = match (&self, byte) {
            (Quoting::Name, _) if offset == 0 && blank(byte) => Quoting::Unknown,
            (Quoting::Name, b':') | (Quoting::Inside, b'"') => Quoting::Outside,
            (Quoting::Name, _) => Quoting::Name,
            (Quoting::Outside, b'"') | (Quoting::Pair, _) => Quoting::Inside,
            (Quoting::Inside, b'\\') => Quoting::Pair,
            (Quoting::Inside, _) => Quoting::Inside,
            (Quoting::Unknown, _) | (Quoting::Outside, b'\\') => Quoting::Unknown,
            (Quoting::Outside, _) => Quoting::Outside,
        };
        quoted
    }
}

/// Whether the first 64 bytes hold no space.
fn too_long_method(line: &[u8]) -> bool {
    line.len() >= 64 && !line[..64].contains(&b' ') && !is_status(line)
}

pub fn is_status(line: &[u8]) -> bool {
    line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"sip/")
}

pub fn status_line(text: &[u8], limits: &Limits) -> Result<(), Reason> {
    if text.len() < 8 || !text[..8].eq_ignore_ascii_case(b"sip/2.0 ") {
        return if limits.checks & checks::VERSION == 0 { Ok(()) } else { Err(Reason::BadVersion) };
    }
    let code = &text[8..];
    let good = code.len() >= 3
        && (b'1'..=b'6').contains(&code[0])
        && code[1..3].iter().all(u8::is_ascii_digit)
        && (code.len() == 3 || code[3] == b' ');
    if good { Ok(()) } else { Err(Reason::BadStartLine) }
}
