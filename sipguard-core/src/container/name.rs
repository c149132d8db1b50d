//! How an operator names a container.

use std::fmt;
use std::str::FromStr;

use crate::named::named;

/// What runs a container, and keeps files of it that can be read without a client of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Docker.
    Docker,
    /// containerd, without or below another one: by the number of the container.
    Containerd,
    /// Podman and CRI-O.
    Podman,
    /// systemd-nspawn, as systemd-machined knows it.
    Nspawn,
    /// LXC, LXD and Incus.
    Lxc,
    /// `ip netns`.
    Netns,
}

named!(Engine {
    Docker = "docker",
    Containerd = "containerd",
    Podman = "podman",
    Nspawn = "nspawn",
    Lxc = "lxc",
    Netns = "netns",
});

/// A container: `NAME`, `ENGINE:NAME`, the number of one of its processes, or `NAME=PID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName {
    label: String,
    pub(super) found_by: FoundBy,
}

/// How it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundBy {
    /// By one of its processes.
    Process(u32),
    /// By its name, of one engine or of any.
    Named(Option<Engine>),
}

/// Longest name.
const LONGEST: usize = 64;

impl ContainerName {
    /// What its guard is called.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// As it can be typed again.
    fn typed(&self) -> String {
        match self.found_by {
            FoundBy::Process(pid) if pid.to_string() == self.label => self.label.clone(),
            FoundBy::Process(pid) => format!("{}={pid}", self.label),
            FoundBy::Named(Some(engine)) => format!("{}:{}", engine.name(), self.label),
            FoundBy::Named(None) => self.label.clone(),
        }
    }

    /// Whether a process was named.
    pub(super) fn is_process(&self) -> bool {
        matches!(self.found_by, FoundBy::Process(_))
    }

    /// The label as a part of a file's name: a bpffs takes no dots.
    pub(super) fn file_name(&self) -> String {
        let one = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        self.label.bytes().map(one).collect()
    }
}

impl FromStr for ContainerName {
    type Err = String;

    fn from_str(text: &str) -> Result<ContainerName, String> {
        let pid = |digits: &str| {
            let pid = digits.parse().ok().filter(|pid| (1..=i32::MAX.unsigned_abs()).contains(pid));
            pid.map(FoundBy::Process).ok_or_else(|| format!("`{digits}` is no number of a process"))
        };
        let (label, found_by) = if let Some((label, digits)) = text.split_once('=') {
            (label, pid(digits)?)
        } else if let Some((engine, label)) = text.split_once(':') {
            let known = Engine::of(engine);
            let known = known.ok_or_else(|| format!("`{engine}` is none of {}", Engine::names()))?;
            (label, FoundBy::Named(Some(known)))
        } else if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            (text, pid(text)?)
        } else {
            (text, FoundBy::Named(None))
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if label.is_empty()
            || label.len() > LONGEST
            || label.starts_with(['-', '.'])
            || !label.bytes().all(is_plain)
        {
            return Err(format!(
                "`{label}` is no name of a container: up to {LONGEST} letters, digits, `-`, `_` and `.`; or the number of one of its processes"
            ));
        }
        Ok(ContainerName { label: label.to_owned(), found_by })
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_typed() {
        for (text, label, found_by) in [
            ("pbx", "pbx", FoundBy::Named(None)),
            ("lxc:101", "101", FoundBy::Named(Some(Engine::Lxc))),
            ("4711", "4711", FoundBy::Process(4711)),
            ("pbx.1=4711", "pbx.1", FoundBy::Process(4711)),
        ] {
            let name: ContainerName = text.parse().unwrap();
            assert_eq!((name.label(), &name.found_by, name.to_string().as_str()), (label, &found_by, text));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ".",
            "../x",
            "a/b",
            "-x",
            "a b",
            "a@b",
            "=1",
            "x=",
            "x=0",
            "0",
            "x=4294967295",
            "rkt:x",
            "docker:",
            "a:b:c",
        ] {
            assert!(text.parse::<ContainerName>().is_err(), "{text}");
        }
        assert!("x".repeat(LONGEST).parse::<ContainerName>().is_ok());
        assert!("x".repeat(LONGEST + 1).parse::<ContainerName>().is_err());
    }
}
