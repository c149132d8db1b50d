//! What a secret is known by, and where it ends. Pure.

use std::cell::Cell;
use std::ops::Range;

use super::is_start;

/// What a header with credentials is called, or ends in. `Proxy-Authorization` ends in it too.
const NAME: &[u8] = b"authorization";
/// Schemes, where the name of their header is damaged.
const SCHEMES: [&[u8]; 3] = [b"digest", b"basic", b"bearer"];
/// Names of headers and of attributes of SDP, or ends of them, whose value is a secret. `inline` is where the key of a `crypto`
/// begins.
const NAMES: [&[u8]; 11] = [
    b"cookie",
    b"-token",
    b"api-key",
    b"apikey",
    b"api_key",
    b"ice-pwd",
    b"ice-ufrag",
    b"key-mgmt",
    b"keymgmt",
    b"crypto",
    b"inline",
];
/// The same, where no other name ends so: `P-Asserted-Identity` is none.
const WHOLE_NAMES: [&[u8]; 2] = [b"identity", b"y"];
/// How a JSON web token begins, in the case that it has: the beginning of its header in base64.
const WEB_TOKEN: &[u8] = b"eyJ";
/// Parameters of secrets, wherever they stand. `nonce` is the end of `cnonce` and `nextnonce`, `response` has none before it.
const PARAMETERS: [&[u8]; 12] = [
    b"response",
    b"nonce",
    b"opaque",
    b"rspauth",
    b"auts",
    b"password",
    b"username",
    b"token",
    b"secret",
    b"passwd",
    b"pwd",
    b"digits",
];
/// Digits that a body has at the most, where it has nothing else.
const DIGITS: usize = 32;

/// Bytes of a value in which a key of SDP is looked for: where it stands further back all of the value is the secret.
const KEY_WITHIN: usize = 256;

/// An end that was found: whoever asks from a place between where it was looked for and there has the same. So a payload full of marks
/// is not gone through again for each.
#[derive(Default)]
struct End(Cell<Option<(usize, usize)>>);

impl End {
    fn from(&self, at: usize, find: impl FnOnce() -> usize) -> usize {
        match self.0.get() {
            Some((begin, end)) if (begin..=end).contains(&at) => end,
            _ => {
                let end = find();
                self.0.set(Some((at, end)));
                end
            }
        }
    }
}

/// Ends that were found in a payload, which are asked for in the order of their places.
#[derive(Default)]
pub(super) struct Ends {
    value: End,
    parameter: End,
    user: End,
    token: End,
}

/// A secret whose mark begins at `at`.
pub(super) fn found(payload: &[u8], at: usize, ends: &Ends) -> Option<Range<usize>> {
    let end_of_value = |begin| ends.value.from(begin, || end_of_value(payload, begin));
    let rest = &payload[at..];
    if begins(rest, NAME) {
        let mut begin = at + NAME.len();
        begin += payload[begin..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b':')).count();
        // The scheme may stay, and dissectors stumble where there is none.
        if let Some(scheme) = SCHEMES.iter().find(|scheme| is_word(payload, begin, scheme)) {
            begin += scheme.len() + 1;
        }
        return Some(begin..end_of_value(begin));
    }
    if let Some(scheme) = SCHEMES.iter().find(|scheme| is_word(payload, at, scheme)) {
        let before = payload[..at].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t'));
        let begin = at + scheme.len() + 1;
        return (before == Some(&b':')).then(|| begin..end_of_value(begin));
    }
    if let Some(name) = PARAMETERS.iter().find(|name| begins(rest, name)) {
        return parameter(payload, at + name.len(), ends);
    }
    if begins(rest, b"sip:") || begins(rest, b"sips:") {
        return password(payload, at + rest.iter().position(|byte| *byte == b':')? + 1, ends);
    }
    if let Some(name) = NAMES.iter().find(|name| begins(rest, name)) {
        return named(payload, at + name.len(), ends);
    }
    let before = at.checked_sub(1).map(|before| payload[before]);
    if !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && let Some(name) = WHOLE_NAMES.iter().find(|name| begins(rest, name))
    {
        return named(payload, at + name.len(), ends);
    }
    if rest.starts_with(WEB_TOKEN) {
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let end = ends.token.from(at, || at + rest.iter().take_while(|byte| part(byte)).count());
        return Some(at..end);
    }
    // The key of RFC 8866 5.12, behind its method.
    if before.is_none_or(|byte| matches!(byte, b'\r' | b'\n')) && begins(rest, b"k=") {
        let end = end_of_line(payload, at);
        return payload[at..end].iter().position(|byte| *byte == b':').map(|colon| at + colon + 1..end);
    }
    if begins(rest, b"signal") {
        let sign = at + b"signal".len() + blanks(&payload[at + b"signal".len()..]);
        return (payload.get(sign) == Some(&b'=')).then(|| sign + 1..end_of_line(payload, sign));
    }
    None
}

