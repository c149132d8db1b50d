//! `crash`: reports of crashes of the PBX.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use sipguard_core::clock::Clock;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::notice::Notice;
use sipguard_core::ops::{Context, trail};
use sipguard_core::service::CrashSettings;
use sipguard_core::store::Counts;

use crate::crash::{Crash, Recorder, RecorderNotice, Reports};
pub use crate::crash::{CrashReport, ReportCache, SCHEMA};
use crate::tap::set_records;
pub use sipguard_core::service::DEFAULT_CRASHES as DEFAULT_DIRECTORY;

/// The reports of a directory, the oldest first.
#[must_use]
pub fn list(directory: &Path) -> Vec<CrashReport> {
    reports(directory).all()
}

/// The same; what was read before and has not changed is not read again.
pub fn list_cached(directory: &Path, cache: &mut ReportCache) -> Vec<CrashReport> {
    cache.all(&reports(directory))
}

/// A report, with the file of its packets.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The report.
    pub report: CrashReport,
    /// The file of its packets, as pcapng.
    pub packets: PathBuf,
}

/// A report by its name; `None` is the last one.
///
/// # Errors
/// When there is none, or it can't be read.
pub fn show(directory: &Path, name: Option<&str>) -> Result<Shown> {
    let reports = reports(directory);
    let name = name.map(str::to_owned).or_else(|| reports.names().pop());
    let Some(name) = name else {
        let text = format!("there is no report of a crash in {}", directory.display());
        return Err(Failure::with(FailureKind::Failed, text));
    };
    Ok(shown(reports.read(&name)?, &reports))
}

/// Whether the last packets of each device are kept, of which a report is made.
///
/// # Errors
/// When no guard is attached, or the map can't be written.
pub fn record(host: &Context, on: bool) -> Result<Option<Notice>> {
    if !set_records(&host.pins, on)? {
        return Ok(None);
    }
    let counts = Counts { moved: 1, ..Counts::default() };
    let (word, what) = if on { ("on", "off -> on") } else { ("off", "on -> off") };
    let what = [what.to_owned()];
    let entry = trail::Entry { verb: "crash record", what: &what, reason: "", counts };
    Ok(trail::write(host, &format!("recording is {word}"), &entry))
}

/// A crash that somebody reports by hand.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory of the reports.
    pub directory: PathBuf,
    /// How long ago the PBX died.
    pub ago: Duration,
    /// For how long the likely cause is blocked, when it is clear which device it was.
    pub quarantine: Option<Duration>,
}

/// Reports it.
///
/// # Errors
/// When no guard is attached, its maps can't be read, or the report can't be written.
pub fn report(host: &Context, request: &Request) -> Result<Shown> {
    host.pins.attached_or_fail()?;
    let directory = &request.directory;
    let settings = CrashSettings {
        directory: directory.clone(),
        quarantine: request.quarantine,
        ..CrashSettings::default()
    };
    let mut recorder = Recorder::new(settings, &host.pins, &host.store)?;
    let at_ns = Clock::now()?.boot_ns.saturating_sub(request.ago.as_nanos() as u64);
    let crash = Crash { pid: None, at_ns, how: "reported by hand".to_owned(), core: None };
    match recorder.report(&crash)? {
        RecorderNotice::Reported(report, _) => Ok(shown(*report, &reports(directory))),
        RecorderNotice::Unwritten(_, why) => Err(Failure::with(FailureKind::Failed, why)),
        RecorderNotice::Seen(event) => anyhow::bail!("the recorder saw {event:?} instead of the crash"),
    }
}

fn shown(report: CrashReport, reports: &Reports) -> Shown {
    let packets = reports.path(&report.name, "pcapng");
    Shown { report, packets }
}

fn reports(directory: &Path) -> Reports {
    let settings = CrashSettings { directory: directory.to_owned(), ..CrashSettings::default() };
    Reports::of(&settings.directory, settings.reports, settings.limit)
}
