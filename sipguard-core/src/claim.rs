//! What a request says of itself, as rules have it: a SIP identity, or how its User-Agent begins.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use sipguard_common::framer::{MATCH_KEY_BYTES, MatchKey, identity_of};

/// The address of record of a device: user and host of the SIP URI in its From or Contact (RFC 3261 sections 8.1.1.3 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(&'static str);

/// How a User-Agent begins (RFC 3261 section 20.41), in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserAgent(&'static str);

/// The word before a user agent where it stands among other targets.
pub const USER_AGENT: &str = "user-agent:";
/// Bytes of a user agent that a rule may have: fewer would stop too many, and more are not always seen.
const BYTES: std::ops::RangeInclusive<usize> = 3..=48;
/// How the user agents of PBXs and phones begin of which there are many, in lower case.
const FAMILIES: &[&str] = &[
    "3cx",
    "aastra",
    "asterisk",
    "audiocodes",
    "avaya",
    "baresip",
    "bria",
    "cisco",
    "counterpath",
    "eyebeam",
    "fanvil",
    "fpbx",
    "freepbx",
    "freeswitch",
    "fritz!os",
    "gigaset",
    "grandstream",
    "htek",
    "kamailio",
    "linksys",
    "linphone",
    "microsip",
    "mitel",
    "obihai",
    "opensips",
    "panasonic",
    "patton",
    "poly",
    "polycom",
    "sipura",
    "snom",
    "spectralink",
    "telephone",
    "unify",
    "vodia",
    "x-lite",
    "yealink",
    "zoiper",
];

/// How the user agents of scanners begin that nobody else uses.
pub const SCANNERS: [&str; 5] = ["friendly-scanner", "sipvicious", "sundayddr", "sip-scan", "pplsip"];

impl Identity {
    /// Of a SIP URI, `sip:user@host` or `sips:user@host`, which are one.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(uri: &str) -> Result<Identity, String> {
        let rest = uri.split_once(':').map_or("", |(_, rest)| rest);
        match identity_of(uri) {
            Some((key, bytes)) if bytes as usize == rest.len() => Ok(Identity(kept(&text(&key, bytes)))),
            _ => Err(format!(
                "`{uri}` is no SIP identity: write `sip:user@host`, up to {} bytes, without port, password and parameters",
                MATCH_KEY_BYTES - 1
            )),
        }
    }

    /// From the map's form.
    #[must_use]
    pub(crate) fn from_key(key: &[u8; MATCH_KEY_BYTES]) -> Identity {
        Identity(kept(&of_key(key)))
    }

    /// The map's form.
    #[must_use]
    pub fn key(&self) -> [u8; MATCH_KEY_BYTES] {
        padded(self.0)
    }
}

impl UserAgent {
    /// Of the first bytes of a User-Agent, in any case.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<UserAgent, String> {
        if !BYTES.contains(&text.len()) {
            return Err(format!(
                "`{text}` can't be blocked as a user agent: the first {} to {} bytes of it are wanted",
                BYTES.start(),
                BYTES.end()
            ));
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(format!(
                "`{text}` is no beginning of a User-Agent: no space at its ends, no control characters"
            ));
        }
        Ok(UserAgent(kept(&text.to_ascii_lowercase())))
    }

    /// The longest beginning of a User-Agent that a rule may have. Unlike [`UserAgent::parse`] it keeps nothing of what a stranger says.
    #[must_use]
    pub fn longest_beginning(text: &str) -> Option<&str> {
        let head = text.get(..text.floor_char_boundary(*BYTES.end()))?.trim();
        (BYTES.contains(&head.len()) && !head.chars().any(char::is_control)).then_some(head)
    }

    /// Every rule that there may be about a User-Agent, the longest first.
    pub fn beginnings(text: &str) -> impl Iterator<Item = UserAgent> {
        let longest = text.len().min(*BYTES.end());
        (*BYTES.start()..=longest).rev().filter_map(|end| UserAgent::parse(text.get(..end)?).ok())
    }

    /// From the map's form.
    #[must_use]
    pub(crate) fn from_key(key: &[u8; MATCH_KEY_BYTES]) -> UserAgent {
        UserAgent(kept(&of_key(key)))
    }

    /// The map's form.
    #[must_use]
    pub fn key(&self) -> [u8; MATCH_KEY_BYTES] {
        padded(self.0)
    }

    /// Its text alone.
    #[must_use]
    pub fn text(&self) -> &'static str {
        self.0
    }

    /// Its length in bits.
    #[must_use]
    pub fn bits(&self) -> u32 {
        8 * self.0.len() as u32
    }

    /// The family of PBXs or phones that it would stop as a whole.
    #[must_use]
    pub fn family(&self) -> Option<&'static str> {
        FAMILIES.iter().find(|family| family.starts_with(self.0)).copied()
    }
}

