//! What `serve` is told to do: what the configuration file says, and its parts take.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::Floor;

/// Where it listens unless told otherwise. Only this host gets there.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9506";
/// Where the history is kept unless told otherwise.
pub(crate) const DEFAULT_HISTORY: &str = "/var/lib/sipguard/history.db";
/// Where evidence is kept unless told otherwise.
pub(crate) const DEFAULT_EVIDENCE: &str = "/var/lib/sipguard/evidence";
/// Bytes of a log of events; the one before it may have as many.
pub(crate) const DEFAULT_LOG_BYTES: u64 = 64 << 20;
/// Where reports are kept when nothing else is said.
pub const DEFAULT_CRASHES: &str = "/var/lib/sipguard/crashes";
/// Node that Homer shows a packet to be from, when nothing else is said.
pub const DEFAULT_HOMER_ID: u32 = 2060;
/// Names of cores; `*` stands for anything.
pub const DEFAULT_PATTERNS: [&str; 3] = ["core", "core.*", "*.core"];

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
    pub evidence_limits: EvidenceLimits,
    /// Where messages that were stopped are sent as HEP3.
    pub homer: Option<Homer>,
    /// Which process is the PBX, and what is done when it crashes. Nothing unless one is named.
    pub crash: CrashSettings,
    /// What is done with core dumps. Nothing unless a directory is named.
    pub cores: CoreSettings,
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
            evidence_limits: EvidenceLimits::default(),
            homer: None,
            crash: CrashSettings::default(),
            cores: CoreSettings::default(),
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
        Keep(Some(DEFAULT_HISTORY.into()))
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

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// In how many files; each is full at its part of [`EvidenceLimits::bytes`].
    pub files: u32,
    /// What is left free on the file system.
    pub floor: Floor,
}

impl Default for EvidenceLimits {
    /// 64 MiB in 8 files.
    fn default() -> EvidenceLimits {
        EvidenceLimits { bytes: 64 << 20, files: 8, floor: Floor::Usual }
    }
}

/// Where messages are sent, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homer {
    /// Address of Homer's HEP port, UDP.
    pub address: SocketAddr,
    /// Capture agent.
    pub id: u32,
    /// Homer's password; empty for none.
    pub password: String,
    /// Name of this host, as Homer shows it.
    pub node: String,
}

/// What is watched, and what is done at a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashSettings {
    /// Which process is the PBX.
    pub watched: Watched,
    /// Where reports are kept.
    pub directory: PathBuf,
    /// How many reports are kept.
    pub reports: usize,
    /// Bytes that they may occupy.
    pub limit: u64,
    /// For how long the device that was the cause is blocked, where it is clear which it was; `None` blocks nobody.
    pub quarantine: Option<Duration>,
    /// How long the PBX must live on after a packet before that counts as usual.
    pub settle: Duration,
    /// How often packets are looked at to learn what is usual.
    pub learn: Duration,
}

impl Default for CrashSettings {
    fn default() -> CrashSettings {
        CrashSettings {
            watched: Watched::default(),
            directory: PathBuf::from(DEFAULT_CRASHES),
            reports: 20,
            limit: 64 << 20,
            quarantine: None,
            settle: Duration::from_secs(60),
            learn: Duration::from_secs(10),
        }
    }
}

/// Which process is the PBX. Where several are said the first one that there is counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Unit of systemd, such as `asterisk.service`.
    pub unit: Option<String>,
    /// File with the number of its process.
    pub pid_file: Option<PathBuf>,
    /// Number of its process.
    pub pid: Option<i32>,
    /// Name or path of its executable.
    pub exe: Option<String>,
    /// Directory where its cores appear. Without any of the others each new core there is a crash.
    pub cores: Option<PathBuf>,
}

impl Watched {
    /// Whether anything is to be watched.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Watched::default()
    }
}

/// What is done with cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreSettings {
    /// Where cores appear. Nothing is done without it.
    pub directory: Option<PathBuf>,
    /// Names of cores; `*` stands for anything.
    pub patterns: Vec<String>,
    /// How many of the newest are kept at the most, beside the first.
    pub keep: usize,
    /// Bytes that the cores may occupy there.
    pub limit: u64,
    /// Bytes that are to stay free on the file system of the directory. A dump that is under way can write some hundred megabytes before it
    /// is seen, so this is better larger than a core.
    pub free: u64,
    /// Where finished cores are moved to; the limit holds there, too.
    pub move_to: Option<PathBuf>,
}

impl Default for CoreSettings {
    fn default() -> CoreSettings {
        CoreSettings {
            directory: None,
            patterns: DEFAULT_PATTERNS.map(str::to_owned).to_vec(),
            keep: 3,
            limit: 4 << 30,
            free: 2 << 30,
            move_to: None,
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
