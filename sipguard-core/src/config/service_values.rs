//! The values of `[serve]`, `[crash]` and `[cores]` that are written as text.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::value::Written;
use crate::ban_rule;
use crate::disk::{Floor, parse_size};
use crate::service::Keep;

/// Sizes below are a forgotten unit, those above overflow sums.
const SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 50;
/// Bytes of a password of Homer.
const PASSWORD_BYTES: usize = 64;
/// Bytes of the name of a unit, as systemd has it.
const UNIT_BYTES: usize = 255;

/// So many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl Written for Size {
    const FORM: &'static str = "a size such as \"64M\"";

    fn read(text: &str) -> Result<Self, String> {
        let bytes = parse_size(text)?;
        let of_range =
            || format!("`{text}` is {bytes} bytes: it is a size from 64K to 1048576G, such as 64M");
        SIZES.contains(&bytes).then_some(Size(bytes)).ok_or_else(of_range)
    }

    fn schema() -> Value {
        json!({ "pattern": "^[0-9]+[KkMmGg]?[Ii]?[Bb]?$" })
    }
}

/// What is left free on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free(pub Floor);

impl Written for Free {
    const FORM: &'static str = "a size such as \"2G\", or \"auto\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Free(Floor::Usual));
        }
        let size = Size::read(text).map_err(|error| format!("{error}, or auto"))?;
        Ok(Free(Floor::Bytes(size.0)))
    }

    fn schema() -> Value {
        json!({ "pattern": "^(auto|[0-9]+[KkMmGg]?[Ii]?[Bb]?)$" })
    }
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole(pub PathBuf);

impl Written for Whole {
    const FORM: &'static str = "a whole path such as \"/var/cores\"";

    fn read(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        // What lies within what is only told without `..`.
        let is_plain =
            path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if path.is_absolute() && is_plain && !text.contains(char::is_control) {
            return Ok(Whole(path.components().collect()));
        }
        Err(format!("`{text}` is no whole path: write it from the root and without `..`, such as /var/cores"))
    }

    fn schema() -> Value {
        json!({ "pattern": "^/" })
    }
}

/// A directory, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptIn(pub Keep);

impl Written for KeptIn {
    const FORM: &'static str = "a directory with its whole path, or \"none\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(KeptIn(Keep(None)));
        }
        let whole = Whole::read(text).map_err(|error| format!("{error}, or none"))?;
        Ok(KeptIn(Keep(Some(whole.0))))
    }

    fn schema() -> Value {
        json!({ "pattern": "^(none$|/)" })
    }
}

/// Homer's address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HomerAt(pub Option<SocketAddr>);

impl Written for HomerAt {
    const FORM: &'static str = "an address and a port such as \"192.0.2.9:9060\", or \"none\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(HomerAt(None));
        }
        let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        address.map(|address| HomerAt(Some(address))).ok_or_else(|| {
            format!(
                "`{text}` is no address with its port: write such as 192.0.2.9:9060 or [2001:db8::9]:9060, or none; a name is not looked up"
            )
        })
    }
}

/// A password of Homer. What is wrong with it is told without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Password(pub String);

impl Written for Password {
    const FORM: &'static str = "a password in quotes";

    fn read(text: &str) -> Result<Self, String> {
        if text.len() <= PASSWORD_BYTES {
            return Ok(Password(text.to_owned()));
        }
        Err(format!("it has {} bytes: {PASSWORD_BYTES} are the most", text.len()))
    }

    fn schema() -> Value {
        json!({ "maxLength": PASSWORD_BYTES })
    }
}

/// A service of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit(pub String);

impl Written for Unit {
    const FORM: &'static str = "a service of systemd such as \"asterisk.service\"";

    fn read(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let name = text.strip_suffix(".service").unwrap_or_default();
        if !name.is_empty() && text.len() <= UNIT_BYTES && text.bytes().all(fits) {
            return Ok(Unit(text.to_owned()));
        }
        Err(format!("`{text}` is no service of systemd: write its whole name, such as asterisk.service"))
    }

