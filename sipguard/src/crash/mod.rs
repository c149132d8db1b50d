//! Which device crashed the PBX: the PBX is watched, and at its death the last packets of each device are looked at.
//!
//! Reading order: `watch.rs` (with `process.rs` and `dumps.rs`) notices a death; `recorder.rs` then takes the last packets out of the kernel's
//! map `RECORDED`; `oddness.rs` (with `message.rs` and `baseline.rs`, all pure) ranks the devices; `report.rs` says it, `reports.rs` writes it, and
//! `quarantine.rs` blocks the first where that is wanted.

mod baseline;
mod dumps;
mod message;
mod oddness;
mod process;
mod quarantine;
mod recorder;
mod report;
mod reports;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

pub use baseline::Baseline;
pub use oddness::{Assessment, Suspect, SuspectDevice, rank};
pub use quarantine::{CLEARLY, Choice, choose};
pub use recorder::{Recorder, RecorderNotice};
pub use report::{CrashReport, SCHEMA};
pub use reports::Reports;
pub use watch::{Crash, PbxEvent, PbxWatch, Watched};

/// Where reports are kept when nothing else is said.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/sipguard/crashes";

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
            directory: PathBuf::from(DEFAULT_DIRECTORY),
            reports: 20,
            limit: 64 << 20,
            quarantine: None,
            settle: Duration::from_secs(60),
            learn: Duration::from_secs(10),
        }
    }
}
