//! What a piece of a stream or a datagram consists of, as tokens that can be counted. Never fails, whatever the bytes are.

use std::fmt::Write as _;

/// Header lines of one message that are looked at.
const LINES: usize = 160;
/// Messages of one piece that are looked at.
const MESSAGES: usize = 16;
/// Bytes of a value that stand for it.
const VALUE_BYTES: usize = 96;
/// Tokens of a piece at the most; a phone's message has some hundred.
const MOST_FEATURES: usize = 256;
/// Characters of a value that everybody uses.
const USUAL: &[u8] = b" ;:=<>@.,/\"-_+()*[]";
/// Values that differ from message to message, so that their text says nothing.
const SECRETS: [&str; 2] = ["authorization", "proxy-authorization"];

/// One countable thing: a token in its slot, such as the parameter `x` in `param:contact`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Feature {
    /// The slot.
    pub slot: String,
    /// The token.
    pub token: String,
}

/// What a piece consists of.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageReading {
    /// Its tokens, each once.
    pub features: Vec<Feature>,
    /// The address of record of its sender, `sip:user@host`, out of the From of a request.
    pub identity: Option<String>,
    /// The User-Agent (or Server) of its sender.
    pub user_agent: Option<String>,
}

struct CrashMessage<'m> {
    start: &'m [u8],
    headers: Vec<(String, Vec<u8>)>,
    body: usize,
    bytes: usize,
}

/// Reads a piece.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> MessageReading {
    let mut reading = MessageReading::default();
    let mut rest = bytes;
    for _ in 0..MESSAGES {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let Some(message) = split(rest) else {
            reading.add("kind", if rest[0] < 4 { "stun" } else { "other" });
            reading.add("size", &bucket(rest.len()));
            break;
        };
        rest = &rest[message.bytes.min(rest.len())..];
        reading.take(&message);
    }
    if reading.features.is_empty() {
        reading.add("kind", "ping");
        reading.add("size", &bucket(bytes.len()));
    }
    reading.features.sort_unstable_by(|a, b| (&a.slot, &a.token).cmp(&(&b.slot, &b.token)));
    reading.features.dedup();
    reading
}

impl Feature {
    /// In words, as something that a message has.
    #[must_use]
    pub(super) fn words(&self) -> String {
        let (kind, place) = self.slot.split_once(':').unwrap_or((&self.slot, ""));
        let place = place.replace(';', " parameter ");
        let token = &self.token;
        match kind {
            "method" => format!("method {token}"),
            "header" => format!("header {token}"),
            "count" => format!("{token} header lines {place}"),
            "param" => format!("parameter `{token}` in {place}"),
            "value" => format!("value `{token}` of {place}"),
            "shape" => format!("a value of the form `{token}` in {place}"),
            "length" => format!("{token} bytes in {place}"),
            "bytes" => format!("the byte {token} in {place}"),
            "size" => format!("a size of {token} bytes"),
            "headers" => format!("{token} header lines"),
            "body" => format!("a body of {token} bytes"),
            _ => format!("{kind} {token}"),
        }
    }
}

impl MessageReading {
    fn add(&mut self, slot: &str, token: &str) {
        if self.features.len() == MOST_FEATURES {
            return;
        }
        self.features.push(Feature { slot: slot.to_owned(), token: token.to_owned() });
    }

    fn take(&mut self, message: &CrashMessage<'_>) {
        let mut words = message.start.splitn(3, |byte| *byte == b' ');
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_request = !first.starts_with(b"SIP/");
        if is_request {
            self.add("method", &text(first));
            self.value("request-uri", second);
        } else {
            self.add("method", &format!("response {}", text(second)));
        }
        let mut size = message.start.len();
        for (at, (name, value)) in message.headers.iter().enumerate() {
            size += name.len() + value.len();
            let is_first = !message.headers[..at].iter().any(|(other, _)| other == name);
            if is_first {
                self.add("header", name);
                let count = message.headers.iter().filter(|(other, _)| other == name).count();
                self.add(&format!("count:{name}"), &count.to_string());
            }
            self.value(name, value);
            match name.as_str() {
                "from" | "f" if is_request => {
                    self.identity = self.identity.take().or_else(|| identity(value));
                }
                "user-agent" | "server" => {
                    self.user_agent = self.user_agent.take().or_else(|| Some(text(value)));
                }
                _ => {}
            }
        }
        self.add("size", &bucket(size));
        self.add("headers", &bucket(message.headers.len()));
        self.add("body", &bucket(message.body));
    }

