//! The questions before an order: whom, for how long, why, and whether really. Nothing is done by a single key.

use std::net::SocketAddr;

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::parse_reason;
use sipguard_core::target::{Device, Target};

use super::order::TopCommand;
use super::rows::RowSubject;

/// For how long, when nothing else is typed.
const SPAN: &str = "1h";

/// What is to be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogAction {
    /// Block.
    Block,
    /// Allow.
    Allow,
    /// Lift a block or a ban.
    Unblock,
    /// End an allowance.
    Unallow,
    /// Capture.
    Capture,
}

/// Which question is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogStep {
    /// The device or the whole address.
    Whom,
    /// For how long.
    Span,
    /// Why.
    Why,
    /// Into which file.
    File,
    /// Really.
    Sure,
}

/// The answers so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// What is to be ordered.
    pub what: DialogAction,
    /// By how many ports the address came, as far as is known.
    pub ports: usize,
    /// The device, where there is one, and its address, the one that is preset first; or what a rule is about.
    pub choices: Vec<Target>,
    /// Which of them.
    pub target: Target,
    /// For how long, as typed.
    pub span: String,
    /// For how long, as understood.
    lasting: Span,
    /// Why, as typed.
    pub why: String,
    /// The file of a capture, as typed.
    pub file: String,
    /// Which question is open.
    pub step: DialogStep,
    /// What is wrong with the answer.
    pub wrong: Option<String>,
}

/// What an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The next question, or the same once more.
    Go,
    /// Nothing is ordered.
    Cancelled,
    /// The order.
    Command(TopCommand),
}

impl Dialog {
    /// Asks about a row, at `now`.
    ///
    /// # Errors
    /// Why that can't be ordered of it, for people.
    pub fn about(what: DialogAction, subject: &RowSubject, now: Timestamp) -> Result<Dialog, String> {
        let (what, choices, why) = match (what, subject) {
            (DialogAction::Unblock, RowSubject::Rule(target, "allow")) => {
                (DialogAction::Unallow, vec![*target], String::new())
            }
            (_, RowSubject::Rule(target, _)) => (what, vec![*target], String::new()),
            (_, RowSubject::Sender(sender, reason) | RowSubject::Address { device: sender, reason, .. }) => {
                (what, targets(*sender), (*reason).to_owned())
            }
        };
        // What is allowed is an address, with all devices behind it.
        let choices: Vec<Target> = match what {
            DialogAction::Allow => {
                choices.iter().filter_map(|target| Some(target.source()?.into())).collect()
            }
            DialogAction::Block | DialogAction::Unblock | DialogAction::Unallow | DialogAction::Capture => {
                choices
            }
        };
        let narrowest = *choices.first().ok_or("no address can be told of this row: choose another")?;
        if what == DialogAction::Capture && narrowest.source().is_none() {
            return Err(format!("{narrowest} is no address: choose a source to capture"));
        }
        let mut choices = choices;
        choices.dedup();
        // A device that comes by other ports again and again is not one port.
        let (is_whole, ports) = match subject {
            RowSubject::Address { is_whole, ports, .. } => (*is_whole, *ports),
            RowSubject::Sender(..) | RowSubject::Rule(..) => (false, 1),
        };
        // The port that came last may be gone: it is not offered first.
        if ports > 1 {
            choices.reverse();
        }
        let is_address = |target: &&Target| matches!(target, Target::Source(_));
        let target =
            if is_whole { choices.iter().find(is_address).copied() } else { None }.unwrap_or(narrowest);
        let mut dialog = Dialog {
            what,
            target,
            ports,
            choices,
            span: SPAN.to_owned(),
            lasting: Span(None),
            why,
            file: file(&target, now),
            step: DialogStep::Whom,
            wrong: None,
        };
        if dialog.choices.len() < 2 {
            dialog.step = dialog.after_whom();
        }
        Ok(dialog)
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Answered {
        self.wrong = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, self.step) {
            (KeyCode::Esc, _) => return Answered::Cancelled,
            (KeyCode::Char('d' | 'D'), DialogStep::Whom) => self.choose(false),
            (KeyCode::Char('a' | 'A'), DialogStep::Whom) => self.choose(true),
            (KeyCode::Enter, DialogStep::Whom) => self.step = self.after_whom(),
            (KeyCode::Up | KeyCode::Down, DialogStep::Whom) => {
                let other = self.choices.iter().find(|target| **target != self.target);
                self.target = other.copied().unwrap_or(self.target);
            }
            (KeyCode::Char('y' | 'Y'), DialogStep::Sure) => return self.order(),
            (KeyCode::Char('n' | 'N'), DialogStep::Sure) => return Answered::Cancelled,
            (KeyCode::Enter, DialogStep::Span | DialogStep::Why | DialogStep::File) => self.next(),
            (KeyCode::Backspace, _) => drop(self.line().map(String::pop)),
            (KeyCode::Char('u'), _) if control => self.line().map(String::clear).unwrap_or_default(),
            (KeyCode::Char(letter), _) if !control => {
                self.line().map(|line| line.push(letter)).unwrap_or_default();
            }
            _ => {}
        }
        Answered::Go
    }

