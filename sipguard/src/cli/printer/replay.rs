//! `replay`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Format, plural, rows};
use crate::error::{Failure, FailureKind};
use crate::ops::replay::ReplayReport;
use crate::view::schema;

/// Prints reports; fails when a capture is damaged, or a packet would be stopped.
pub fn replay(format: Format, reports: &[(PathBuf, ReplayReport)]) -> Result<()> {
    let values = reports.iter().map(|(_, report)| report.view()).collect();
    rows(format, schema::REPLAY, values, || {
        // Of a file in which nothing could be read there is only the error.
        let told = reports.iter().filter(|(_, report)| report.packets > 0 || report.damage.is_none());
        told.map(|(_, report)| report.text()).collect::<Vec<_>>().join("\n")
    })?;
    let found: Vec<String> = reports.iter().flat_map(|(file, report)| sentences(file, report)).collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::with(FailureKind::Failed, found.join("\nsipguard: ")))
}

/// Why the exit status is 1.
fn sentences(file: &Path, report: &ReplayReport) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(damage) = &report.damage {
        let judged = if report.packets == 0 { "" } else { "; the report is of the packets before" };
        all.push(format!("{damage}{judged}"));
    }
    if report.stopped() > 0 {
        let stopped = plural(usize::try_from(report.stopped()).unwrap_or(usize::MAX), "packet");
        all.push(format!("{}: {stopped} would be stopped", file.display()));
    }
    all
}
