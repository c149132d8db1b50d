//! Model and state to a screen. Pure but for the place of the first row that is seen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::boxes;
use super::model::{MetricKey, Model};
use super::offenders::{self, Message};
use super::pane::{Column, Pane};
use super::rows::{CellContent, Tone, TopCell, TopRow};
use super::state::{OpenDialog, TopState};
use super::theme::{Theme, rate};
use crate::table::wrapped;

/// Lines above the rows, with the head of the table, and below them.
const ABOVE: u16 = 6;
const BELOW: u16 = 4;
/// How wide a reason is at the least, and the last column, which takes what is left.
const LEAST_REASON: u16 = 16;
const LEAST_LAST: u16 = 8;
/// What the smallest screen has.
const LEAST: (u16, u16) = (60, 12);

/// Draws all of it.
pub fn draw(buffer: &mut Buffer, model: &Model, state: &mut TopState, theme: Theme) {
    let area = buffer.area;
    if area.width < LEAST.0 || area.height < LEAST.1 {
        put(buffer, 0, 0, "too small: 80x24 is enough", theme.strong());
        return;
    }
    let shown = state.paused.take();
    let seen = shown.as_deref().unwrap_or(model);
    let rows = state.rows(seen);
    let page = area.height - ABOVE - BELOW;
    state.scroll(rows.len(), usize::from(page));
    head(buffer, seen, shown.is_some(), theme);
    tabs(buffer, state, theme);
    let beside = message_width(area, state.pane);
    table(buffer, Rect { width: area.width - beside, ..area }, &rows, state, theme);
    if beside > 0 {
        let place = Rect { x: area.width - beside, y: ABOVE - 1, width: beside, height: page + 1 };
        message(buffer, place, seen, rows.get(state.view().index), theme);
    }
    if rows.is_empty() {
        put(buffer, 2, ABOVE + 1, &nothing(seen, state), Style::new());
    }
    last_lines(buffer, model, state, &rows, theme);
    state.paused = shown;
    match &state.open {
        OpenDialog::Help => boxes::help(buffer, theme),
        OpenDialog::Dialog(dialog) => boxes::dialog(buffer, dialog, theme),
        OpenDialog::Nothing | OpenDialog::Filter(_) => {}
    }
}

/// Writes text from a column on, as far as there is room; gives the column behind it.
pub fn put(buffer: &mut Buffer, x: u16, y: u16, text: &str, style: Style) -> u16 {
    let area = buffer.area;
    if x >= area.right() || y >= area.bottom() {
        return x;
    }
    buffer.set_stringn(x, y, text, usize::from(area.right() - x), style).0
}

/// The text, cut to a width, with a `~` where something is missing.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width || width == 0 { cut(text, width) } else { cut(text, width - 1) + "~" }
}

/// The text, cut to a width. What has no width, or is a control character, is left out.
fn cut(text: &str, width: usize) -> String {
    let mut left = width;
    let mut fits = |letter: &char| {
        let needed = letter.width().unwrap_or(0);
        let fits = needed > 0 && needed <= left;
        left = if fits { left - needed } else { left };
        fits
    };
    text.chars().filter(|letter| letter.width().is_some()).take_while(|letter| fits(letter)).collect()
}

fn right(buffer: &mut Buffer, y: u16, text: &str, style: Style) -> u16 {
    let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
    let x = buffer.area.right().saturating_sub(width + 1);
    put(buffer, x, y, text, style);
    x
}

