//! Boxes above the panes: the keys, and questions.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Clear, Widget as _};
use sipguard_core::target::Target;

use super::dialog::{Dialog, DialogAction, DialogStep};
use super::input::KEYS;
use super::order::CAPTURE_SECS;
use super::theme::Theme;

/// A box in the middle, as wide and high as asked for where there is room. Gives what is within it.
fn open(buffer: &mut Buffer, title: &str, width: u16, height: u16, theme: Theme) -> Rect {
    let area = buffer.area;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let block = Block::bordered().title(format!(" {title} ")).title_style(theme.strong());
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
pub fn help(buffer: &mut Buffer, theme: Theme) {
    let height = u16::try_from(KEYS.len()).unwrap_or(u16::MAX) + 5;
    let within = open(buffer, "Keys", 78, height, theme);
    for (number, (keys, text)) in (0..).zip(KEYS) {
        line(buffer, within, number, &format!("{keys:<32}{text}"), Style::new());
    }
    let after = u16::try_from(KEYS.len()).unwrap_or(u16::MAX) + 1;
    let text = "Before a source: B blocked, b banned, A allowed. Rates are a second's.";
    line(buffer, within, after, text, Style::new());
    line(buffer, within, after + 1, "Any key closes this.", theme.strong());
}

/// The questions before an order, with the answers so far.
pub fn dialog(buffer: &mut Buffer, dialog: &Dialog, theme: Theme) {
    let title = match dialog.what {
        DialogAction::Block => "Block",
        DialogAction::Allow => "Allow",
        DialogAction::Unblock => "Unblock",
        DialogAction::Unallow => "End the allowance",
        DialogAction::Capture => "Capture",
    };
    let within = open(buffer, title, 76, 10, theme);
    let mut number = 0;
    for target in &dialog.choices {
        let key = if matches!(target, Target::Device(_)) { 'd' } else { 'a' };
        let key = if dialog.choices.len() > 1 { format!("{key}  ") } else { String::new() };
        let style = if *target == dialog.target { theme.reversed() } else { Style::new() };
        line(buffer, within, number, &format!("{key}{target}{}", meaning(target, dialog.ports)), style);
        number += 1;
    }
    number += 1;
    let texts: &[(DialogStep, &str, &str)] = match dialog.what {
        DialogAction::Block | DialogAction::Allow => {
            &[(DialogStep::Span, "for", &dialog.span), (DialogStep::Why, "because", &dialog.why)]
        }
        DialogAction::Capture => &[(DialogStep::File, "to", &dialog.file)],
        DialogAction::Unblock | DialogAction::Unallow => &[],
    };
    for (step, name, text) in texts {
        let open = *step == dialog.step;
        let cursor = if open { "_" } else { "" };
        let style = if open { theme.strong() } else { Style::new() };
        line(buffer, within, number, &format!("{name:<9}{text}{cursor}"), style);
        number += 1;
    }
    let (question, style) = match (&dialog.wrong, dialog.step) {
        (Some(wrong), _) => (wrong.clone(), theme.stopped()),
        (None, DialogStep::Whom) => {
            ("d: this device   a: its whole address   Enter: as marked".to_owned(), theme.strong())
        }
        (None, DialogStep::Span) => {
            ("such as 90s, 15m, 1d or permanent   Enter: go on".to_owned(), Style::new())
        }
        (None, DialogStep::Why) => ("for `list` and `lookup`   Enter: go on".to_owned(), Style::new()),
        (None, DialogStep::File) => (format!("its packets of {CAPTURE_SECS} s   Enter: go on"), Style::new()),
        (None, DialogStep::Sure) => ("Do it?  y: yes   n: no".to_owned(), theme.strong()),
    };
    line(buffer, within, 6, &question, style);
    line(buffer, within, 7, "Esc: nothing is done", Style::new());
}

fn meaning(target: &Target, ports: usize) -> &'static str {
    match target {
        Target::Device(_) if ports > 1 => "  (the last of its ports, which may be gone)",
        Target::Device(_) => "  (this device, on guarded ports)",
        Target::Source(source) if source.is_host() => "  (all that this address sends)",
        Target::Source(_) => "  (all that comes from there)",
        Target::Identity(_) | Target::UserAgent(_) => "  (on guarded ports)",
    }
}
