//! Boxes above the panes: the keys, and questions.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Clear, Widget as _};

use super::ask::{Ask, DialogAction, DialogStep};
use super::input::KEYS;
use super::look::Look;
use super::order::CAPTURE_SECS;
use crate::target::Target;

/// A box in the middle, as wide and high as asked for where there is room. Gives what is within it.
fn open(buffer: &mut Buffer, title: &str, width: u16, height: u16, look: Look) -> Rect {
    let area = buffer.area;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let block = Block::bordered().title(format!(" {title} ")).title_style(look.strong());
    let within = block.inner(place);
    block.render(place, buffer);
    within
}

/// Lines within a box; what does not fit is left out.
fn line(buffer: &mut Buffer, within: Rect, number: u16, text: &str, style: Style) {
    if number < within.height {
        let room = usize::from(within.width.saturating_sub(1));
        buffer.set_stringn(within.x + 1, within.y + number, text, room, style);
    }
}

/// The keys, and what the letters before sources mean.
pub fn help(buffer: &mut Buffer, look: Look) {
    let height = u16::try_from(KEYS.len()).unwrap_or(u16::MAX) + 5;
    let within = open(buffer, "Keys", 78, height, look);
    for (number, (keys, text)) in (0..).zip(KEYS) {
        line(buffer, within, number, &format!("{keys:<32}{text}"), Style::new());
    }
    let after = u16::try_from(KEYS.len()).unwrap_or(u16::MAX) + 1;
    let text = "Before a source: B blocked, b banned, A allowed. Rates are a second's.";
    line(buffer, within, after, text, Style::new());
    line(buffer, within, after + 1, "Any key closes this.", look.strong());
}

/// The questions before an order, with the answers so far.
pub fn ask(buffer: &mut Buffer, ask: &Ask, look: Look) {
    let title = match ask.what {
        DialogAction::Block => "Block",
        DialogAction::Allow => "Allow",
        DialogAction::Unblock => "Unblock",
        DialogAction::Unallow => "End the allowance",
        DialogAction::Capture => "Capture",
    };
    let within = open(buffer, title, 76, 10, look);
    let mut number = 0;
    for (index, target) in ask.choices.iter().enumerate() {
        let key = if index == 0 { 'd' } else { 'a' };
        let key = if ask.choices.len() > 1 { format!("{key}  ") } else { String::new() };
        let style = if *target == ask.target { look.reversed() } else { Style::new() };
        line(buffer, within, number, &format!("{key}{target}{}", meaning(target)), style);
        number += 1;
    }
    number += 1;
    let texts: &[(DialogStep, &str, &str)] = match ask.what {
        DialogAction::Block | DialogAction::Allow => {
            &[(DialogStep::Span, "for", &ask.span), (DialogStep::Why, "because", &ask.why)]
        }
        DialogAction::Capture => &[(DialogStep::File, "to", &ask.file)],
        DialogAction::Unblock | DialogAction::Unallow => &[],
    };
    for (step, name, text) in texts {
        let open = *step == ask.step;
        let cursor = if open { "_" } else { "" };
        let style = if open { look.strong() } else { Style::new() };
        line(buffer, within, number, &format!("{name:<9}{text}{cursor}"), style);
        number += 1;
    }
    let (question, style) = match (&ask.wrong, ask.step) {
        (Some(wrong), _) => (wrong.clone(), look.stopped()),
        (None, DialogStep::Whom) => {
            ("d: this device   a: its whole address   Enter: as marked".to_owned(), look.strong())
        }
        (None, DialogStep::Span) => {
            ("such as 90s, 15m, 1d or permanent   Enter: go on".to_owned(), Style::new())
        }
        (None, DialogStep::Why) => ("for `list` and `lookup`   Enter: go on".to_owned(), Style::new()),
        (None, DialogStep::File) => (format!("its packets of {CAPTURE_SECS} s   Enter: go on"), Style::new()),
        (None, DialogStep::Sure) => ("Do it?  y: yes   n: no".to_owned(), look.strong()),
    };
    line(buffer, within, 6, &question, style);
    line(buffer, within, 7, "Esc: nothing is done", Style::new());
}

fn meaning(target: &Target) -> &'static str {
    match target {
        Target::Device(_) => "  (this device, on guarded ports)",
        Target::Source(source) if source.is_host() => "  (all that this address sends)",
        Target::Source(_) => "  (all that comes from there)",
        Target::Identity(_) | Target::UserAgent(_) => "  (on guarded ports)",
    }
}
