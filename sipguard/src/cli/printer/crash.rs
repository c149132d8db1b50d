//! `crash`.

use anyhow::Result;
use serde::Serialize;
use sipguard_observe::ops::crash::{CrashReport, SCHEMA, Shown};

use super::{Format, object, print, rows};
use crate::table::table;

/// A report, and the first of its suspects.
#[derive(Serialize)]
struct CrashRow<'a> {
    name: &'a str,
    crashed_at: &'a str,
    how: &'a str,
    /// Whether the first suspect stands out.
    clear: bool,
    suspect: Option<&'a str>,
    identity: Option<&'a str>,
    /// What speaks against the suspect, in bits.
    score: Option<f64>,
    /// What was blocked.
    quarantine: Option<&'a str>,
}

/// Whether the last packets of each device are kept.
#[derive(Serialize)]
struct RecordDocument {
    records: bool,
}

pub fn list(format: Format, reports: &[CrashReport]) -> Result<()> {
    rows(format, "sipguard.crashes/2", reports.iter().map(row).collect(), || {
        let head = ["NAME", "HOW", "LIKELY CAUSE", "IDENTITY", "BITS", "CLEAR", "BLOCKED"];
        table(&head, reports.iter().map(line))
    })
}

fn row(report: &CrashReport) -> CrashRow<'_> {
    let first = report.suspects.first();
    CrashRow {
        name: &report.name,
        crashed_at: &report.crashed_at,
        how: &report.how,
        clear: report.clear,
        suspect: first.map(|one| one.target.as_str()),
        identity: first.and_then(|one| one.assessment.identity.as_deref()),
        score: first.map(|one| one.assessment.score),
        quarantine: report.quarantine.target.as_deref(),
    }
}

fn line(report: &CrashReport) -> Vec<String> {
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
}

pub fn show(format: Format, shown: &Shown) -> Result<()> {
    let Shown { report, packets } = shown;
    if format == Format::Table {
        let text = report.text();
        // The answer is the last line.
        let (before, answer) = text.trim_end().rsplit_once('\n').unwrap_or_default();
        return print(&format!("{}\npackets: {}\n{answer}\n", before.trim_end(), packets.display()));
    }
    object(format, SCHEMA, report, String::new)
}

pub fn record(format: Format, on: bool) -> Result<()> {
    let kept = if on { "are" } else { "are not" };
    object(format, "sipguard.crash-record/1", &RecordDocument { records: on }, || {
        format!("the last packets of each device {kept} kept\n")
    })
}
