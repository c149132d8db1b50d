//! A key to what it does. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::dialog::{Answered, Dialog, DialogAction};
use super::model::Model;
use super::order::TopCommand;
use super::pane::Pane;
use super::state::{OpenDialog, TopState};

/// What a key asks of the loop.
#[derive(Clone, Debug, PartialEq)]
pub enum InputRequest {
    /// Only that the screen is drawn again.
    Draw,
    /// The end.
    Quit,
    /// An order.
    Command(TopCommand),
}

/// The keys, as the help shows them.
pub const KEYS: &[(&str, &str)] = &[
    ("Tab, Left, Right, 1-6", "another pane"),
    ("Up, Down, PgUp, PgDn, Home, End", "another row"),
    ("/  F4", "show only rows with a text (Esc: all again)"),
    (">  <  F6", "sort by the next column, or the one before"),
    ("r", "turn the order round"),
    ("Enter", "show the ports of an address, and hide them"),
    ("b", "block the source of the row (asks first)"),
    ("a", "allow its address"),
    ("u", "unblock it, lift its ban, end its allowance"),
    ("c", "capture its packets to a file for 30 s"),
    ("p  Space", "pause, and go on"),
    ("h  ?  F1", "this help"),
    ("q  F10  Ctrl-C", "quit"),
];

/// Takes a key.
pub fn key(state: &mut TopState, model: &Model, key: KeyEvent) -> InputRequest {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control && key.code == KeyCode::Char('c') {
        return InputRequest::Quit;
    }
    match std::mem::take(&mut state.open) {
        OpenDialog::Nothing => browse(state, model, key),
        // Any key closes it.
        OpenDialog::Help => InputRequest::Draw,
        OpenDialog::Filter(before) => {
            filter(state, before, key);
            InputRequest::Draw
        }
        OpenDialog::Dialog(mut dialog) => match dialog.key(key) {
            Answered::Go => {
                state.open = OpenDialog::Dialog(dialog);
                InputRequest::Draw
            }
            Answered::Cancelled => {
                state.told = Some(("nothing was changed".to_owned(), false));
                InputRequest::Draw
            }
            Answered::Command(order) => InputRequest::Command(order),
        },
    }
}

fn filter(state: &mut TopState, before: String, key: KeyEvent) {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Enter => return,
        KeyCode::Esc => {
            state.filter = before;
            return;
        }
        KeyCode::Backspace => drop(state.filter.pop()),
        KeyCode::Char('u') if control => state.filter.clear(),
        KeyCode::Char(letter) if !control => state.filter.push(letter),
        _ => {}
    }
    state.open = OpenDialog::Filter(before);
}

fn browse(state: &mut TopState, model: &Model, key: KeyEvent) -> InputRequest {
    state.told = None;
    let shown = state.paused.take();
    let seen = shown.as_deref().unwrap_or(model);
    let rows = state.rows(seen);
    let page = state.page.cast_signed();
    let mut paused = shown.is_some();
    let mut asked = InputRequest::Draw;
    match key.code {
        KeyCode::Char('q') | KeyCode::F(10) => asked = InputRequest::Quit,
        KeyCode::Char('h' | '?') | KeyCode::F(1) => state.open = OpenDialog::Help,
        KeyCode::Char('p' | ' ') => paused = !paused,
        KeyCode::Tab | KeyCode::Right => state.tab(1),
        KeyCode::BackTab | KeyCode::Left => state.tab(Pane::ALL.len() - 1),
        KeyCode::Char(digit @ '1'..='6') => state.pane = Pane::ALL[digit as usize - '1' as usize],
        KeyCode::Up => state.go(&rows, -1),
        KeyCode::Down => state.go(&rows, 1),
        KeyCode::PageUp => state.go(&rows, -page),
        KeyCode::PageDown => state.go(&rows, page),
        KeyCode::Home => state.go(&rows, isize::MIN),
        KeyCode::End => state.go(&rows, isize::MAX),
        KeyCode::Char('/') | KeyCode::F(4) => state.open = OpenDialog::Filter(state.filter.clone()),
        KeyCode::Char('>') | KeyCode::F(6) => state.sort(true),
        KeyCode::Char('<') => state.sort(false),
        KeyCode::Char('r') => state.turn(),
        KeyCode::Enter => state.open_ports(&rows),
        KeyCode::Esc => state.filter.clear(),
        KeyCode::Char(letter) => {
            let what = match letter {
                'b' => DialogAction::Block,
                'a' => DialogAction::Allow,
                'u' => DialogAction::Unblock,
                'c' => DialogAction::Capture,
                _ => return restore(state, shown, asked),
            };
            let subject = rows.get(state.view().index).and_then(|row| row.subject.as_ref());
            let now = seen.reading.as_ref().map(|reading| reading.time).unwrap_or_default();
            let none =
                || format!("no row of {} has a source: choose one in Sources or Events", state.pane.name());
            match subject.ok_or_else(none).and_then(|subject| Dialog::about(what, subject, now)) {
                Ok(dialog) => {
                    state.hold(&rows);
                    state.open = OpenDialog::Dialog(dialog);
                }
                Err(why) => state.told = Some((why, true)),
            }
        }
        _ => {}
    }
    let shown = match (paused, shown) {
        (false, _) => None,
        (true, Some(shown)) => Some(shown),
        (true, None) => Some(Box::new(model.clone())),
    };
    restore(state, shown, asked)
}