/// Value of a header or an attribute behind its name.
fn named(payload: &[u8], at: usize, ends: &Ends) -> Option<Range<usize>> {
    let colon = at + payload[at..].iter().take_while(|byte| !byte.is_ascii_graphic()).count();
    if payload.get(colon) != Some(&b':') {
        return None;
    }
    let begin = colon + 1 + blanks(&payload[colon + 1..]);
    let end = ends.value.from(begin, || end_of_value(payload, begin));
    // Which cipher a key is for, and which protocol a message of keys is of, may stay.
    let key = payload[begin..end.min(begin + KEY_WITHIN)]
        .windows(KEY.len())
        .position(|part| part.eq_ignore_ascii_case(KEY));
    let begin = match key {
        Some(key) => begin + key + KEY.len(),
        None if is_word(payload, begin, b"mikey") => begin + b"mikey".len(),
        None => begin,
    };
    Some(begin..end)
}

/// What a key of SDP stands behind.
const KEY: &[u8] = b"inline:";

/// A line of digits behind an empty one that begins at `at`: the body of a message that has nothing else.
pub(super) fn digits(payload: &[u8], at: usize) -> Option<Range<usize>> {
    let before = payload[..at].iter().rev().take(64).take_while(|byte| matches!(byte, b'\r' | b'\n'));
    if before.filter(|byte| **byte == b'\n').take(2).count() < 2 {
        return None;
    }
    let digit = |byte: &u8| {
        byte.is_ascii_digit() || matches!(byte, b'A'..=b'D' | b'a'..=b'd' | b'*' | b'#' | b',' | b'!')
    };
    let line = &payload[at..end_of_line(payload, at)];
    ((1..=DIGITS).contains(&line.len()) && line.iter().all(digit)).then(|| at..at + line.len())
}

fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

fn end_of_line(payload: &[u8], at: usize) -> usize {
    payload[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')).map_or(payload.len(), |len| at + len)
}

/// Value of a parameter behind its name.
fn parameter(payload: &[u8], at: usize, ends: &Ends) -> Option<Range<usize>> {
    let blank = |at: usize| {
        payload[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
    };
    let sign = at + blank(at);
    if payload.get(sign) != Some(&b'=') {
        return None;
    }
    let begin = sign + 1 + blank(sign + 1);
    if payload.get(begin) == Some(&b'"') {
        return Some(begin + 1..end_of_quotes(payload, begin + 1, ends));
    }
    let is_end = |byte: &u8| matches!(byte, b',' | b';' | b' ' | b'\t' | b'\r' | b'\n' | b'>');
    let end = ends
        .parameter
        .from(begin, || payload[begin..].iter().position(is_end).map_or(payload.len(), |len| begin + len));
    Some(begin..end)
}

/// Where quotes end; where they do not, the value that they stand in does.
fn end_of_quotes(payload: &[u8], begin: usize, ends: &Ends) -> usize {
    let mut at = begin;
    while let Some(byte) = payload.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            b'\n' if matches!(payload.get(at + 1), Some(b'\r' | b'\n')) => break,
            _ => at += 1,
        }
    }
    ends.value.from(begin, || end_of_value(payload, begin))
}

/// Password of a SIP URI, behind its scheme.
fn password(payload: &[u8], begin: usize, ends: &Ends) -> Option<Range<usize>> {
    let user = payload.get(begin..)?;
    let is_end = |byte: &u8| matches!(byte, b'@' | b'>' | b'"' | b' ' | b'\r' | b'\n');
    let end = ends.user.from(begin, || user.iter().position(is_end).map_or(payload.len(), |len| begin + len));
    if payload.get(end) != Some(&b'@') {
        return None;
    }
    let colon = begin + payload[begin..end].iter().position(|byte| *byte == b':')?;
    Some(colon + 1..end)
}

/// Where the value of a header ends that goes on at `at`: before a line that is another header or empty, not before one that is folded
/// or makes no sense.
pub(super) fn end_of_value(payload: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(len) =
        payload[at.min(payload.len())..].iter().position(|byte| matches!(byte, b'\r' | b'\n'))
    {
        let end = at + len;
        let next = end + if payload[end..].starts_with(b"\r\n") { 2 } else { 1 };
        let line = &payload[next..];
        if line.first().is_none_or(|byte| matches!(byte, b'\r' | b'\n')) || is_header(line) || is_start(line)
        {
            return end;
        }
        at = next;
    }
    payload.len()
}

/// Whether a line has a name and a colon, or is one of SDP.
fn is_header(line: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    let name = line.iter().take_while(|byte| token(byte)).count();
    let colon = line[name..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    (name > 0 && colon == Some(&b':')) || (name == 1 && line.get(1) == Some(&b'='))
}

/// Whether a word, in any case, and white space stand at `at`.
fn is_word(payload: &[u8], at: usize, word: &[u8]) -> bool {
    let end = payload.get(at + word.len());
    begins(&payload[at..], word) && matches!(end, Some(b' ' | b'\t' | b'\r' | b'\n'))
}

/// Whether `bytes` begin with a word of small letters, in any case.
pub(super) fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}
