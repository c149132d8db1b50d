//! `replay`.

use std::path::Path;

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::view::schema;
use sipguard_replay::ReplayReport;
use sipguard_replay::view::{AnswerView, ReplayView};

use super::{Format, plural, rows};
use crate::table::table;

/// The verdict of a capture in which nothing could be judged.
const NOTHING_JUDGED: &str = "nothing-judged";

/// Sources that a table shows.
const SHOWN: usize = 50;

/// Prints reports; fails when a capture can't be judged to its end, or nothing of it, or else when a packet would be stopped.
pub fn replay(format: Format, reports: &[ReplayReport]) -> Result<()> {
    let views: Vec<ReplayView> = reports.iter().map(ReplayReport::view).collect();
    let found: Vec<String> = views.iter().flat_map(|view| sentences(view, is_told(view))).collect();
    // What could not be judged may have more of it.
    let failed = views.iter().any(|view| view.damage.is_some() || view.answer.verdict == NOTHING_JUDGED);
    rows(format, schema::REPLAY, views.clone(), || {
        let told = views.iter().filter(|view| is_told(view));
        told.map(text).collect::<Vec<_>>().join("\n")
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let kind = if failed { FailureKind::Failed } else { FailureKind::WouldStop };
    Err(Failure::with(kind, found.join("\nsipguard: ")))
}

/// Of a file that can't be read, or of which nothing could be judged, there is only the error.
fn is_told(view: &ReplayView) -> bool {
    view.damage.is_none() || view.packets > view.other_links
}

/// Why the exit status is not 0.
fn sentences(view: &ReplayView, is_told: bool) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(damage) = &view.damage {
        let judged = if is_told { "; the report is of the packets before" } else { "" };
        all.push(format!("{damage}{judged}"));
    } else if view.answer.verdict == NOTHING_JUDGED {
        all.push(format!("{}: {}", name(&view.file), view.answer.text));
    }
    if view.stopped > 0 {
        let stopped = plural(usize::try_from(view.stopped).unwrap_or(usize::MAX), "packet");
        all.push(format!("{}: {stopped} would be stopped", name(&view.file)));
    }
    all
}

/// A file as it is called.
fn name(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".to_owned() } else { file.display().to_string() }
}

/// The answer: what would be stopped of whom, with the line at fault, and why.
fn answer(file: &Path, answer: &AnswerView) -> String {
    let mut text = format!("{}: {}\n\n", name(file), answer.text);
    let lines = answer.faults.iter().map(|fault| {
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        vec![
            fault
                .trunk
                .as_ref()
                .map_or_else(|| fault.src_ip.clone(), |trunk| format!("{} ({trunk})", fault.src_ip)),
            fault.reason.to_owned(),
            fault.packets.to_string(),
            fault.well_formed.to_string(),
            fault.packet.unwrap_or(fault.first_packet).to_string(),
            number(fault.offset),
            fault.text.clone().unwrap_or_default(),
        ]
    });
    if !answer.faults.is_empty() {
        let head = ["ADDRESS", "REASON", "STOPPED", "WELL-FORMED", "PACKET", "BYTE", "LINE AT FAULT"];
        text += &table(&head, lines);
        let mut reasons: Vec<&str> = answer.faults.iter().map(|fault| fault.reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons.iter().filter_map(|name| Reason::ALL.iter().find(|one| one.name() == *name)) {
            text += &format!("  {}: {}", reason.name(), reason.text());
            for (what, value) in [("", reason.spec()), ("sent without harm by ", reason.harmless_senders())] {
                if !value.is_empty() {
                    text += &format!(" [{what}{value}]");
                }
            }
            text += "\n";
        }
        text += "\n";
    }
    text
}

/// A report for people.
fn text(view: &ReplayView) -> String {
    let mut text = answer(&view.file, &view.answer);
    text +=
        &format!("{}, {} came in, {} would be stopped\n\n", packets(view.packets), view.judged, view.stopped);
    let lines = view.reasons.iter().map(|one| {
        vec![one.reason.to_owned(), one.action.to_owned(), one.packets.to_string(), one.text.to_owned()]
    });
    text += &table(&["REASON", "ACTION", "PACKETS", "MEANING"], lines);
    if !view.sources.is_empty() {
        let lines = view.sources.iter().take(SHOWN).map(|one| {
            vec![
                one.source.src_ip.clone(),
                one.source.src_port.to_string(),
                one.source.reason.clone(),
                one.action.to_owned(),
                one.source.packets.to_string(),
                one.first_packet.to_string(),
                one.source.sample.clone(),
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
            vec![packet, one.src_ip.clone(), port, one.reason.to_owned(), offset, one.text.clone()]
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
    if !view.answer.blocks.is_empty() {
        text += "\nThis would block who sent nothing well-formed, whatever they send next:\n";
        view.answer.blocks.iter().for_each(|command| text += &format!("    {command}\n"));
    }
    if !view.answer.commands.is_empty() {
        let all = if view.answer.blocks.is_empty() {
            "This would"
        } else {
            "Only where it should pass, this would"
        };
        text += &format!("\n{all} let it pass, and the last line shows what is left:\n");
        view.answer.commands.iter().for_each(|command| text += &format!("    {command}\n"));
    }
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