    /// A value: its parts at `;`, `,` and `?`, the first for itself, the others as parameters of it.
    fn value(&mut self, name: &str, value: &[u8]) {
        for byte in value {
            if !byte.is_ascii_alphanumeric() && !USUAL.contains(byte) {
                let shown = if byte.is_ascii_graphic() {
                    format!("`{}`", *byte as char)
                } else {
                    format!("0x{byte:02x}")
                };
                self.add(&format!("bytes:{name}"), &shown);
            }
        }
        self.add(&format!("length:{name}"), &bucket(value.len()));
        for (at, part) in parts(value).into_iter().enumerate() {
            let part = part.trim_ascii();
            match part.iter().position(|byte| *byte == b'=') {
                Some(equals) if at > 0 || SECRETS.contains(&name) => {
                    let param = text(part[..equals].rsplit(|byte| *byte == b' ').next().unwrap_or_default());
                    let param = param.to_ascii_lowercase();
                    self.add(&format!("param:{name}"), &param);
                    self.word(&format!("{name};{param}"), &part[equals + 1..], SECRETS.contains(&name));
                }
                _ if at > 0 => self.add(&format!("param:{name}"), &text(part).to_ascii_lowercase()),
                // Its number tells how long a phone runs, no more.
                _ if name == "cseq" => self.word(name, without_number(part), false),
                _ => self.word(name, part, SECRETS.contains(&name)),
            }
        }
    }

    fn word(&mut self, place: &str, word: &[u8], is_secret: bool) {
        if !is_secret {
            self.add(&format!("value:{place}"), &text(word));
        }
        self.add(&format!("shape:{place}"), &shape(word));
        if place.contains(';') {
            self.add(&format!("length:{place}"), &bucket(word.len()));
        }
    }
}

/// The message that `bytes` begin with; `None` when they begin with none.
fn split(bytes: &[u8]) -> Option<CrashMessage<'_>> {
    let mut lines = Lines { bytes, at: 0 };
    let start = lines.next()?;
    let is_start = start.windows(7).any(|part| part.eq_ignore_ascii_case(b"SIP/2.0"));
    if !is_start || !start[0].is_ascii_graphic() {
        return None;
    }
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    let mut body = 0;
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        if matches!(line[0], b' ' | b'\t') {
            if let Some((_, value)) = headers.last_mut() {
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = text(line[..colon].trim_ascii()).to_ascii_lowercase();
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec();
        if name == "content-length" || name == "l" {
            body = str::from_utf8(&value).ok().and_then(|value| value.parse().ok()).unwrap_or(0);
        }
        if headers.len() < LINES {
            headers.push((name, value));
        }
    }
    let bytes = lines.at.saturating_add(body);
    Some(CrashMessage { start, headers, body, bytes })
}

struct Lines<'l> {
    bytes: &'l [u8],
    at: usize,
}

impl<'l> Iterator for Lines<'l> {
    type Item = &'l [u8];