fn restore(state: &mut TopState, shown: Option<Box<Model>>, asked: InputRequest) -> InputRequest {
    state.paused = shown;
    asked
}

#[cfg(test)]
mod tests {
    use sipguard_core::target::Target;

    use super::*;
    use crate::top::fixture::fixed;

    fn model() -> Model {
        let mut model = Model::default();
        model.take(fixed(10));
        model.take(fixed(12));
        model
    }

    fn press(state: &mut TopState, model: &Model, codes: &[KeyCode]) -> InputRequest {
        let mut asked = InputRequest::Draw;
        for code in codes {
            asked = key(state, model, KeyEvent::new(*code, KeyModifiers::NONE));
        }
        asked
    }

    fn typed(state: &mut TopState, model: &Model, text: &str) -> InputRequest {
        press(state, model, &text.chars().map(KeyCode::Char).collect::<Vec<_>>())
    }

    #[test]
    fn panes() {
        let (mut state, model) = (TopState::default(), model());
        for (codes, pane) in [
            (&[KeyCode::Tab][..], Pane::Reasons),
            (&[KeyCode::BackTab, KeyCode::Left], Pane::Senders),
            (&[KeyCode::Right], Pane::Sources),
            (&[KeyCode::Char('4')], Pane::Events),
        ] {
            assert_eq!(press(&mut state, &model, codes), InputRequest::Draw);
            assert_eq!(state.pane, pane);
        }
    }

    #[test]
    fn three_keys_end_it_but_not_while_text_is_typed() {
        let model = model();
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(typed(&mut TopState::default(), &model, "q"), InputRequest::Quit);
        assert_eq!(press(&mut TopState::default(), &model, &[KeyCode::F(10)]), InputRequest::Quit);
        for before in ["", "/abc", "b", "h"] {
            let mut state = TopState::default();
            typed(&mut state, &model, before);
            assert_eq!(key(&mut state, &model, ctrl_c), InputRequest::Quit, "{before}");
        }
        let mut state = TopState::default();
        assert_eq!(typed(&mut state, &model, "/q"), InputRequest::Draw);
        assert_eq!(state.filter, "q");
        typed(&mut state, &model, "h");
        assert_eq!((typed(&mut state, &model, "x"), state.filter.as_str()), (InputRequest::Draw, "qhx"));
    }

    #[test]
    fn a_filter_is_kept_by_enter_and_given_up_by_escape() {
        let (mut state, model) = (TopState::default(), model());
        typed(&mut state, &model, "/inv");
        press(&mut state, &model, &[KeyCode::Enter]);
        assert_eq!((state.rows(&model).len(), &state.open), (1, &OpenDialog::Nothing));
        typed(&mut state, &model, "/xyz");
        assert!(state.rows(&model).is_empty());
        press(&mut state, &model, &[KeyCode::Esc]);
        assert_eq!(state.filter, "inv");
        press(&mut state, &model, &[KeyCode::Esc]);
        assert_eq!((state.rows(&model).len(), state.filter.as_str()), (3, ""));
    }

    #[test]
    fn a_block_is_of_the_row_that_was_chosen_whatever_comes_meanwhile() {
        let (mut state, mut model) = (TopState::default(), model());
        press(&mut state, &model, &[KeyCode::Down, KeyCode::Char('b')]);
        let rows = state.rows(&model);
        let target: Target = rows[1].cells[1].shown().parse().unwrap();
        model.take(fixed(40));
        press(&mut state, &model, &[KeyCode::Enter; 3]);
        let asked = typed(&mut state, &model, "y");
        let InputRequest::Command(TopCommand::Block { target: blocked, .. }) = asked else {
            panic!("{asked:?}")
        };
        assert_eq!(blocked.source(), target.source());
        assert_eq!(state.open, OpenDialog::Nothing);
    }

    #[test]
    fn no_single_key_changes_anything() {
        let model = model();
        for pane in "12345".chars() {
            for byte in 0x20..0x7f_u8 {
                let mut state = TopState::default();
                let asked = typed(&mut state, &model, &format!("{pane}{}", char::from(byte)));
                assert!(!matches!(asked, InputRequest::Command(_)), "{pane} {byte}");
            }
        }
    }

    #[test]
    fn a_pane_without_sources_says_so() {
        let (mut state, model) = (TopState::default(), model());
        typed(&mut state, &model, "2b");
        assert!(matches!(&state.told, Some((told, true)) if told.contains("no row of Reasons")), "{state:?}");
    }

    #[test]
    fn a_pause_keeps_what_is_seen() {
        let (mut state, mut model) = (TopState::default(), model());
        typed(&mut state, &model, "p");
        model.take(fixed(40));
        let at = |state: &TopState| state.paused.as_ref().unwrap().reading.as_ref().unwrap().at_ns;
        assert_eq!(at(&state), 12_000_000_000);
        typed(&mut state, &model, "2");
        assert_eq!(at(&state), 12_000_000_000);
        typed(&mut state, &model, " ");
        assert!(state.paused.is_none());
    }
}
