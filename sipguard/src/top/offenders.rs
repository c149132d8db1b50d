//! Who, first: the rows of offenders, one an address, with its ports below where it is opened; and the message of the row that is chosen. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use sipguard_core::by_address::{AddressRow, Standing};
use sipguard_core::container;
use sipguard_core::offenders::OffenderRow;
use sipguard_core::target::{Device, Target};
use sipguard_observe::fault::Fault;

use super::model::Model;
use super::rows::{RowSubject, Tone, TopCell, TopRow};
use super::theme::span;

/// A message that is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What is said above it.
    pub title: String,
    /// Its lines.
    pub lines: Vec<String>,
    /// The line at fault among them.
    pub at_fault: Option<usize>,
}

/// The row of an address.
#[must_use]
pub fn address(model: &Model, row: &AddressRow, now: Timestamp) -> TopRow {
    let latest = row.ports.first();
    let reason = row.reasons.first().map_or("", |reason| reason.reason.name());
    let more = if row.reasons.len() > 1 { format!(" +{}", row.reasons.len() - 1) } else { String::new() };
    let about = row.reasons.iter().find(|reason| reason.reason.is_malformed());
    let fault = about.map(Fault::of);
    let ports = row.ports_seen();
    TopRow {
        id: row.address.to_string(),
        cells: vec![
            TopCell::text(mark_of(row)),
            TopCell::text(row.address.to_string()),
            TopCell::text(format!("{reason}{more}")),
            TopCell::count(row.packets),
            rate_of(model, row.per_sec()),
            TopCell::count(ports as u64),
            good(row),
            last(row.last_seen, now),
            TopCell::text(who(fault.as_ref())),
        ],
        subject: Some(RowSubject::Address {
            device: SocketAddr::new(row.address, latest.map_or(0, |port| port.port)),
            is_whole: matches!(row.block(), Some(Target::Source(_))),
            ports,
            reason,
        }),
        detail: detail(row, fault.as_ref()),
    }
}

/// The row of a port of an address that is opened.
#[must_use]
pub fn port(model: &Model, row: &OffenderRow, now: Timestamp) -> TopRow {
    let device = SocketAddr::new(row.address, row.port);
    let fault = Fault::of(row);
    TopRow {
        id: format!("{device} {}", row.reason.name()),
        cells: vec![
            TopCell::text(mark(model, device)),
            TopCell::text(format!("  :{}", row.port)),
            TopCell::text(row.reason.name()),
            TopCell::count(row.packets),
            rate_of(model, row.lately as f64 / 10.0),
            TopCell::default(),
            TopCell::default(),
            last(row.last_seen, now),
            TopCell::text(who(Some(&fault))),
        ],
        subject: Some(RowSubject::Sender(device, row.reason.name())),
        detail: format!("{device}\n{}\n{}", fault.text(), said(Some(&fault))),
    }
}

/// The first malformed message of a row of this pane, with the line at fault.
#[must_use]
pub fn message(rows: &[AddressRow], id: &str) -> Message {
    let of_port = |row: &&OffenderRow| {
        id == format!("{} {}", SocketAddr::new(row.address, row.port), row.reason.name())
    };
    let found = rows.iter().find_map(|row| {
        if row.address.to_string() == id {
            return row.reasons.iter().find(|reason| reason.reason.is_malformed());
        }
        row.ports.iter().find(of_port)
    });
    let Some(row) = found else { return Message::default() };
    let fault = Fault::of(row);
    let title = match fault.offset {
        Some(offset) => format!("{}, byte {offset}", row.reason.name()),
        None => row.reason.name().to_owned(),
    };
    let (lines, at_fault) = fault.lines();
    Message { title, lines, at_fault }
}

/// Packets a second; in monitor mode nothing is stopped, whoever sends it.
fn rate_of(model: &Model, per_sec: f64) -> TopCell {
    let monitors = model.reading.as_ref().is_some_and(|reading| reading.mode == "monitor");
    let stops = if monitors { Tone::Would } else { Tone::Stopped };
    TopCell::rate(per_sec).toned(if per_sec > 0.0 { stops } else { Tone::Plain })
}

fn good(row: &AddressRow) -> TopCell {
    let Some(share) = row.good_share() else { return TopCell::text("-").numbered(-1.0) };
    TopCell::text(format!("{:.0}%", share * 100.0)).numbered(share)
}

fn last(seen: Option<Timestamp>, now: Timestamp) -> TopCell {
    let ago = seen.map(|seen| Duration::from_secs(now.duration_since(seen).as_secs().max(0).cast_unsigned()));
    ago.map_or_else(TopCell::default, |ago| TopCell::text(span(ago)).numbered(ago.as_secs_f64()))
}

/// Who it says it is.
fn who(fault: Option<&Fault>) -> String {
    let said = fault.and_then(|fault| fault.user_agent.clone().or_else(|| fault.from.clone()));
    said.unwrap_or_default()
}

