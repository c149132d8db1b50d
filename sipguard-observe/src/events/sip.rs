//! What a message says of itself, as far as it can be read. Fit for garbage: it gives less, and never fails.

use serde::Serialize;

/// Longest value in bytes.
const VALUE_BYTES: usize = 256;
/// Most lines that are looked at.
const LINES: usize = 128;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sip {
    /// Method of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Its URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Code of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// User-Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// From.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Contact.
    #[serde(skip)]
    pub contact: Option<String>,
    /// Call-ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

impl Sip {
    /// Of a payload, which may be a part of a message.
    #[must_use]
    pub fn read(payload: &[u8]) -> Sip {
        let mut sip = Sip::default();
        let mut lines = payload.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty());
        let Some(first) = lines.next() else { return sip };
        sip.start(first);
        for line in [first].into_iter().chain(lines).take(LINES) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            let is = |names: &[&str]| names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
            let place = if is(&["from", "f"]) {
                &mut sip.from
            } else if is(&["call-id", "i"]) {
                &mut sip.call_id
            } else if is(&["contact", "m"]) {
                &mut sip.contact
            } else if is(&["user-agent"]) {
                &mut sip.user_agent
            } else {
                continue;
            };
            place.get_or_insert_with(|| shown(value));
        }
        sip
    }

    fn start(&mut self, line: &[u8]) {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (Some(one), Some(two)) = (words.next(), words.next()) else { return };
        if one.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"SIP/")) {
            self.code = Some(shown(two)).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        } else if one.len() <= 32 && one.iter().all(u8::is_ascii_uppercase) && two.contains(&b':') {
            (self.method, self.uri) = (Some(shown(one)), Some(shown(two)));
        }
    }

    /// Whether nothing was read that an event shows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Sip { method, uri, code, user_agent, from, contact: _, call_id } = self;
        [method, uri, code, user_agent, from, call_id].iter().all(|field| field.is_none())
    }
}

fn shown(value: &[u8]) -> String {
    sipguard_core::escape::dotted(&value[..value.len().min(VALUE_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_is() {
        let sip = Sip::read(
            b"\r\nREGISTER sip:pbx SIP/2.0\r\nf: <sip:a@h>;tag=1\r\nFrom: second\r\nUSER-AGENT : x\x01y\r\nCall-ID:c",
        );
        assert_eq!(sip.method.as_deref(), Some("REGISTER"));
        assert_eq!(sip.uri.as_deref(), Some("sip:pbx"));
        assert_eq!(sip.from.as_deref(), Some("<sip:a@h>;tag=1"));
        assert_eq!(sip.user_agent.as_deref(), Some("x.y"));
        assert_eq!(sip.call_id.as_deref(), Some("c"));
        assert_eq!(Sip::read(b"SIP/2.0 404 Not Found\r\n").code.as_deref(), Some("404"));
    }

    #[test]
    fn garbage_gives_nothing_and_a_long_value_its_beginning() {
        for garbage in [&b""[..], b"\0\x01", b"\xff: \xff", b"\r\n\r\n", b"a b c", b":", b"SIP/2.0 4x4 Z"] {
            assert_eq!(Sip::read(garbage), Sip::default(), "{garbage:?}");
        }
        let long = [b"From: ".to_vec(), vec![b'y'; 5000]].concat();
        assert_eq!(Sip::read(&long).from.map(|from| from.len()), Some(VALUE_BYTES));
    }
}
