//! `sipguard crash`: reports of crashes of the PBX.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Span, parse_duration, trail};
use crate::clock::Clock;
use crate::crash::{
    Crash, CrashReport, CrashSettings, DEFAULT_DIRECTORY, Recorder, RecorderNotice, Reports, SCHEMA,
};
use crate::error::{Failure, Status};
use crate::output::{Format, object, print, rows, table};
use crate::pins::Pins;
use crate::store::Counts;
use crate::tap::set_records;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the reports
    #[arg(long, global = true, value_name = "DIR", env = "SIPGUARD_CRASHES", default_value = DEFAULT_DIRECTORY, hide_env_values = true)]
    directory: PathBuf,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the reports
    #[command(visible_alias = "ls")]
    List,
    /// Show a report
    Show {
        /// Its name, as `list` has it [default: the last one]
        name: Option<String>,
    },
    /// Keep the last packets of each device, which a report is made of; `off` ends it
    Record {
        /// Whether they are kept
        #[arg(value_parser = ["on", "off"])]
        switch: String,
    },
    /// Report a crash by hand: the PBX died just now
    Report {
        /// How long ago it died
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ago: Option<Span>,
        /// Block the likely cause for this time, when it is clear which device it was
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        quarantine: Option<Span>,
    },
}

pub fn run(pins: &Pins, store: &Path, format: Format, args: &Args) -> Result<()> {
    let settings = CrashSettings { directory: args.directory.clone(), ..CrashSettings::default() };
    let reports = Reports::of(&settings.directory, settings.reports, settings.limit);
    match &args.verb {
        Verb::List => list(format, &reports),
        Verb::Show { name } => {
            let name = name.clone().or_else(|| reports.names().pop());
            let Some(name) = name else {
                let text = format!("there is no report of a crash in {}", args.directory.display());
                return Err(Failure::with(Status::Failed, text));
            };
            show(format, &reports.read(&name)?, &reports)
        }
        Verb::Record { switch } => {
            if set_records(pins, switch == "on")? {
                let counts = Counts { moved: 1, ..Counts::default() };
                let what = if switch == "on" { "off -> on" } else { "on -> off" }.to_owned();
                trail::tell(store, &format!("recording is {switch}"), "crash record", &[what], "", counts);
            }
            let kept = if switch == "on" { "are" } else { "are not" };
            object(format, "sipguard.crash-record/1", json!({ "records": switch == "on" }), || {
                format!("the last packets of each device {kept} kept\n")
            })
        }
        Verb::Report { ago, quarantine } => {
            pins.attached_or_fail()?;
            let quarantine = quarantine.and_then(|span| span.0);
            let mut recorder = Recorder::new(CrashSettings { quarantine, ..settings }, pins, store)?;
            let ago = ago.and_then(|span| span.0).unwrap_or(Duration::ZERO);
            let at_ns = Clock::now()?.boot_ns.saturating_sub(ago.as_nanos() as u64);
            let crash = Crash { pid: None, at_ns, how: "reported by hand".to_owned(), core: None };
            match recorder.report(&crash)? {
                RecorderNotice::Reported(report, _) => show(format, &report, &reports),
                RecorderNotice::Unwritten(_, why) => Err(Failure::with(Status::Failed, why)),
                RecorderNotice::Seen(_) => Ok(()),
            }
        }
    }
}

fn list(format: Format, reports: &Reports) -> Result<()> {
    let all = reports.all();
    let values = all
        .iter()
        .map(|report| {
            let first = report.suspects.first();
            json!({
                "name": report.name, "crashed_at": report.crashed_at, "how": report.how, "clear": report.clear, "suspect": first.map(|one| &one.target),
                "identity": first.and_then(|one| one.assessment.identity.as_ref()), "score": first.map(|one| one.assessment.score),
                "quarantine": report.quarantine.target,
            })
        })
        .collect();
    rows(format, "sipguard.crashes/2", values, || {
        table(
            &["NAME", "HOW", "LIKELY CAUSE", "IDENTITY", "BITS", "CLEAR", "BLOCKED"],
            all.iter().map(|report| {
                let first = report.suspects.first().cloned().unwrap_or_default();
                vec![
                    report.name.clone(),
                    report.how.clone(),
                    first.target,
                    first.assessment.identity.unwrap_or_default(),
                    format!("{:.1}", first.assessment.score),
                    if report.clear { "yes" } else { "no" }.to_owned(),
                    report.quarantine.target.clone().unwrap_or_default(),
                ]
            }),
        )
    })
}

fn show(format: Format, report: &CrashReport, reports: &Reports) -> Result<()> {
    if format == Format::Table {
        let capture = reports.path(&report.name, "pcapng");
        return print(&format!("{}\npackets: {}\n", report.text().trim_end(), capture.display()));
    }
    object(format, SCHEMA, serde_json::to_value(report)?, String::new)
}