    fn schema() -> Value {
        json!({ "pattern": "^[A-Za-z0-9:_.\\\\@-]+\\.service$" })
    }
}

/// Name or whole path of an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Executable(pub String);

impl Written for Executable {
    const FORM: &'static str = "an executable such as \"asterisk\" or \"/usr/sbin/asterisk\"";

    fn read(text: &str) -> Result<Self, String> {
        let is_name = !text.is_empty() && !text.contains(|letter: char| letter == '/' || letter.is_control());
        if is_name || Path::new(text).file_name().is_some() && Whole::read(text).is_ok() {
            return Ok(Executable(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no executable: write its name or its whole path, such as asterisk or /usr/sbin/asterisk"
        ))
    }
}

/// How long, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quarantine(pub Option<Duration>);

impl Written for Quarantine {
    const FORM: &'static str = "a duration such as \"10m\", or \"none\"";

    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Quarantine(None));
        }
        let span = ban_rule::parse_span(text).map_err(|error| format!("{error}, or none"))?;
        Ok(Quarantine(Some(span)))
    }
}

/// A name of cores, in which `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(pub String);

impl Written for Pattern {
    const FORM: &'static str = "a name of cores such as \"core.*\"";

    fn read(text: &str) -> Result<Self, String> {
        if !text.is_empty() && !text.contains(|letter: char| letter == '/' || letter.is_control()) {
            return Ok(Pattern(text.to_owned()));
        }
        Err(format!("`{text}` is no name of a file: write such as core.*, without a directory"))
    }

    fn schema() -> Value {
        json!({ "pattern": "^[^/]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: Written>(texts: &[&str]) {
        for text in texts {
            assert!(T::read(text).is_err(), "{text:?} is taken for {}", T::FORM);
        }
    }

    #[test]
    fn what_is_read_and_what_is_refused() {
        assert_eq!(Size::read("64K"), Ok(Size(64 << 10)));
        assert_eq!(Size::read("1048576G"), Ok(Size(1 << 50)));
        refused::<Size>(&["64", "63K", "1048577G", "1.5G", "auto", ""]);
        assert_eq!(Free::read("2G"), Ok(Free(Floor::Bytes(2 << 30))));
        assert_eq!(Free::read("auto"), Ok(Free(Floor::Usual)));
        refused::<Free>(&["none", "5%", "1"]);
        assert_eq!(Whole::read("//var/./cores/"), Ok(Whole("/var/cores".into())));
        refused::<Whole>(&["", "cores", "./cores", "/var/../cores", "/var\0", "none"]);
        assert_eq!(KeptIn::read("none"), Ok(KeptIn(Keep(None))));
        refused::<KeptIn>(&["", "evidence", "/a/.."]);
        assert_eq!(HomerAt::read("[::1]:9060"), Ok(HomerAt(Some("[::1]:9060".parse().unwrap()))));
        refused::<HomerAt>(&["", "192.0.2.9", "192.0.2.9:0", "homer.example:9060", "::1:9060"]);
        assert!(Password::read(&"é".repeat(32)).is_ok() && Password::read(&"é".repeat(33)).is_err());
        assert_eq!(Unit::read("asterisk@1.service"), Ok(Unit("asterisk@1.service".to_owned())));
        refused::<Unit>(&["", "asterisk", ".service", "../x.service", "a b.service", "asterisk.socket"]);
        refused::<Unit>(&[&format!("{}.service", "x".repeat(250))]);
        assert!(Executable::read("asterisk").is_ok() && Executable::read("/usr/sbin/asterisk").is_ok());
        refused::<Executable>(&["", "/", "sbin/asterisk", "a\n"]);
        assert_eq!(Quarantine::read("10m"), Ok(Quarantine(Some(Duration::from_secs(600)))));
        assert_eq!(Quarantine::read("none"), Ok(Quarantine(None)));
        refused::<Quarantine>(&["", "permanent", "31d", "0"]);
        refused::<Pattern>(&["", "/var/cores/*", "a\tb"]);
    }
}
