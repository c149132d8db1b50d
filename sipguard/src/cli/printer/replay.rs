//! `replay`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::view::schema;
use sipguard_replay::ReplayReport;
use sipguard_replay::view::ReplayView;

use super::{Format, plural, rows};
use crate::table::table;

/// Sources that a table shows.
const SHOWN: usize = 50;

/// Prints reports; fails when a capture can't be judged to its end, or else when a packet would be stopped.
pub fn replay(format: Format, reports: &[(PathBuf, ReplayReport)]) -> Result<()> {
    let values = reports.iter().map(|(_, report)| report.view()).collect();
    rows(format, schema::REPLAY, values, || {
        // Of a file of which nothing could be judged there is only the error.
        let told = reports.iter().filter(|(_, report)| report.is_judged() || report.damage.is_none());
        told.map(|(_, report)| text(&report.view())).collect::<Vec<_>>().join("\n")
    })?;
    let found: Vec<String> = reports.iter().flat_map(|(file, report)| sentences(file, report)).collect();
    if found.is_empty() {
        return Ok(());
    }
    // What could not be judged may have more of it.
    let failed = reports.iter().any(|(_, report)| report.damage.is_some());
    let kind = if failed { FailureKind::Failed } else { FailureKind::WouldStop };
    Err(Failure::with(kind, found.join("\nsipguard: ")))
}

/// Why the exit status is not 0.
fn sentences(file: &Path, report: &ReplayReport) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(damage) = &report.damage {
        let judged = if report.is_judged() { "; the report is of the packets before" } else { "" };
        all.push(format!("{damage}{judged}"));
    }
    if report.stopped() > 0 {
        let stopped = plural(usize::try_from(report.stopped()).unwrap_or(usize::MAX), "packet");
        all.push(format!("{}: {stopped} would be stopped", file.display()));
    }
    all
}

/// A report for people.
fn text(view: &ReplayView) -> String {
    let mut text = format!(
        "{}: {}, {} came in and were judged, {} would be stopped\n\n",
        view.file.display(),
        packets(view.packets),
        view.judged,
        view.stopped
    );
    let lines = view.reasons.iter().map(|one| {
        vec![one.reason.to_owned(), one.action.to_owned(), one.packets.to_string(), one.text.to_owned()]
    });
    text += &table(&["REASON", "ACTION", "PACKETS", "MEANING"], lines);
    if !view.sources.is_empty() {
        let lines = view.sources.iter().take(SHOWN).map(|one| {
            vec![
                one.src_ip.clone(),
                one.src_port.to_string(),
                one.reason.to_owned(),
                one.action.to_owned(),
                one.packets.to_string(),
                one.first_packet.to_string(),
                one.sample.clone(),
            ]
        });
        let head = ["ADDRESS", "PORT", "REASON", "ACTION", "PACKETS", "FIRST PACKET", "FIRST BYTES"];
        text += &format!("\n{}", table(&head, lines));
    }
    if view.sources.len() > SHOWN {
        text += &format!("{} more sources, ports and reasons: `-j` has them\n", view.sources.len() - SHOWN);
    }
    if let Some(explained) = &view.explained {
        let lines = explained.iter().map(|one| {
            let offset = one.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
            let (packet, port) = (one.packet.to_string(), one.src_port.to_string());
            vec![packet, one.src_ip.clone(), port, one.reason.to_owned(), offset, one.line.clone()]
        });
        let head = ["PACKET", "ADDRESS", "PORT", "REASON", "BYTE", "LINE AT FAULT"];
        text += &format!("\n{}", table(&head, lines));
    }
    if !view.trunks.is_empty() {
        let lines = view.trunks.iter().map(|one| {
            vec![one.trunk.clone(), one.reason.to_owned(), one.action.to_owned(), one.packets.to_string()]
        });
        text += &format!("\n{}", table(&["TRUNK", "REASON", "ACTION", "PACKETS"], lines));
    }
    text += "\n";
    if view.sent_by_pbx > 0 {
        text += &format!("Not judged: {} that the PBX sent itself.\n", packets(view.sent_by_pbx));
    }
    view.notes.iter().for_each(|note| text += &format!("{}.\n", capital(note)));
    text
}

fn packets(count: u64) -> String {
    if count == 1 { "1 packet".to_owned() } else { format!("{count} packets") }
}

/// A sentence's beginning.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
