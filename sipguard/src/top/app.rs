//! The loop. One thread reads the guard, one the keys, one waits for signals, and each order has its own: the screen waits for none of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use sipguard_core::ops::Context;
use sipguard_observe::ops::reading::{TopReader, TopReading};

use super::input::{self, InputRequest};
use super::model::Model;
use super::order::TopCommand;
use super::state::TopState;
use super::terminal::Screen;
use super::theme::Theme;
use super::view;

/// Without a reading for so many times the delay, somebody holds the lock.
const LATE: u32 = 5;

/// Carries out an order and says what came of it; each order has its own thread.
pub type CarryOut = dyn Fn(&TopCommand) -> Result<String> + Send + Sync;

/// What the loop works with.
#[derive(Clone)]
pub struct App {
    /// The guard.
    pub host: Context,
    /// Time between readings.
    pub delay: Duration,
    /// Carries out an order and says what came of it.
    pub order: Arc<CarryOut>,
}

/// What the loop hears of.
enum AppMessage {
    Key(KeyEvent),
    Resized,
    Read(Box<Result<TopReading>>),
    /// The order of this number is carried out.
    Done(u64, Result<String>),
    /// The process shall end: by a signal, or because there is no terminal any more.
    End,
    /// A thread panicked.
    Broken(&'static str),
}

/// Says so when its thread panics.
struct AppWatch(Sender<AppMessage>, &'static str);

impl Drop for AppWatch {
    fn drop(&mut self) {
        if thread::panicking() {
            // Nobody listens when the loop is over.
            let _late = self.0.send(AppMessage::Broken(self.1));
        }
    }
}

/// Shows the guard until the operator has seen enough; gives back the captures that go on.
///
/// # Errors
/// When the terminal can't be used.
pub fn run(app: &App) -> Result<Vec<TopCommand>> {
    let (sender, receiver) = channel();
    let (wake, woken) = channel();
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    // Before there are other threads: they inherit it.
    signals.thread_block().context("blocking signals")?;
    let mut screen = Screen::open()?;
    start(&sender, "the reader", {
        let (app, sender) = (app.clone(), sender.clone());
        move || read(&app, &sender, &woken)
    })?;
    start(&sender, "the keyboard's thread", {
        let sender = sender.clone();
        move || keys(&sender)
    })?;
    start(&sender, "the thread of signals", {
        let sender = sender.clone();
        move || {
            let _signal = signals.wait();
            let _late = sender.send(AppMessage::End);
        }
    })?;
    show(app, &mut screen, &sender, &receiver, &wake)
}

fn start(
    sender: &Sender<AppMessage>,
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<()> {
    let watch = AppWatch(sender.clone(), name);
    let work = move || {
        let _watch = watch;
        work();
    };
    thread::Builder::new().spawn(work).with_context(|| format!("starting {name}"))?;
    Ok(())
}

/// Reads the guard again and again, at once when it is woken.
fn read(app: &App, sender: &Sender<AppMessage>, woken: &Receiver<()>) {
    let mut reader = TopReader::new(&app.host);
    let mut force = true;
    loop {
        if sender.send(AppMessage::Read(Box::new(reader.read(force)))).is_err() {
            return;
        }
        force = match woken.recv_timeout(app.delay) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

fn keys(sender: &Sender<AppMessage>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => AppMessage::Key(key),
            Ok(Event::Resize(_, _)) => AppMessage::Resized,
            Ok(_) => continue,
            Err(_) => AppMessage::End,
        };
        let ends = matches!(message, AppMessage::End);
        if sender.send(message).is_err() || ends {
            return;
        }
    }
}

fn show(
    app: &App,
    screen: &mut Screen,
    sender: &Sender<AppMessage>,
    receiver: &Receiver<AppMessage>,
    wake: &Sender<()>,
) -> Result<Vec<TopCommand>> {
    let theme = Theme::of_environment();
    let (mut model, mut state) = (Model::default(), TopState::default());
    let mut orders = Orders::default();
    loop {
        screen
            .terminal
            .draw(|frame| view::draw(frame.buffer_mut(), &model, &mut state, theme))
            .context("drawing")?;
        let patience = (app.delay * LATE).max(Duration::from_secs(3));
        let mut next = match receiver.recv_timeout(patience) {
            Ok(message) => Some(message),
            Err(_) => {
                model.fail("the guard can't be read: another command holds its lock".to_owned());
                None
            }
        };
        while let Some(message) = next {
            let ends = match message {
                AppMessage::Key(key) => match input::key(&mut state, &model, key) {
                    InputRequest::Draw => false,
                    InputRequest::Quit => true,
                    InputRequest::Command(order) => {
                        state.told = Some((begun(&order), false));
                        orders.carry_out(app, sender, order)?;
                        false
                    }
                },
                AppMessage::Resized => false,
                AppMessage::Read(reading) => {
                    match *reading {
                        Ok(reading) => model.take(reading),
                        Err(error) => model.fail(format!("{error:#}")),
                    }
                    false
                }
                AppMessage::Done(number, done) => {
                    orders.done(number);
                    state.told = Some(match done {
                        Ok(text) => (text, false),
                        Err(error) => (format!("{error:#}"), true),
                    });
                    wake.send(()).context("the reader has ended")?;
                    false
                }
                AppMessage::End => true,
                AppMessage::Broken(who) => bail!("{who} has failed; what it said is above"),
            };
            if ends {
                return orders.finish(receiver);
            }
            next = receiver.try_recv().ok();
        }
        if let Some(said) = screen.said() {
            state.told = Some((said, true));
        }
    }
}

/// What is told until an order is carried out.
fn begun(order: &TopCommand) -> String {
    match order {
        TopCommand::Block { target, .. } => format!("blocking {target} ..."),
        TopCommand::Allow { target, .. } => format!("allowing {target} ..."),
        TopCommand::Unblock(target) => format!("unblocking {target} ..."),
        TopCommand::Unallow(target) => format!("ending the allowance of {target} ..."),
        TopCommand::Capture { target, file } => {
            format!("capturing {target} to {} for {} s ...", file.display(), super::CAPTURE_SECS)
        }
    }
}

/// Orders that are being carried out.
#[derive(Default)]
struct Orders {
    last: u64,
    under_way: Vec<(u64, TopCommand)>,
}

impl Orders {
    fn carry_out(&mut self, app: &App, sender: &Sender<AppMessage>, order: TopCommand) -> Result<()> {
        self.last += 1;
        let number = self.last;
        self.under_way.push((number, order.clone()));
        let (carry_out, done) = (Arc::clone(&app.order), sender.clone());
        start(sender, "an order's thread", move || {
            // Nobody listens when the loop is over.
            let _late = done.send(AppMessage::Done(number, carry_out(&order)));
        })
    }

    fn done(&mut self, number: u64) {
        self.under_way.retain(|(known, _)| *known != number);
    }

    /// Waits for the changes, which take no longer than another command holds the lock. Captures are processes of their own, and go on.
    fn finish(mut self, receiver: &Receiver<AppMessage>) -> Result<Vec<TopCommand>> {
        let changes = |order: &TopCommand| !matches!(order, TopCommand::Capture { .. });
        while self.under_way.iter().any(|(_, order)| changes(order)) {
            if let AppMessage::Done(number, done) = receiver.recv().context("an order was lost")? {
                self.done(number);
                done?;
            }
        }
        Ok(self.under_way.into_iter().map(|(_, order)| order).collect())
    }
}
