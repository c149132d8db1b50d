//! The framer once more, byte by byte, from RFC 3261 and docs/reference/checks.md.

use sipguard_common::Reason;
use sipguard_common::framer::methods::{METHODS, OTHER};
use sipguard_common::framer::{Limits, checks, name_bucket};

use super::flow::Outcome;
use super::lines::{Name, blank, is_status, known, line, name_of, status_line};
use super::via::via;

/// Judges a whole stream at once, line by line, byte by byte.
pub fn oracle(bytes: &[u8], limits: &Limits) -> Outcome {
    let mut messages = 0;
    let mut at = 0;
    // A header section ended with LF LF.
    let mut by_lf = false;
    loop {
        let mut nuls = 0;
        while at < bytes.len() && matches!(bytes[at], b'\r' | b'\n' | 0) {
            nuls = if bytes[at] == 0 { nuls + 1 } else { 0 };
            let strict = limits.checks & checks::SENDER != 0;
            if nuls > 16 || nuls > 0 && strict || by_lf && bytes[at] == b'\r' {
                return (messages, Some(Reason::BadStartLine));
            }
            at += 1;
        }
        if at == bytes.len() {
            return (messages, None);
        }
        match Message::new(limits).judge(&bytes[at..]) {
            Ok(Some((section, body))) => {
                let end = (at + section + body.unwrap_or(0)).min(bytes.len());
                let empty = &bytes[..at + section];
                if empty.ends_with(b"\n\n") {
                    by_lf = true;
                } else if by_lf {
                    return (messages, Some(Reason::BareLf));
                }
                messages += 1;
                // The LF of the empty line, and the body.
                if by_lf && bytes[at + section - 1..end].windows(2).any(|two| two == b"\n\r") {
                    return (messages, Some(Reason::BareLf));
                }
                at = end;
            }
            Ok(None) => return (messages, None),
            Err(reason) => return (messages, Some(reason)),
        }
    }
}

/// Judges a datagram that is not STUN; `whole` is false for the first of several IP fragments.
pub fn datagram_oracle(bytes: &[u8], whole: bool, limits: &Limits) -> Result<Reason, Reason> {
    // NULs among the last bytes, which are looked at 64 at a time.
    let last = bytes.len().saturating_sub(1) / 64;
    let filler = |(k, byte): (usize, &u8)| matches!(byte, b'\r' | b'\n') || *byte == 0 && k / 64 == last;
    if bytes.len() <= 8 || bytes.iter().enumerate().all(filler) || whole && is_word(bytes) {
        return Ok(Reason::NatPing);
    }
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let bytes = &bytes[start..];
    let mut message = Message { datagram: true, ..Message::new(limits) };
    match message.judge(bytes)? {
        Some((section, body)) => {
            let short = body.is_some_and(|body| section + body > bytes.len());
            if short && whole && message.has(checks::WHOLE_BODY) {
                Err(Reason::TruncatedBody)
            } else {
                Ok(Reason::Valid)
            }
        }
        None if !whole => Ok(Reason::Valid),
        None if !bytes.contains(&b'\n') => Err(Reason::BadStartLine),
        None if !message.has(checks::WHOLE_LINES)
            || bytes.ends_with(b"\n") && !message.has(checks::SENDER) =>
        {
            message.end().map(|()| Reason::Valid)
        }
        None => Err(Reason::NoEndOfHeaders),
    }
}

/// One token of at most 16 bytes in a datagram of at most 64 bytes, nothing but line ends and NULs behind it.
fn is_word(bytes: &[u8]) -> bool {
    let word = bytes.iter().take_while(|byte| is_token(&[**byte])).count();
    (1..=16).contains(&word)
        && bytes.len() <= 64
        && bytes[word..].iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[derive(Clone, Copy, PartialEq)]
enum Lacks {
    Nothing,
    Value,
    Method,
}

/// One message under judgement.
struct Message<'a> {
    limits: &'a Limits,
    datagram: bool,
    method: Option<Vec<u8>>,
    seen: Vec<Name>,
    buckets: [u32; 32],
    last: Name,
    lacks: Lacks,
    length: Option<u32>,
    hops: Option<u64>,
}

pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && blank(*first)
    {
        text = rest;
    }
    text
}

