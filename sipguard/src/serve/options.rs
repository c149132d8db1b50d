//! What an operator chooses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::hep::Homer;
use crate::{cores, crash, evidence};

/// Where it listens unless told otherwise. Only this host gets there.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9506";

/// Where evidence is kept unless told otherwise.
pub const DEFAULT_EVIDENCE: &str = "/var/lib/sipguard/evidence";
/// Bytes of a log of events; the one before it may have as many.
pub const DEFAULT_LOG_BYTES: u64 = 64 << 20;

/// What an operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub listen: Listen,
    /// Where the history is kept.
    pub history: Keep,
    /// Whether events go to the journal of systemd, where there is one.
    pub journal: bool,
    /// File of events, a line of JSON each.
    pub log: Option<PathBuf>,
    /// Bytes of that file.
    pub log_bytes: u64,
    /// Directory of the packets that were stopped, as pcapng.
    pub evidence: Option<PathBuf>,
    /// How much of them is kept, and what they and the log leave free on their disks.
    pub evidence_limits: evidence::EvidenceLimits,
    /// Where messages that were stopped are sent as HEP3.
    pub homer: Option<Homer>,
    /// Which process is the PBX, and what is done when it crashes. Nothing unless one is named.
    pub crash: crash::CrashSettings,
    /// What is done with core dumps. Nothing unless a directory is named.
    pub cores: cores::CoreSettings,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: Listen::default(),
            history: Keep::default(),
            journal: true,
            log: None,
            log_bytes: DEFAULT_LOG_BYTES,
            evidence: Some(DEFAULT_EVIDENCE.into()),
            evidence_limits: evidence::EvidenceLimits::default(),
            homer: None,
            crash: crash::CrashSettings::default(),
            cores: cores::CoreSettings::default(),
        }
    }
}

/// `ADDR:PORT`, or `NAME:PORT` of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub String);

/// A file, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<PathBuf>);

impl Default for Listen {
    fn default() -> Listen {
        Listen(DEFAULT_LISTEN.to_owned())
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep(Some(super::DEFAULT_HISTORY.into()))
    }
}

impl Listen {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<Listen, String> {
        let named = || {
            let (name, port) = text.rsplit_once(':')?;
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
            port.parse::<u16>().is_ok_and(|_| is_name).then_some(())
        };
        if text.parse::<SocketAddr>().is_ok() || named().is_some() {
            return Ok(Listen(text.to_owned()));
        }
        Err(format!("an address with its port is wanted, such as {DEFAULT_LISTEN} or [::1]:9506"))
    }
}

impl Keep {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<Keep, String> {
        match text {
            "none" => Ok(Keep(None)),
            text if Path::new(text).is_absolute() => Ok(Keep(Some(text.into()))),
            _ => Err("a file is wanted with its whole path, or none".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_a_file_its_whole_path() {
        for good in ["127.0.0.1:9506", "[::1]:1", "0.0.0.0:0", "localhost:9506", "pbx-1.example:80"] {
            assert_eq!(Listen::parse(good), Ok(Listen(good.to_owned())));
        }
        for bad in ["", ":9506", "127.0.0.1", "::1:x", "a b:1", "localhost:65536", "http://localhost:1"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Keep::parse("none"), Ok(Keep(None)));
        assert_eq!(Keep::parse("/a/b"), Ok(Keep(Some("/a/b".into()))));
        assert!(Keep::parse("b").is_err() && Keep::parse("").is_err());
    }
}