fn head(buffer: &mut Buffer, model: &Model, paused: bool, theme: Theme) {
    let Some(reading) = &model.reading else {
        put(buffer, 1, 0, "sipguard", theme.strong());
        return;
    };
    let clock = reading.time.strftime("%H:%M:%S UTC").to_string();
    let state = match (&model.error, paused) {
        (_, true) => format!("PAUSED  {clock}"),
        (Some(_), false) => format!("NOT LIVE  {clock}"),
        (None, false) => clock,
    };
    let end = right(buffer, 0, &state, theme.strong());
    let after = put(buffer, 1, 0, "sipguard ", theme.strong());
    let style = if reading.mode == "enforce" { theme.strong() } else { theme.would().patch(theme.strong()) };
    let after = put(buffer, after, 0, reading.mode, style) + 2;
    let names: Vec<String> = reading
        .interfaces
        .iter()
        .map(|one| {
            format!("{} {}{}{}", one.name, one.mode, if one.driver.is_empty() { "" } else { "/" }, one.driver)
        })
        .collect();
    put(buffer, after, 0, &cut(&names.join(", "), usize::from(end.saturating_sub(after + 2))), Style::new());

    let [received, dropped, would] =
        [MetricKey::Received, MetricKey::Dropped, MetricKey::WouldDrop].map(|key| model.value(&key));
    let lost = reading.events_lost;
    let total = format!("{received:>12} packets");
    measure(buffer, 1, "packets", model, &MetricKey::Received, (&total, Style::new()), Style::new());
    let style = if dropped > 0 { theme.stopped() } else { Style::new() };
    let total = format!("{dropped:>12} dropped");
    measure(buffer, 2, "drops", model, &MetricKey::Dropped, (&total, style), style);
    let mut notes = Vec::new();
    if would > 0 || reading.mode == "monitor" {
        notes.push(format!("would have dropped {would}, {}/s", rate(model.per_sec(&MetricKey::WouldDrop))));
    }
    notes.push(format!("blocks {}, bans {}", model.rules.blocks, model.rules.bans));
    notes.push(format!("events lost {lost}"));
    put(buffer, 1, 3, &notes.join("   "), if would > 0 { theme.would() } else { Style::new() });
    for line in [1, 2] {
        let style = if line == 2 { theme.stopped() } else { Style::new() };
        let key = if line == 1 { MetricKey::Received } else { MetricKey::Dropped };
        put(buffer, BARS, line, &bars(&model.past(&key), buffer.area.width - BARS - TOTAL, theme), style);
    }
}

/// Where the bars of the head begin, and what is right of them.
const BARS: u16 = 20;
const TOTAL: u16 = 23;

/// What the greatest of a sparkline takes behind it.
const MOST: u16 = 11;

/// A sparkline, and the greatest that is in it, where there is room.
fn bars(past: &[f64], width: u16, theme: Theme) -> String {
    if width < 2 * MOST {
        return theme.sparkline(past, usize::from(width).min(super::model::PAST));
    }
    let room = usize::from(width - MOST).min(super::model::PAST);
    let most = past[past.len().saturating_sub(room)..].iter().copied().fold(0.0, f64::max);
    format!("{} max {}", theme.sparkline(past, room), rate(most))
}

fn measure(
    buffer: &mut Buffer,
    y: u16,
    name: &str,
    model: &Model,
    key: &MetricKey,
    total: (&str, Style),
    style: Style,
) {
    put(buffer, 1, y, name, Style::new());
    put(buffer, 9, y, &format!("{:>7}/s", rate(model.per_sec(key))), style);
    right(buffer, y, total.0, total.1);
}

fn tabs(buffer: &mut Buffer, state: &TopState, theme: Theme) {
    let mut x = 1;
    for pane in Pane::ALL {
        let style = if pane == state.pane { theme.reversed().patch(theme.strong()) } else { Style::new() };
        x = put(buffer, x, ABOVE - 2, &format!(" {} {} ", pane.index() + 1, pane.name()), style);
    }
}

/// From so many columns on the message of the chosen row is beside the rows, and how wide it is at the least.
const BESIDE: u16 = 140;
const MESSAGE: u16 = 58;

/// How wide the message is; 0 where there is none.
fn message_width(area: Rect, pane: Pane) -> u16 {
    if area.width < BESIDE || pane != Pane::Sources { 0 } else { MESSAGE.max(area.width * 2 / 5) }
}

/// The first malformed message of the chosen row, with the line at fault.
fn message(buffer: &mut Buffer, area: Rect, model: &Model, row: Option<&TopRow>, theme: Theme) {
    let sources = model.reading.as_ref().map_or(&[][..], |reading| &reading.sources);
    let Message { title, lines, at_fault } =
        row.map(|row| offenders::message(sources, &row.id)).unwrap_or_default();
    let bar = if theme.has_unicode() { "│" } else { "|" };
    for y in area.y..area.bottom() {
        put(buffer, area.x, y, bar, Style::new());
    }
    let room = usize::from(area.width - 4);
    put(buffer, area.x + 2, area.y, &shortened(&title, room), theme.strong());
    // The line at fault is among those that are seen.
    let page = usize::from(area.height - 1);
    let first = at_fault.map_or(0, |at| (at + 2).saturating_sub(page));
    for (y, (number, line)) in (area.y + 1..area.bottom()).zip(lines.iter().enumerate().skip(first)) {
        let is_fault = at_fault == Some(number);
        let (mark, style) =
            if is_fault { (">", theme.stopped().patch(theme.strong())) } else { ("", Style::new()) };
        put(buffer, area.x + 1, y, mark, style);
        put(buffer, area.x + 2, y, &shortened(line, room), style);
    }
}