/// Whether a line that is no header by its first byte has the name Content-Length and a colon, or may have behind its first 64 bytes.
fn looks_like_length(text: &[u8]) -> bool {
    let visible = &text[..text.len().min(64)];
    let long = text.len() > 64;
    let line = trim(visible);
    if line.len() < 16 && long {
        return true;
    }
    ["content-length", "content_length", "l"].into_iter().any(|name| {
        let behind =
            line.split_at_checked(name.len()).filter(|two| two.0.eq_ignore_ascii_case(name.as_bytes()));
        behind.is_some_and(|two| trim(two.1).first().map_or(long, |byte| *byte == b':'))
    })
}

fn trim_both(text: &[u8]) -> &[u8] {
    let mut text = trim(text);
    while let [rest @ .., last] = text
        && blank(*last)
    {
        text = rest;
    }
    text
}

fn is_token(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(b))
}

pub fn value_of(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

impl<'a> Message<'a> {
    fn new(limits: &'a Limits) -> Self {
        Message {
            limits,
            datagram: false,
            method: None,
            seen: Vec::new(),
            buckets: [0; 32],
            last: Name::Other,
            lacks: Lacks::Nothing,
            length: None,
            hops: None,
        }
    }

    fn has(&self, check: u32) -> bool {
        self.limits.checks & check != 0
    }

    /// Lengths of header section and body of the message at the start of `bytes`; `None` while it is incomplete.
    fn judge(&mut self, bytes: &[u8]) -> Result<Option<(usize, Option<usize>)>, Reason> {
        let mut at = 0;
        let mut first = true;
        let mut lines = 0;
        // How each line ended, CRLF or not, and whether it is one of Content-Length or the empty one.
        let mut ends: Vec<(bool, bool)> = Vec::new();
        let mut via_by_lf = false;
        loop {
            let Some(line) = line(bytes, at, first, self.limits, self.last)? else { return Ok(None) };
            let (text, cr) = match line.strip_suffix(b"\r") {
                Some(text) => (text, true),
                None => (line, false),
            };
            at += line.len() + 1;
            if first {
                self.start_line(text)?;
                if !cr && self.has(checks::REFUSE_LF) {
                    return Err(Reason::BareLf);
                }
                ends.push((cr, false));
                first = false;
                continue;
            }
            if self.has(checks::SAME_ENDS) && ends[0].0 != cr || self.has(checks::REFUSE_LF) && !cr {
                return Err(Reason::BareLf);
            }
            via_by_lf |= !cr && name_of(text, self.last) == Name::Via;
            if via_by_lf && (cr || ends.iter().any(|end| end.0)) {
                return Err(Reason::BareLf);
            }
            if text.is_empty() {
                ends.push((cr, true));
                self.end()?;
                let mixed = ends.iter().any(|end| end.0) && ends.iter().any(|end| !end.0);
                // The line of Content-Length, or the empty one, ends with LF; or that is between LF and CRLF.
                let ended = ends.iter().any(|(cr, framing)| *framing && !cr);
                let behind = |two: &[(bool, bool)], empty: bool| two[1].1 && !two[0].0 && empty;
                let pairs = ends.len() - 1;
                let by_lf = ended
                    || ends.windows(2).enumerate().any(|(at, two)| {
                        behind(two, at + 1 == pairs || self.length.is_some_and(|length| length != 0))
                    });
                if mixed && by_lf && !self.datagram {
                    return Err(Reason::BareLf);
                }
                return Ok(Some((at, self.length.map(|length| length as usize))));
            }
            lines += 1;
            if lines > self.limits.header_lines {
                return Err(Reason::TooManyHeaders);
            }
            if blank(text[0]) {
                if lines == 1 && self.has(checks::NAMES) {
                    return Err(Reason::BadHeaderName);
                }
                if !self.datagram && looks_like_length(text) {
                    return Err(Reason::BadContentLength);
                }
                self.value(text, 0)?;
            } else {
                match self.header(text) {
                    Err(Reason::BadHeaderName) if !self.has(checks::NAMES) => {
                        if !self.datagram && looks_like_length(text) {
                            return Err(Reason::BadContentLength);
                        }
                        (self.last, self.lacks) = (Name::Other, Lacks::Nothing);
                    }
                    judged => judged?,
                }
            }
            ends.push((cr, self.last == Name::ContentLength));
        }
    }

    fn cseq_end(&self) -> u64 {
        if self.has(checks::SENDER) { 1 << 31 } else { 1 << 32 }
    }

    fn header(&mut self, text: &[u8]) -> Result<(), Reason> {
        self.closed()?;
        let colon = text.iter().take(128).position(|b| *b == b':').ok_or(Reason::BadHeaderName)?;
        let mut name = &text[..colon];
        if colon >= 64 {
            // A name that is longer than what else is looked at of a line.
            if self.has(checks::TOKENS) || name.iter().any(|b| !(0x21..0x7f).contains(b)) {
                return Err(Reason::BadHeaderName);
            }
            name = &name[..63];
        }
        while let [front @ .., b' ' | b'\t'] = name {
            name = front;
        }
        if name.is_empty() || name.iter().any(|b| !(0x21..0x7f).contains(b)) {
            return Err(Reason::BadHeaderName);
        }
        if self.has(checks::SPACES) && name.len() < colon.min(63)
            || self.has(checks::TOKENS) && !is_token(name)
        {
            return Err(Reason::BadHeaderName);
        }
        if name.eq_ignore_ascii_case(b"Content_Length") && !self.datagram {
            return Err(Reason::BadContentLength);
        }
        self.last = known(name);
        self.lacks = match self.last {
            Name::List | Name::Contact | Name::Other => Lacks::Nothing,
            _ => Lacks::Value,
        };
        let single = matches!(self.last, Name::From | Name::To | Name::CallId | Name::Cseq);
        if single && self.seen.contains(&self.last) && self.has(checks::SINGLETONS) {
            return Err(Reason::DuplicateHeader);
        }
        self.seen.push(self.last);
        if !matches!(self.last, Name::Via | Name::List | Name::Contact) {
            let count = &mut self.buckets[name_bucket(name)];
            *count += 1;
            if *count > self.limits.same_name {
                return Err(Reason::TooManyHeaders);
            }
        }
        self.value(text, colon + 1)
    }

    /// What ends without the rest of its value.
    fn closed(&self) -> Result<(), Reason> {
        match (self.last, self.lacks) {
            (_, Lacks::Nothing) => Ok(()),
            (Name::ContentLength, _) => Err(Reason::BadContentLength),
            (_, Lacks::Method) if self.has(checks::CSEQ) => Err(Reason::CseqMismatch),
            (Name::Via | Name::From | Name::To | Name::CallId, _) => {
                if self.has(checks::MANDATORY) {
                    Err(Reason::MissingHeader)
                } else {
                    Ok(())
                }
            }
            (_, Lacks::Value) if self.has(checks::NUMBERS) => Err(Reason::BadNumber),
            _ => Ok(()),
        }
    }

    fn end(&self) -> Result<(), Reason> {
        self.closed()?;
        if self.length.is_none() && !self.datagram {
            return Err(Reason::MissingContentLength);
        }
        let must = [Name::Via, Name::From, Name::To, Name::CallId, Name::Cseq];
        if self.has(checks::MANDATORY) && !must.iter().all(|name| self.seen.contains(name)) {
            return Err(Reason::MissingHeader);
        }
        let hops = self.has(checks::MAX_FORWARDS) && self.has(checks::MANDATORY) && self.method.is_some();
        if hops && self.hops.is_none() { Err(Reason::MissingHeader) } else { Ok(()) }
    }

    /// Only the first 64 bytes of a line are looked at.
    fn value(&mut self, text: &[u8], from: usize) -> Result<(), Reason> {
        let visible = &text[from.min(64).min(text.len())..text.len().min(64)];
        let long = text.len() > 64;
        match self.last {
            Name::ContentLength => self.content_length(visible, long),
            Name::Cseq => self.cseq(visible, long),
            Name::MaxForwards | Name::Expires => self.number(trim(visible), long),
            Name::Via | Name::From | Name::To | Name::CallId => {
                let first = self.lacks == Lacks::Value;
                if long || !trim(visible).is_empty() {
                    self.lacks = Lacks::Nothing;
                }
                if self.last == Name::Via && first && self.has(checks::NUMBERS) {
                    via(visible, long)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, visible: &[u8], long: bool) -> Result<(), Reason> {
        let value = trim_both(visible);
        if long || !value.is_empty() && self.lacks == Lacks::Nothing {
            return Err(Reason::BadContentLength);
        }
        if value.is_empty() {
            let open = self.lacks == Lacks::Value && !self.datagram;
            return if open { Err(Reason::BadContentLength) } else { Ok(()) };
        }
        if !value.iter().all(u8::is_ascii_digit) || value.len() > 16 || value_of(value) >= 1_000_000_000 {
            return Err(Reason::BadContentLength);
        }
        let number = value_of(value) as u32;
        if number > self.limits.body_bytes {
            return Err(Reason::BodyTooLarge);
        }
        if self.length.is_some_and(|length| length != number) {
            return Err(Reason::DuplicateContentLength);
        }
        self.length = Some(number);
        self.lacks = Lacks::Nothing;
        Ok(())
    }

    fn cseq(&mut self, visible: &[u8], long: bool) -> Result<(), Reason> {
        let mut rest = trim(visible);
        if self.lacks == Lacks::Value {
            if rest.is_empty() {
                return if long && self.has(checks::NUMBERS) { Err(Reason::BadNumber) } else { Ok(()) };
            }
            let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, behind) = rest.split_at(count);
            if self.has(checks::NUMBERS) && (count == 0 || count > 16 || value_of(digits) >= self.cseq_end())
            {
                return Err(Reason::BadNumber);
            }
            if self.has(checks::CSEQ) && behind.first().is_some_and(|b| !blank(*b)) {
                return Err(Reason::CseqMismatch);
            }
            self.lacks = Lacks::Method;
            rest = trim(behind);
        }
        if rest.is_empty() && !long {
            return Ok(());
        }
        self.lacks = Lacks::Nothing;
        let Some(method) = self.method.as_ref().filter(|_| self.has(checks::CSEQ)) else { return Ok(()) };
        let said: &[u8] = rest.split(|b| blank(*b)).next().unwrap_or(b"");
        let cut = long && said.len() == rest.len() && !said.is_empty() && said.len() < method.len();
        if said == method || cut { Ok(()) } else { Err(Reason::CseqMismatch) }
    }

    fn number(&mut self, value: &[u8], long: bool) -> Result<(), Reason> {
        if self.lacks != Lacks::Value || value.is_empty() && !long {
            return Ok(());
        }
        self.lacks = Lacks::Nothing;
        let count = value.iter().take_while(|b| b.is_ascii_digit()).count();
        let hops = self.last == Name::MaxForwards;
        if count == 0 && value.get(3) == Some(&b',') && !hops {
            return Ok(());
        }
        let ends = value.get(count).is_none_or(|b| b" \t;,".contains(b));
        let number = if count == 0 || count > 16 || !ends { 1 << 32 } else { value_of(&value[..count]) };
        if hops && self.hops.is_some_and(|hops| hops != number) && self.has(checks::SINGLETONS) {
            return Err(Reason::DuplicateHeader);
        }
        if hops && number < 1 << 32 {
            self.hops = Some(number);
        }
        let too_many = hops && self.has(checks::MAX_FORWARDS) && number > 255;
        if (too_many || number >= 1 << 32) && self.has(checks::NUMBERS) {
            Err(Reason::BadNumber)
        } else {
            Ok(())
        }
    }

    fn start_line(&mut self, text: &[u8]) -> Result<(), Reason> {
        if is_status(text) {
            return status_line(text, self.limits);
        }
        if !self.datagram && looks_like_length(text) {
            return Err(Reason::BadStartLine);
        }
        let space = text.iter().take(64).position(|b| *b == b' ').ok_or(Reason::BadStartLine)?;
        if space == 0 || text.len() < space + 2 + 8 || text[..space].iter().any(|b| !(0x21..0x7f).contains(b))
        {
            return Err(Reason::BadStartLine);
        }
        let mut end = text.len();
        if !text.to_ascii_lowercase().ends_with(b" sip/2.0") && !self.has(checks::SPACES) {
            while end > space + 10 && text.len() - end < 7 && blank(text[end - 1]) {
                end -= 1;
            }
        }
        let last = &text[end - 8..end];
        if last.eq_ignore_ascii_case(b" SIP/2.0") {
        } else if last[..5].eq_ignore_ascii_case(b" SIP/") {
            if self.has(checks::VERSION) {
                return Err(Reason::BadVersion);
            }
        } else {
            return Err(Reason::BadStartLine);
        }
        let others = text.iter().take(64).enumerate();
        let spaces = others.filter(|(k, b)| **b == b' ' && *k != space && *k != text.len() - 8).count();
        if self.has(checks::SPACES) && spaces > 0 || self.has(checks::TOKENS) && !is_token(&text[..space]) {
            return Err(Reason::BadStartLine);
        }
        let method = &text[..space];
        if method == b"MSRP" && !self.datagram {
            return Err(Reason::BadStartLine);
        }
        let known = METHODS.iter().find(|known| known.name.as_bytes() == method && known.bit != OTHER);
        if self.limits.denied & known.map_or(OTHER, |known| known.bit) != 0 {
            return Err(Reason::MethodDenied);
        }
        self.method = Some(method.to_vec());
        Ok(())
    }
}
