//! The model to the rows of a pane: filtered, in order. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use sipguard_core::address::{Source, unmapped};
use sipguard_core::counters::Action;
use sipguard_core::escape::escaped;
use sipguard_core::senders::SenderRow;
use sipguard_core::target::Target;
use sipguard_observe::ops::reading::{RuleReading, TopEvent};

use super::model::{MetricKey, Model};
use super::offenders;
use super::pane::Pane;
use super::theme::{rate, span};

/// How a cell is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As text is.
    Plain,
    /// Something was stopped.
    Stopped,
    /// Something would have been.
    Would,
}

/// What is in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum CellContent {
    /// Text.
    Text(String),
    /// Packets a second over time.
    Past(Vec<f64>),
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct TopCell {
    /// What is in it.
    pub content: CellContent,
    /// By what it is sorted, where its text is not.
    number: Option<f64>,
    /// How it is to be seen.
    pub tone: Tone,
}

/// Whom an order of the operator would be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowSubject {
    /// A sender and its reason's word; port 0 where it has none.
    Sender(SocketAddr, &'static str),
    /// An address that offends.
    Address {
        /// It, with the port of which something came last; 0 where none is known.
        device: SocketAddr,
        /// Whether an order is about the whole address rather than that port, unless the operator says otherwise.
        is_whole: bool,
        /// By how many ports it came, as far as is known.
        ports: usize,
        /// Its reason's word.
        reason: &'static str,
    },
    /// A rule: its target, and its word.
    Rule(Target, &'static str),
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct TopRow {
    /// What stays the same from reading to reading.
    pub id: String,
    /// Its cells, one a column.
    pub cells: Vec<TopCell>,
    /// Whom it is about, if anybody.
    pub subject: Option<RowSubject>,
    /// What there is to say of it in a line.
    pub detail: String,
}

impl TopCell {
    pub(super) fn text(text: impl Into<String>) -> TopCell {
        TopCell { content: CellContent::Text(text.into()), number: None, tone: Tone::Plain }
    }

    pub(super) fn count(count: u64) -> TopCell {
        TopCell { number: Some(count as f64), ..TopCell::text(count.to_string()) }
    }

    pub(super) fn rate(per_sec: f64) -> TopCell {
        TopCell { number: Some(per_sec), ..TopCell::text(rate(per_sec)) }
    }

    /// Sorted by a number, not by its text.
    pub(super) fn numbered(self, number: f64) -> TopCell {
        TopCell { number: Some(number), ..self }
    }

    fn past(past: Vec<f64>) -> TopCell {
        TopCell { content: CellContent::Past(past), number: None, tone: Tone::Plain }
    }

    pub(super) fn toned(self, tone: Tone) -> TopCell {
        TopCell { tone, ..self }
    }

    /// Its text; that of a sparkline is empty.
    #[must_use]
    pub fn shown(&self) -> &str {
        match &self.content {
            CellContent::Text(text) => text,
            CellContent::Past(_) => "",
        }
    }
}

/// The rows of a pane in which, or in whose line below, `filter` stands, in upper or lower case, sorted by a column; below each address of `opened` its ports.
#[must_use]
pub fn rows(
    model: &Model,
    pane: Pane,
    filter: &str,
    (column, descending): (usize, bool),
    opened: &BTreeSet<IpAddr>,
) -> Vec<TopRow> {
    let mut rows = all(model, pane);
    let filter = filter.to_lowercase();
    if !filter.is_empty() {
        let has = |cell: &TopCell| cell.shown().to_lowercase().contains(&filter);
        rows.retain(|row| row.cells.iter().any(has) || row.detail.to_lowercase().contains(&filter));
    }
    rows.sort_by(|one, other| {
        let order = compare(&one.cells[column], &other.cells[column]);
        if descending { order.reverse() } else { order }
    });
    if pane == Pane::Sources && !opened.is_empty() { with_ports(model, rows, opened) } else { rows }
}

/// The same with the ports of the addresses that are opened.
fn with_ports(model: &Model, rows: Vec<TopRow>, opened: &BTreeSet<IpAddr>) -> Vec<TopRow> {
    let Some(reading) = &model.reading else { return rows };
    let mut all = Vec::new();
    for row in rows {
        let address = row.subject.as_ref().and_then(offenders::address_of);
        all.push(row);
        let found = address.filter(|address| opened.contains(address));
        let found = found.and_then(|address| reading.sources.iter().find(|row| row.address == address));
        let ports = found.into_iter().flat_map(|row| &row.ports);
        all.extend(ports.map(|port| offenders::port(model, port, reading.time)));
    }
    all
}

fn compare(one: &TopCell, other: &TopCell) -> Ordering {
    match (one.number, other.number) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.shown().cmp(other.shown()),
    }
}

fn all(model: &Model, pane: Pane) -> Vec<TopRow> {
    let Some(reading) = &model.reading else { return Vec::new() };
    match pane {
        Pane::Sources => {
            reading.sources.iter().map(|row| offenders::address(model, row, reading.time)).collect()
        }
        Pane::Reasons => model.reasons().into_iter().map(|row| reason(model, row)).collect(),
        Pane::Trunks => {
            let names = reading.trunks.iter();
            names.map(|one| trunk(model, &one.name, one.received, one.dropped, one.would_drop)).collect()
        }
        Pane::Events => model.events.iter().rev().map(event).collect(),
        Pane::Senders => reading.senders.iter().map(sender).collect(),
        Pane::Blocks => model.rules.rows.iter().map(|one| rule(one, reading.time)).collect(),
    }
}

fn tone(action: Action) -> Tone {
    match action {
        Action::Pass => Tone::Plain,
        Action::Drop | Action::Reset => Tone::Stopped,
        Action::WouldDrop | Action::WouldReset => Tone::Would,
    }
}

/// A source or a trunk: what came in the last 10 s, and the messages in all.
fn sender(row: &SenderRow) -> TopRow {
    let trunk = || row.trunk.as_ref().map(|name| format!("trunk {name}"));
    let shown = row.source.map(|source| source.to_string()).or_else(trunk).unwrap_or_default();
    let [messages, register, invite, connections] = row.lately.map(TopCell::count);
    let detail = format!("{shown}: {} messages in the last 10 s", row.lately[0]);
    let host = row.source.filter(Source::is_host).map(|source| unmapped(source.bytes()));
    TopRow {
        id: shown.clone(),
        cells: vec![
            TopCell::text(shown),
            messages,
            register,
            invite,
            connections,
            TopCell::count(row.totals[0]),
            TopCell::default(),
        ],
        subject: host.map(|host| RowSubject::Sender(SocketAddr::new(host, 0), "flood")),
        detail,
    }
}

fn reason(model: &Model, (reason, action, packets): (sipguard_common::Reason, Action, u64)) -> TopRow {
    let key = MetricKey::Reason(reason, action);
    let tone = tone(action);
    TopRow {
        id: format!("{} {}", reason.name(), action.name()),
        cells: vec![
            TopCell::text(reason.name()),
            TopCell::text(action.name()).toned(tone),
            TopCell::count(packets),
            TopCell::rate(model.per_sec(&key)),
            TopCell::past(model.past(&key)).toned(tone),
        ],
        subject: None,
        detail: reason.text().to_owned(),
    }
}

fn trunk(model: &Model, name: &str, received: u64, dropped: u64, would_drop: u64) -> TopRow {
    let [all, stopped] = [false, true].map(|stopped| MetricKey::Trunk(name.to_owned(), stopped));
    let tone = |count: u64, tone| if count > 0 { tone } else { Tone::Plain };
    TopRow {
        id: name.to_owned(),
        cells: vec![
            TopCell::text(name),
            TopCell::count(received),
            TopCell::rate(model.per_sec(&all)),
            TopCell::count(dropped).toned(tone(dropped, Tone::Stopped)),
            TopCell::rate(model.per_sec(&stopped)).toned(tone(dropped, Tone::Stopped)),
            TopCell::count(would_drop).toned(tone(would_drop, Tone::Would)),
            TopCell::past(model.past(&stopped)).toned(tone(dropped, Tone::Stopped)),
        ],
        subject: None,
        detail: String::new(),
    }
}

fn event(event: &TopEvent) -> TopRow {
    let sender = event
        .source
        .map(|sender| if sender.port() == 0 { sender.ip().to_string() } else { sender.to_string() });
    let sender = sender.unwrap_or_default();
    let word = event.reason.name();
    TopRow {
        id: format!("{} {sender} {word}", event.time),
        cells: vec![
            TopCell {
                number: Some(event.time.as_nanosecond() as f64),
                ..TopCell::text(event.time.strftime("%H:%M:%S").to_string())
            },
            TopCell::text(sender),
            TopCell::text(word),
            TopCell::text(event.action.name()).toned(tone(event.action)),
            TopCell::count(event.count),
            TopCell::text(escaped(&event.sample)),
        ],
        subject: event.source.map(|source| RowSubject::Sender(source, word)),
        detail: format!("{}\n{}\n{}", place(event), escaped(&event.sample), from(event)),
    }
}

/// Who it says it is.
fn from(event: &TopEvent) -> String {
    event.from.as_ref().map(|from| format!("From: {from}")).unwrap_or_default()
}

/// From where to where, by which interface, of which trunk.
fn place(event: &TopEvent) -> String {
    let end = |end: Option<SocketAddr>| end.map(|end| end.to_string()).unwrap_or_default();
    let trunk = event.trunk.as_ref().map(|name| format!(" of trunk {name}")).unwrap_or_default();
    format!("{} > {} on {}{trunk}", end(event.source), end(event.destination), event.interface)
}

fn rule(rule: &RuleReading, now: Timestamp) -> TopRow {
    let left = rule.expires_ms.map(|end| u64::try_from(end - now.as_millisecond()).unwrap_or(0));
    let word = if rule.only_counts { "block, counts".to_owned() } else { rule.rule.to_owned() };
    let ends = left.map_or_else(
        || TopCell { number: Some(f64::INFINITY), ..TopCell::text("never") },
        |ms| TopCell { number: Some(ms as f64), ..TopCell::text(span(Duration::from_millis(ms))) },
    );
    TopRow {
        id: format!("{} {} {}", rule.target, rule.rule, rule.origin),
        cells: vec![
            TopCell::text(rule.target.to_string()),
            TopCell::text(word).toned(match (rule.rule, rule.only_counts) {
                ("allow", _) => Tone::Plain,
                (_, true) => Tone::Would,
                (_, false) => Tone::Stopped,
            }),
            ends,
            TopCell::count(rule.packets),
            TopCell::text(rule.origin.clone()),
            TopCell::text(rule.reason.clone()),
        ],
        subject: Some(RowSubject::Rule(rule.target, rule.rule)),
        detail: format!("{}  {}", rule.target, rule.reason),
    }
}

impl Default for TopCell {
    fn default() -> TopCell {
        TopCell::text("")
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::top::fixture::fixed;

    fn model() -> Model {
        let mut model = Model::default();
        model.take(fixed(10));
        model.take(fixed(12));
        model
    }

    fn closed(model: &Model, pane: Pane, filter: &str, by: usize, descending: bool) -> Vec<TopRow> {
        rows(model, pane, filter, (by, descending), &BTreeSet::new())
    }

    fn column(pane: Pane, filter: &str, by: usize, descending: bool, shown: usize) -> Vec<String> {
        let rows = closed(&model(), pane, filter, by, descending);
        rows.iter().map(|row| row.cells[shown].shown().to_owned()).collect()
    }

    #[test]
    fn every_pane_has_as_many_cells_as_columns() {
        for pane in Pane::ALL {
            let (by, descending) = pane.order();
            let rows = closed(&model(), pane, "", by, descending);
            assert!(rows.len() >= 2, "{pane:?}");
            assert!(rows.iter().all(|row| row.cells.len() == pane.columns().len()), "{pane:?}");
        }
    }

    #[test]
    fn what_monitor_mode_lets_pass_is_not_shown_as_stopped() {
        let mut model = model();
        model
            .rules
            .rows
            .iter_mut()
            .filter(|rule| rule.rule == "block")
            .for_each(|rule| rule.only_counts = true);
        let tones = |model: &Model, pane: Pane, column: usize| -> Vec<Tone> {
            closed(model, pane, "", 1, true).iter().map(|row| row.cells[column].tone).collect()
        };
        assert_eq!(tones(&model, Pane::Blocks, 1), [Tone::Would, Tone::Stopped, Tone::Plain]);
        assert!(tones(&model, Pane::Sources, 4).contains(&Tone::Stopped));
        model.reading.as_mut().unwrap().mode = "monitor";
        let sources = tones(&model, Pane::Sources, 4);
        assert!(sources.contains(&Tone::Would) && !sources.contains(&Tone::Stopped), "{sources:?}");
    }

    #[test]
    fn the_colour_of_a_reason_does_not_hang_on_its_place() {
        let model = model();
        let tones = |column: usize, descending: bool| {
            let mut rows: Vec<(String, Tone, Tone)> = closed(&model, Pane::Reasons, "", column, descending)
                .into_iter()
                .map(|row| (row.id, row.cells[1].tone, row.cells[4].tone))
                .collect();
            rows.sort_by(|one, other| one.0.cmp(&other.0));
            rows
        };
        assert_eq!(tones(2, true), tones(2, false));
        assert!(tones(0, true).iter().all(|(_, word, bar)| word == bar));
    }

    #[test]
    fn numbers_are_sorted_as_numbers_and_text_as_text() {
        assert_eq!(column(Pane::Sources, "", 3, true, 3), ["457", "12", "5"]);
        assert_eq!(column(Pane::Sources, "", 3, false, 3), ["5", "12", "457"]);
        assert_eq!(column(Pane::Sources, "", 7, false, 7), ["0s", "75s", "66m"]);
        assert_eq!(
            column(Pane::Sources, "", 2, false, 2),
            ["bad-content-length +1", "bare-lf", "control-byte"]
        );
        assert_eq!(column(Pane::Blocks, "", 2, true, 2), ["never", "never", "59m"]);
    }

    #[test]
    fn a_filter_looks_into_every_column() {
        assert_eq!(column(Pane::Sources, "203.0.113", 4, true, 1), ["203.0.113.7", "203.0.113.9"]);
        assert_eq!(column(Pane::Sources, "INVITE", 4, true, 1), ["203.0.113.9"]);
        assert_eq!(column(Pane::Sources, "content-length: -1", 4, true, 1), ["203.0.113.7"]);
        assert_eq!(column(Pane::Sources, "nobody", 4, true, 1), [""; 0]);
    }

    #[test]
    fn an_address_opens_to_its_ports() {
        let opened = BTreeSet::from(["203.0.113.7".parse().unwrap()]);
        let rows = rows(&model(), Pane::Sources, "", (3, true), &opened);
        let shown = |at: usize| rows.iter().map(|row| row.cells[at].shown().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            shown(1),
            [
                "203.0.113.7",
                "  :4001",
                "  :4002",
                "  :4003",
                "203.0.113.9",
                "2001:db8:85a3:8d3:1319:8a2e:370:7348"
            ]
        );
        assert_eq!(shown(3), ["457", "432", "24", "1", "12", "5"]);
        assert!(rows.iter().all(|row| row.cells.len() == Pane::Sources.columns().len()));
    }
}