/// From and User-Agent.
fn said(fault: Option<&Fault>) -> String {
    let Some(Fault { from, user_agent, .. }) = fault else { return String::new() };
    let said = [("From: ", from), ("User-Agent: ", user_agent)].into_iter();
    let said = said.filter_map(|(name, value)| Some(format!("{name}{}", value.as_ref()?)));
    said.collect::<Vec<_>>().join("   ")
}

/// The command that would block it, or what it is; the line at fault; who it says it is, which a narrow screen has no column for.
fn detail(row: &AddressRow, fault: Option<&Fault>) -> String {
    let said = said(fault);
    let fault = fault.map(Fault::text).unwrap_or_default();
    let option = container::option();
    let end = match (row.block(), row.caution()) {
        (Some(target), caution) if caution.is_empty() => format!("sipguard block{option} {target}"),
        // A shell takes the rest for a comment.
        (Some(target), caution) => format!("sipguard block{option} {target}  # {caution}"),
        (None, _) => row.why_not(),
    };
    format!("{end}\n{fault}\n{said}").trim_end().to_owned()
}

/// What an address is: `B` blocked, `b` banned, `A` allowed, `T` of a trunk, `!` one's own.
fn mark_of(row: &AddressRow) -> &'static str {
    match row.standing {
        Standing::Unknown | Standing::Watched => "",
        Standing::Own(_) => "!",
        Standing::Allowed => "A",
        Standing::Trunk(_) => "T",
        Standing::Blocked => "B",
        Standing::Banned => "b",
    }
}

/// What is known of a rule of exactly this device: `B` blocked, `b` banned.
fn mark(model: &Model, device: SocketAddr) -> &'static str {
    let about = Target::from(Device::from(device));
    let rule = model.rules.rows.iter().find(|rule| rule.target == about);
    match rule.map(|rule| rule.rule) {
        Some("ban") => "b",
        Some("block") => "B",
        _ => "",
    }
}

/// The address of a row of this pane.
#[must_use]
pub fn address_of(subject: &RowSubject) -> Option<IpAddr> {
    match subject {
        RowSubject::Address { device, .. } | RowSubject::Sender(device, _) => Some(device.ip()),
        RowSubject::Rule(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::fixture::fixed;

    fn model() -> Model {
        let mut model = Model::default();
        model.take(fixed(10));
        model
    }

    #[test]
    fn a_row_says_who_it_is_what_is_wrong_and_how_to_block_it() {
        let model = model();
        let reading = model.reading.as_ref().unwrap();
        let row = address(&model, &reading.sources[0], reading.time);
        assert_eq!(row.cells.last().unwrap().shown(), "Yealink SIP-T46S 66.86.0.15");
        let lines: Vec<&str> = row.detail.lines().collect();
        assert_eq!(lines[0], "sipguard block 203.0.113.7");
        assert!(lines[1].starts_with("at byte 2") && lines[1].ends_with(": Content-Length: -1"), "{lines:?}");
        assert!(
            lines[2].starts_with("From: <sip:201@") && lines[2].ends_with("SIP-T46S 66.86.0.15"),
            "{lines:?}"
        );
        assert!(matches!(row.subject, Some(RowSubject::Address { is_whole: true, .. })), "{row:?}");
        for (standing, mark, end) in [
            (Standing::Trunk("carrier".to_owned()), "T", "a peer of trunk carrier\nat byte"),
            (Standing::Own("a gateway"), "!", "a gateway\nat byte"),
        ] {
            let row = AddressRow { standing, ..reading.sources[0].clone() };
            let row = address(&model, &row, reading.time);
            assert_eq!(row.cells[0].shown(), mark);
            assert!(row.detail.starts_with(end), "{}", row.detail);
        }
        let watched = Some(Duration::from_secs(40));
        let young = AddressRow { watched, ..reading.sources[0].clone() };
        let row = address(&model, &young, reading.time);
        assert!(
            row.detail.starts_with("sipguard block 203.0.113.7  # watched for 40s only: others"),
            "{}",
            row.detail
        );
        // Somebody good is behind the address too: the block is of the port.
        let good = AddressRow { good: Some(7), ..reading.sources[0].clone() };
        let row = address(&model, &good, reading.time);
        assert!(matches!(row.subject, Some(RowSubject::Address { is_whole: false, .. })), "{row:?}");
    }

    #[test]
    fn the_message_of_a_row_has_its_line_at_fault() {
        let model = model();
        let rows = &model.reading.as_ref().unwrap().sources;
        for id in ["203.0.113.7", "203.0.113.7:4001 bad-content-length"] {
            let found = message(rows, id);
            let line = found.at_fault.and_then(|at| found.lines.get(at)).unwrap();
            assert_eq!(line, "Content-Length: -1", "{id}");
            assert!(found.title.starts_with("bad-content-length, byte "), "{}", found.title);
            assert!(found.lines[0].starts_with("REGISTER sip:pbx.example"), "{found:?}");
        }
        assert_eq!(message(rows, "nobody"), Message::default());
    }
}
