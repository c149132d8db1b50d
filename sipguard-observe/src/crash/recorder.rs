//! The flight recorder: watches, learns, and reports.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use sipguard_core::clock::Clock;
use sipguard_core::notice;
use sipguard_core::ops::Context;
use sipguard_core::pins::Pins;
use sipguard_core::service::CrashSettings;

use super::baseline::Baseline;
use super::oddness::{Suspect, SuspectDevice, devices, rank};
use super::quarantine::{apply, choose, is_clear};
use super::report::{CrashReport, QuarantineReport};
use super::reports::Reports;
use super::watch::{Crash, PbxEvent, PbxWatch};
use crate::evidence::PcapWriter;
use crate::redact::RedactedPacket;
use crate::tap::{Names, TapPacket, is_recording, recorded, set_records};

/// Watches the PBX, learns what its devices usually send, and reports a crash.
#[derive(Debug)]
pub struct Recorder {
    settings: CrashSettings,
    pins: Pins,
    store: PathBuf,
    watch: PbxWatch,
    baseline: Baseline,
    learned: Option<Instant>,
    /// When the last crash was; what came before it can't be the cause of the next one, and speaks for nobody.
    last_ns: u64,
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum RecorderNotice {
    /// What the watch saw, other than a crash.
    Seen(PbxEvent),
    /// A crash, and where its report is for people to read.
    Reported(Box<CrashReport>, PathBuf),
    /// A crash whose report could not be written.
    Unwritten(Box<CrashReport>, String),
}

impl Recorder {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the directory of the cores can't be watched.
    pub fn new(settings: CrashSettings, pins: &Pins, store: &Path) -> Result<Recorder> {
        let watch = PbxWatch::new(settings.watched.clone())?;
        let store = store.to_owned();
        Ok(Recorder {
            settings,
            pins: pins.clone(),
            store,
            watch,
            baseline: Baseline::default(),
            learned: None,
            last_ns: 0,
        })
    }

    /// What happened since the last time; to be called some ten times a second. A report is made before it returns.
    pub fn poll(&mut self) -> Result<Vec<RecorderNotice>> {
        let mut notices = Vec::new();
        for event in self.watch.poll()? {
            notices.push(match event {
                PbxEvent::Crashed(crash) => self.report(&crash).unwrap_or_else(|error| {
                    notice::send(format!("a crash of the PBX has no report: {error:#}"));
                    RecorderNotice::Seen(PbxEvent::Crashed(crash))
                }),
                PbxEvent::Runs { .. } | PbxEvent::Ended { .. } => RecorderNotice::Seen(event),
            });
        }
        if self.learned.is_none_or(|learned| learned.elapsed() >= self.settings.learn) {
            self.learned = Some(Instant::now());
            let learned = self.learn();
            if notices.is_empty() {
                learned?;
            }
        }
        Ok(notices)
    }

    /// Reports a crash that happened now, or at a moment of one's own.
    pub fn report(&mut self, crash: &Crash) -> Result<RecorderNotice> {
        let (mut packets, clock) = self.packets()?;
        // Who shares an address does so all the time, also before an earlier crash.
        let around = devices(&packets, crash.at_ns);
        packets.retain(|packet| packet.time_ns > self.last_ns);
        self.last_ns = crash.at_ns;
        let reports = Reports::of(&self.settings.directory, self.settings.reports, self.settings.limit);
        let earlier: Vec<_> = reports.all().iter().map(CrashReport::earlier).collect();
        let suspects = rank(&packets, crash.at_ns, &self.baseline, &earlier);
        self.baseline.discard(crash.at_ns);
        let mut report =
            CrashReport::new(crash, &clock, &suspects, &packets, earlier.len(), is_clear(&suspects));
        report.recording = is_recording(&self.pins).ok();
        report.quarantine = self.quarantine(&suspects, &around, &report.name);
        let capture = capture(&packets, crash.at_ns, &suspects);
        let written = capture.and_then(|capture| reports.write(&report, &capture));
        Ok(match written {
            Ok(path) => RecorderNotice::Reported(Box::new(report), path),
            Err(error) => {
                notice::send(format!(
                    "the report of a crash can't be written: {error:#}; it follows\n{}",
                    report.text()
                ));
                RecorderNotice::Unwritten(Box::new(report), format!("{error:#}"))
            }
        })
    }

    fn quarantine(&self, suspects: &[Suspect], around: &[SuspectDevice], name: &str) -> QuarantineReport {
        let Some(span) = self.settings.quarantine else {
            return QuarantineReport { target: None, why: "for it is switched off".to_owned() };
        };
        let choice = choose(suspects, around);
        let host = Context::of(&self.pins, &self.store);
        let address = suspects.first().map(|first| first.device.address);
        apply(&choice, address, name, span, &host).unwrap_or_else(|error| QuarantineReport {
            target: None,
            why: format!("for blocking failed: {error:#}"),
        })
    }

    /// Learns what is usual. A guard that was attached meanwhile is told to record.
    fn learn(&mut self) -> Result<()> {
        if !self.pins.exist() {
            return Ok(());
        }
        set_records(&self.pins, true)?;
        let (packets, clock) = self.packets()?;
        self.baseline.take(&packets);
        self.baseline.settle(clock.boot_ns.saturating_sub(self.settings.settle.as_nanos() as u64));
        Ok(())
    }

    fn packets(&self) -> Result<(Vec<TapPacket>, Clock)> {
        let records = recorded(&self.pins)?;
        let clock = Clock::now()?;
        let names = Names::read(&self.pins, &self.store)?;
        Ok((records.iter().filter_map(|record| TapPacket::read(record, &names, &clock)).collect(), clock))
    }
}

/// The packets before the death, with what speaks against who sent them.
fn capture(packets: &[TapPacket], death_ns: u64, suspects: &[Suspect]) -> Result<Vec<u8>> {
    let mut comments = vec![None; packets.len()];
    for (at, suspect) in suspects.iter().enumerate().take(10) {
        for position in &suspect.packets {
            comments[*position] = Some(format!("suspect {}: {:.1} bits", at + 1, suspect.assessment.score));
        }
    }
    let mut bytes = Vec::new();
    let mut writer = PcapWriter::new(&mut bytes)?;
    for (packet, comment) in packets.iter().zip(comments) {
        if packet.time_ns > death_ns {
            continue;
        }
        let before = (death_ns - packet.time_ns) as f64 / 1e6;
        let comment = comment.map_or(String::new(), |comment| format!("{comment}; "));
        writer.write(&RedactedPacket::new(packet), &format!("{comment}{before:.1} ms before the death"))?;
    }
    drop(writer);
    Ok(bytes)
}
