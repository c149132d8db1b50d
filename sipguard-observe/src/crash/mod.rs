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

pub use baseline::Baseline;
pub use oddness::{Assessment, Suspect, SuspectDevice, rank};
pub use quarantine::{Choice, choose};
pub use recorder::{Recorder, RecorderNotice};
pub use report::{CrashReport, SCHEMA};
pub use reports::{ReportCache, Reports};
pub use watch::{Crash, PbxEvent, PbxWatch};