fn text(key: &MatchKey, bytes: u32) -> String {
    let all: Vec<u8> = key.iter().flat_map(|word| word.to_le_bytes()).take(bytes as usize).collect();
    String::from_utf8_lossy(&all).into_owned()
}

fn of_key(key: &[u8; MATCH_KEY_BYTES]) -> String {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(MATCH_KEY_BYTES);
    String::from_utf8_lossy(&key[..end]).into_owned()
}

fn padded(text: &str) -> [u8; MATCH_KEY_BYTES] {
    std::array::from_fn(|at| text.as_bytes().get(at).copied().unwrap_or(0))
}

/// One copy of each text, kept permanently: so targets are small and can be copied, and those of addresses pay nothing.
fn kept(text: &str) -> &'static str {
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(text) = texts.get(text) {
        return text;
    }
    let text: &'static str = Box::leak(text.into());
    texts.insert(text);
    text
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sip:{}", self.0)
    }
}

impl fmt::Display for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{USER_AGENT}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        for (typed, shown) in [
            ("sip:1234@pbx.example", "sip:1234@pbx.example"),
            ("SIPS:Alice@PBX.Example", "sip:Alice@pbx.example"),
            ("sip:+49;x=1@[2001:DB8::7]", "sip:+49;x=1@[2001:db8::7]"),
        ] {
            let identity = Identity::parse(typed).unwrap();
            assert_eq!(identity.to_string(), shown);
            assert_eq!(Identity::from_key(&identity.key()), identity);
        }
        let long = format!("sip:1@{}", "h".repeat(62));
        for typed in [
            "sip:",
            "sip:pbx",
            "sip:@pbx",
            "sip:1@",
            "sip:1@pbx:5060",
            "sip:1@pbx;x=y",
            "sip:1:secret@pbx",
            "1@pbx",
            "tel:+49",
            "sip:a b@pbx",
            "<sip:1@pbx>",
            "sip:1@pbx ",
            &long,
        ] {
            assert!(Identity::parse(typed).unwrap_err().contains("is no SIP identity"), "{typed}");
        }
    }

    #[test]
    fn user_agents() {
        let agent = UserAgent::parse("Friendly-Scanner").unwrap();
        assert_eq!((agent.to_string().as_str(), agent.bits()), ("user-agent:friendly-scanner", 128));
        assert_eq!(UserAgent::from_key(&agent.key()), agent);
        for typed in ["", "ab", " abc", "abc ", "a\tb", &"a".repeat(49)] {
            assert!(UserAgent::parse(typed).is_err(), "{typed:?}");
        }
        for (said, beginning) in [
            ("BadPhone 1.2 ", Some("BadPhone 1.2")),
            (&"\u{e4}".repeat(30), Some(&*"\u{e4}".repeat(24))),
            (&format!("{} x", "a".repeat(47)), Some(&*"a".repeat(47))),
            ("ab", None),
            ("a\u{1b}[2J", None),
        ] {
            assert_eq!(UserAgent::longest_beginning(said), beginning, "{said:?}");
            assert!(beginning.is_none_or(|beginning| UserAgent::parse(beginning).is_ok()), "{said:?}");
        }
        let all: Vec<String> = UserAgent::beginnings("SCAN r").map(|agent| agent.to_string()).collect();
        assert_eq!(all, ["user-agent:scan r", "user-agent:scan", "user-agent:sca"]);
        for scanner in SCANNERS {
            assert_eq!(UserAgent::parse(scanner).unwrap().family(), None, "{scanner}");
        }
        assert_eq!(UserAgent::beginnings("\u{e4}\u{e4}x").count(), 2, "only whole characters");
        for (typed, family) in
            [("Yea", Some("yealink")), ("asterisk", Some("asterisk")), ("Asterisk PBX 11", None)]
        {
            assert_eq!(UserAgent::parse(typed).unwrap().family(), family, "{typed}");
        }
    }
}