    fn next(&mut self) -> Option<&'l [u8]> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        self.at += end;
        let line = rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// The parts of a value at its separators, outside quotes.
fn parts(value: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut begin, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b';' | b',' | b'?' if !quoted => {
                parts.push(&value[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[begin..]);
    parts
}

/// `sip:user@host` out of a From; a display name in quotes may say anything.
fn identity(value: &[u8]) -> Option<String> {
    let value = str::from_utf8(value).ok()?;
    let value = value.rsplit_once('"').map_or(value, |(_, behind)| behind);
    let at = value.find("sip:").or_else(|| value.find("sips:"))?;
    let (_, rest) = value[at..].split_once(':')?;
    let end = rest.find(['>', ';', '?', ' ', '"', ',']).unwrap_or(rest.len());
    let (user, host) = rest[..end].split_once('@')?;
    let host =
        if host.starts_with('[') { host.split_inclusive(']').next()? } else { host.split(':').next()? };
    let user = user.split(':').next()?;
    Some(format!("sip:{user}@{}", host.to_ascii_lowercase()))
}

/// A value behind the number that it begins with.
fn without_number(value: &[u8]) -> &[u8] {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    &value[digits..]
}

/// Letters, digits and the rest, each run of them once.
fn shape(word: &[u8]) -> String {
    let mut shape = String::new();
    for byte in word.iter().take(4 * VALUE_BYTES) {
        let class = match byte {
            byte if byte.is_ascii_alphabetic() => 'a',
            byte if byte.is_ascii_digit() => '9',
            byte if byte.is_ascii_graphic() || *byte == b' ' => *byte as char,
            _ => '?',
        };
        if !shape.ends_with(class) {
            shape.push(class);
        }
    }
    shape.truncate(VALUE_BYTES);
    shape
}

/// The size as a range, two of them to each doubling.
fn bucket(size: usize) -> String {
    let mut low = 0;
    let mut high = 8;
    while size > high && high < 1 << 30 {
        low = high + 1;
        high = if high.is_power_of_two() { high / 2 * 3 } else { high / 3 * 4 };
    }
    format!("{low} to {high}")
}

/// The ranges of sizes beside one of [`bucket`].
#[must_use]
pub(super) fn neighbours(range: &str) -> Vec<String> {
    let Some((low, high)) = range.split_once(" to ") else { return Vec::new() };
    let (Ok(low), Ok(high)) = (low.parse::<usize>(), high.parse::<usize>()) else { return Vec::new() };
    low.checked_sub(1).into_iter().chain([high + 1]).map(bucket).collect()
}

/// Bytes as text that can be shown, cut.
#[must_use]
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(VALUE_BYTES) {
        match byte {
            b' '..=b'~' => text.push(*byte as char),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    if bytes.len() > VALUE_BYTES {
        let _ = write!(text, "... ({} bytes)", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_name_is_nobody() {
        assert_eq!(identity(b"\"sip:victim@pbx\" <sip:me@pbx>;tag=1").as_deref(), Some("sip:me@pbx"));
    }

    #[test]
    fn many_parameters_are_not_read_for_ever() {
        let message = format!("OPTIONS sip:a SIP/2.0\r\nX: {}\r\n\r\n", "a;".repeat(600));
        assert!(read(message.as_bytes()).features.len() <= MOST_FEATURES);
    }

    #[test]
    fn sizes_have_two_beside_them() {
        assert_eq!(neighbours("9 to 12"), ["0 to 8", "13 to 16"]);
        assert_eq!(neighbours("0 to 8"), ["9 to 12"]);
        assert!(neighbours("REGISTER").is_empty() && neighbours("a to b").is_empty());
    }

    #[test]
    fn a_message_is_read() {
        let reading = read(
            b"\r\n\r\nREGISTER sip:pbx SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9;rport\r\nFrom: \"A\" <sip:7@PBX.example:5060>;tag=1\r\n\
              User-Agent: Phone\r\n 1.0\r\nX-Odd: a%b\r\nContent-Length: 3\r\n\r\nabcOPTIONS sip:pbx SIP/2.0\r\n\r\n",
        );
        assert_eq!(reading.identity.as_deref(), Some("sip:7@pbx.example"));
        assert_eq!(reading.user_agent.as_deref(), Some("Phone 1.0"));
        let has = |slot: &str, token: &str| {
            reading.features.iter().any(|feature| feature.slot == slot && feature.token == token)
        };
        for (slot, token) in [
            ("method", "REGISTER"),
            ("method", "OPTIONS"),
            ("header", "x-odd"),
            ("param:via", "rport"),
            ("value:via;branch", "z9"),
            ("bytes:x-odd", "`%`"),
            ("shape:x-odd", "a%a"),
            ("length:x-odd", "0 to 8"),
        ] {
            assert!(has(slot, token), "{slot} {token}: {:?}", reading.features);
        }
    }

    #[test]
    fn whatever_comes_is_read() {
        for bytes in [
            &b""[..],
            b"\r\n",
            b"\0\0",
            b"\xff\xfe SIP/2.0\r\n:\r\n",
            b"SIP/2.0",
            b"A b SIP/2.0\r\n =;,?\"\r\n:",
            b"A b SIP/2.0\r\nl: 18446744073709551615\r\n\r\n",
        ] {
            assert!(!read(bytes).features.is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn sizes_have_ranges() {
        let ranges: Vec<String> = [0, 8, 9, 12, 13, 16, 17, 24, 25, 1500].map(bucket).to_vec();
        assert_eq!(
            ranges,
            [
                "0 to 8",
                "0 to 8",
                "9 to 12",
                "9 to 12",
                "13 to 16",
                "13 to 16",
                "17 to 24",
                "17 to 24",
                "25 to 32",
                "1025 to 1536"
            ]
        );
    }
}