fn table(buffer: &mut Buffer, area: Rect, rows: &[TopRow], state: &TopState, theme: Theme) {
    let view = state.view();
    let columns = state.pane.columns();
    let widths = widths(columns, rows, area.width);
    let y = ABOVE - 1;
    buffer.set_style(Rect { y, height: 1, ..area }, theme.underlined());
    let mut x = 1;
    for (index, (column, width)) in columns.iter().zip(&widths).enumerate() {
        let mut head = column.head.to_owned();
        if index == view.column {
            head.push(theme.arrow(view.descending));
        }
        let room = usize::from(*width);
        let head = if column.number { format!("{head:>room$}") } else { cut(&head, room) };
        put(buffer, x, y, &head, theme.underlined());
        x += *width + 1;
    }
    let page = usize::from(area.height - ABOVE - BELOW);
    for (line, (index, row)) in rows.iter().enumerate().skip(view.offset).take(page).enumerate() {
        let y = ABOVE + u16::try_from(line).unwrap_or(u16::MAX);
        let selected = index == view.index;
        if selected {
            buffer.set_style(Rect { y, height: 1, ..area }, theme.reversed());
        }
        let mut x = 1;
        for ((cell, column), width) in row.cells.iter().zip(columns).zip(&widths) {
            // Red on reversed ground is hard to read.
            let style = if selected { theme.reversed() } else { tone(cell, theme) };
            put(buffer, x, y, &content(cell, *width, column.number, theme), style);
            x += *width + 1;
        }
    }
}

fn content(cell: &TopCell, width: u16, number: bool, theme: Theme) -> String {
    match &cell.content {
        CellContent::Text(text) => aligned(text, width, number),
        CellContent::Past(past) => bars(past, width, theme),
    }
}

fn tone(cell: &TopCell, theme: Theme) -> Style {
    match cell.tone {
        Tone::Plain => Style::new(),
        Tone::Stopped => theme.stopped(),
        Tone::Would => theme.would(),
    }
}

fn aligned(text: &str, width: u16, number: bool) -> String {
    let width = usize::from(width);
    // What is cut off a number would make another number of it.
    if number && text.width() > width {
        return "#".repeat(width);
    }
    let text = shortened(text, width);
    if number { format!("{text:>width$}") } else { text }
}

/// The width of each column: those of addresses are as wide as they must be, as far as all columns are seen.
fn widths(columns: &[Column], rows: &[TopRow], screen: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = columns.iter().map(|column| column.width).collect();
    // On a narrow screen numbers are worth more than the end of a reason.
    let reason = columns.iter().position(|column| column.head == "REASON" && column.width > LEAST_REASON);
    if let Some(index) = reason {
        let over = widths.iter().map(|width| width + 1).sum::<u16>().saturating_sub(screen);
        widths[index] = widths[index].saturating_sub(over).max(LEAST_REASON);
    }
    let address = columns.iter().position(|column| ["SOURCE", "TARGET"].contains(&column.head));
    if let Some(index) = address {
        let longest = rows.iter().map(|row| row.cells[index].shown().width()).max().unwrap_or(0);
        let longest = u16::try_from(longest).unwrap_or(u16::MAX);
        let others: u16 = widths.iter().map(|width| width + 1).sum::<u16>() - widths[index];
        // Who it says it is must be seen too, where there is room for that at all.
        let is_seen = screen >= others + widths[index] + LEAST_LAST;
        let last =
            if is_seen && columns.last().is_some_and(|column| column.head == "AGENT") { 10 } else { 0 };
        let most = screen.saturating_sub(others + last + 1).max(columns[index].width);
        widths[index] = longest.clamp(columns[index].width, most);
    }
    let taken: u16 = widths.iter().map(|width| width + 1).sum();
    if let Some(last) = widths.last_mut() {
        let left = screen.saturating_sub(taken + 1);
        // A few letters tell nothing; the lines below the rows have all of it.
        *last = if left < LEAST_LAST { 0 } else { left };
    }
    widths
}

/// What stands where rows would be.
fn nothing(model: &Model, state: &TopState) -> String {
    if model.reading.is_none() {
        return "reading ...".to_owned();
    }
    if !state.filter.is_empty() {
        return format!("no row has the text {:?}: Esc shows all", state.filter);
    }
    let text = match state.pane {
        Pane::Sources => "nobody has sent anything malformed",
        Pane::Reasons => "no packet has come",
        Pane::Trunks => "there are no trunks: `sipguard trunk add` makes one",
        Pane::Events => "nothing has been stopped",
        Pane::Senders => "nobody has sent a message",
        Pane::Blocks => "nobody is blocked, allowed or banned",
    };
    text.to_owned()
}