    /// Takes the address, or the device.
    fn choose(&mut self, address: bool) {
        let chosen = self.choices.iter().find(|target| matches!(target, Target::Source(_)) == address);
        self.target = chosen.copied().unwrap_or(self.target);
        self.step = self.after_whom();
    }

    fn after_whom(&self) -> DialogStep {
        match self.what {
            DialogAction::Block | DialogAction::Allow => DialogStep::Span,
            DialogAction::Unblock | DialogAction::Unallow => DialogStep::Sure,
            DialogAction::Capture => DialogStep::File,
        }
    }

    /// The line that is being typed.
    fn line(&mut self) -> Option<&mut String> {
        match self.step {
            DialogStep::Span => Some(&mut self.span),
            DialogStep::Why => Some(&mut self.why),
            DialogStep::File => Some(&mut self.file),
            DialogStep::Whom | DialogStep::Sure => None,
        }
    }

    fn next(&mut self) {
        let next = match self.step {
            DialogStep::Span => parse_duration(self.span.trim()).map(|lasting| {
                self.lasting = lasting;
                DialogStep::Why
            }),
            DialogStep::Why => parse_reason(self.why.trim()).map(|_| DialogStep::Sure),
            DialogStep::File if self.file.trim().is_empty() => Err("a capture needs a file".to_owned()),
            DialogStep::Whom | DialogStep::File | DialogStep::Sure => Ok(DialogStep::Sure),
        };
        match next {
            Ok(next) => self.step = next,
            Err(wrong) => self.wrong = Some(wrong),
        }
    }

    fn order(&self) -> Answered {
        let (target, span) = (self.target, self.lasting);
        let reason = self.why.trim().to_owned();
        Answered::Command(match self.what {
            DialogAction::Block => TopCommand::Block { target, span, reason },
            DialogAction::Allow => TopCommand::Allow { target, span, reason },
            DialogAction::Unblock => TopCommand::Unblock(target),
            DialogAction::Unallow => TopCommand::Unallow(target),
            DialogAction::Capture => TopCommand::Capture { target, file: self.file.trim().into() },
        })
    }
}

/// The narrowest first: one device before all that share its address.
fn targets(sender: SocketAddr) -> Vec<Target> {
    let device = (sender.port() != 0).then(|| Target::from(Device::from(sender)));
    device.into_iter().chain([Target::from(sender.ip())]).collect()
}