fn last_lines(buffer: &mut Buffer, model: &Model, state: &TopState, rows: &[TopRow], theme: Theme) {
    let count = rows.len();
    let detail = rows.get(state.view().index).map_or("", |row| row.detail.as_str());
    let area = buffer.area;
    let y = area.height - BELOW;
    let place = if count == 0 { "0".to_owned() } else { format!("{}/{count}", state.view().index + 1) };
    let end = right(buffer, y, &place, Style::new());
    let room = usize::from(end.saturating_sub(2));
    let (text, style) = match (&state.open, &model.error, &state.told) {
        (OpenDialog::Filter(_), _, _) => (format!("filter: {}_", state.filter), theme.strong()),
        (_, Some(error), _) => (error.clone(), theme.stopped().patch(theme.strong())),
        (_, None, Some((told, true))) => (told.clone(), theme.stopped()),
        (_, None, Some((told, false))) => (told.clone(), theme.strong()),
        (_, None, None) if !state.filter.is_empty() => {
            (format!("filter: {}\n{detail}", state.filter), Style::new())
        }
        (_, None, None) => (detail.to_owned(), Style::new()),
    };
    let lines = below(&text, room, usize::from(BELOW - 1));
    for (y, line) in (y..).zip(&lines) {
        put(buffer, 1, y, line, style);
    }
    let mut x = 0;
    for (key, word) in [
        ("F1", "Help"),
        ("/", "Filter"),
        ("F6", "Sort"),
        ("b", "Block"),
        ("a", "Allow"),
        ("u", "Unblock"),
        ("c", "Capture"),
        ("p", "Pause"),
        ("q", "Quit"),
    ] {
        x = put(buffer, x, y + BELOW - 1, &format!(" {key} "), theme.strong());
        x = put(buffer, x, y + BELOW - 1, word, theme.reversed());
    }
}

/// What is said below the rows, in so many lines at the most: each goes on where there is room.
fn below(text: &str, width: usize, most: usize) -> Vec<String> {
    let texts: Vec<&str> = text.lines().collect();
    let mut lines = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let room = most.saturating_sub(lines.len() + texts.len() - at - 1).max(1);
        let mut folded = wrapped(text, width);
        if folded.len() > room {
            let rest = folded.split_off(room - 1).join(" ");
            folded.push(shortened(&rest, width));
        }
        lines.extend(folded);
    }
    lines.truncate(most);
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::*;
    use crate::top::fixture::fixed;
    use crate::top::input;

    fn screen(width: u16, height: u16, keys: &str) -> String {
        let (mut model, mut state) = (Model::default(), TopState::default());
        (0..40).for_each(|second| model.take(fixed(second * 7 % 40 + second)));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut draw = |state: &mut TopState| {
            terminal.draw(|frame| draw(frame.buffer_mut(), &model, state, Theme::new(true, true))).unwrap();
        };
        draw(&mut state);
        for letter in keys.chars() {
            let code = if letter == '\n' { KeyCode::Enter } else { KeyCode::Char(letter) };
            input::key(&mut state, &model, KeyEvent::new(code, KeyModifiers::NONE));
            draw(&mut state);
        }
        terminal.backend().to_string()
    }

    #[test]
    fn small() {
        insta::assert_snapshot!(["", "2", "3", "4", "5"].map(|keys| screen(80, 24, keys)).join("\n"));
    }

    #[test]
    fn wide() {
        insta::assert_snapshot!(["", "2", "\n"].map(|keys| screen(120, 40, keys)).join("\n"));
    }

    #[test]
    fn the_message_is_beside_the_rows() {
        insta::assert_snapshot!(["", "\n", "2"].map(|keys| screen(200, 50, keys)).join("\n"));
        let narrow = screen(139, 24, "");
        assert!(!narrow.contains("REGISTER sip:pbx.example"), "{narrow}");
    }

    #[test]
    fn above_the_panes() {
        insta::assert_snapshot!(
            ["h", "b", "b\n\n\n", "c", "5u", "/lf", "p"].map(|keys| screen(80, 24, keys)).join("\n")
        );
    }

    #[test]
    fn any_size_is_drawn() {
        for width in [1, 20, 59, 60, 79, 80, 200] {
            for height in [1, 2, 11, 12, 13, 24, 60] {
                for keys in ["h", "b\n", "4"] {
                    screen(width, height, keys);
                }
            }
        }
    }

    #[test]
    fn a_number_is_never_cut() {
        assert_eq!(aligned("1234567", 6, true), "######");
        assert_eq!(aligned("1234567", 7, true), "1234567");
        assert_eq!(aligned("hé\u{7}llo", 3, false), "hé~");
    }
}