/// A file in the working directory that tells whose packets it has.
fn file(target: &Target, now: Timestamp) -> String {
    let name: String = target
        .to_string()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' })
        .collect();
    format!("sipguard-{}-{}.pcapng", name.trim_matches('-'), now.strftime("%Y%m%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(dialog: &mut Dialog, keys: &str) -> Answered {
        let mut answered = Answered::Go;
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            answered = dialog.key(KeyEvent::new(code, KeyModifiers::NONE));
            if answered != Answered::Go {
                break;
            }
        }
        answered
    }

    fn dialog(what: DialogAction, sender: &str) -> Dialog {
        let subject = RowSubject::Sender(sender.parse().unwrap(), "bare-lf");
        Dialog::about(what, &subject, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn span(text: &str) -> Span {
        parse_duration(text).unwrap()
    }

    #[test]
    fn a_block_is_of_the_device_for_an_hour() {
        let mut dialog = dialog(DialogAction::Block, "203.0.113.7:4001");
        assert_eq!(press(&mut dialog, "\n\n\n"), Answered::Go);
        assert_eq!(dialog.step, DialogStep::Sure);
        let (target, reason) = ("203.0.113.7:4001".parse().unwrap(), "bare-lf".to_owned());
        assert_eq!(
            press(&mut dialog, "y"),
            Answered::Command(TopCommand::Block { target, span: span("1h"), reason })
        );
    }

    #[test]
    fn a_device_that_comes_by_many_ports_is_blocked_by_its_address() {
        for (is_whole, ports, expected) in
            [(true, 9, "203.0.113.7"), (false, 9, "203.0.113.7:4001"), (false, 1, "203.0.113.7:4001")]
        {
            let device = "203.0.113.7:4001".parse().unwrap();
            let subject = RowSubject::Address { device, is_whole, ports, reason: "bare-lf" };
            let mut dialog = Dialog::about(DialogAction::Block, &subject, Timestamp::UNIX_EPOCH).unwrap();
            // Of many ports the last one may be gone, whoever is preset.
            assert_eq!(matches!(dialog.choices[0], Target::Source(_)), ports > 1, "{dialog:?}");
            let (target, reason) = (expected.parse().unwrap(), "bare-lf".to_owned());
            let order = TopCommand::Block { target, span: span("1h"), reason };
            assert_eq!(press(&mut dialog, "\n\n\ny"), Answered::Command(order));
        }
    }

    #[test]
    fn the_address_for_as_long_as_is_typed() {
        let mut dialog = dialog(DialogAction::Block, "[2001:db8::7]:4001");
        press(&mut dialog, "a\u{8}\u{8}2 parsecs\n");
        assert!(dialog.wrong.as_ref().is_some_and(|wrong| wrong.contains("is no duration")), "{dialog:?}");
        dialog.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        press(&mut dialog, "15m\n!\n");
        let (target, reason) = ("2001:db8::7".parse().unwrap(), "bare-lf!".to_owned());
        assert_eq!(
            press(&mut dialog, "y"),
            Answered::Command(TopCommand::Block { target, span: span("15m"), reason })
        );
    }

    #[test]
    fn nothing_else_than_yes_is_yes() {
        for keys in ["\u{1b}", "\n\u{1b}", "\n\n\nn", "\n\n\n\u{1b}"] {
            assert_eq!(
                press(&mut dialog(DialogAction::Block, "203.0.113.7:1"), keys),
                Answered::Cancelled,
                "{keys:?}"
            );
        }
        assert_eq!(press(&mut dialog(DialogAction::Block, "203.0.113.7:1"), "\n\n\n\n\nbq "), Answered::Go);
    }

    #[test]
    fn an_allowance_is_of_an_address_and_a_capture_goes_to_a_file() {
        let mut allow = dialog(DialogAction::Allow, "203.0.113.7:4001");
        let (target, reason) = ("203.0.113.7".parse().unwrap(), "bare-lf".to_owned());
        assert_eq!(
            press(&mut allow, "\n\ny"),
            Answered::Command(TopCommand::Allow { target, span: span("1h"), reason })
        );
        let mut capture = dialog(DialogAction::Capture, "203.0.113.7:4001");
        let (target, file) =
            ("203.0.113.7:4001".parse().unwrap(), "sipguard-203.0.113.7-4001-19700101T000000Z.pcapng".into());
        assert_eq!(press(&mut capture, "\n\ny"), Answered::Command(TopCommand::Capture { target, file }));
    }

    #[test]
    fn a_rule_is_taken_back_by_what_it_is() {
        let target: Target = "203.0.113.0/28".parse().unwrap();
        for (word, order) in [
            ("block", TopCommand::Unblock(target)),
            ("ban", TopCommand::Unblock(target)),
            ("allow", TopCommand::Unallow(target)),
        ] {
            let mut dialog =
                Dialog::about(DialogAction::Unblock, &RowSubject::Rule(target, word), Timestamp::UNIX_EPOCH)
                    .unwrap();
            assert_eq!(press(&mut dialog, "y"), Answered::Command(order));
        }
        let identity = RowSubject::Rule("sip:1@pbx.example".parse().unwrap(), "block");
        assert!(Dialog::about(DialogAction::Capture, &identity, Timestamp::UNIX_EPOCH).is_err());
        assert!(Dialog::about(DialogAction::Allow, &identity, Timestamp::UNIX_EPOCH).is_err());
    }
}
