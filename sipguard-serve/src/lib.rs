//! `sipguard serve`: one process beside an attached guard, which may die at any time without any effect on filtering.
//!
//! Three threads: the loop here reads events and hands them to sinks (`sink.rs`), and keeps the history (`history/`); another one
//! answers HTTP (`http.rs`, `api.rs`, `rows.rs`). Neither takes the lock of the pins: no block ever waits for a reader. The third one
//! reads feeds (`feeds.rs`), and changes rules as `sipguard feed refresh` does.
//! A new sink is a file in `sinks/` and a line in its `mod.rs`.

#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]
#![warn(unreachable_pub)]

mod api;
mod attached;
mod dashboard;
mod events;
mod feeds;
mod health;
mod history;
mod http;
mod overview;
mod recent;
mod rows;
mod shared;
mod sink;
mod sinks;
mod supervisor;

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use sipguard_core::clock::Clock;
use sipguard_core::counters;
use sipguard_core::notice;
use sipguard_core::ops::feed::Fetch;
use sipguard_core::ops::{self, Context};
use sipguard_core::service::Options;
use sipguard_core::unfinished;
use sipguard_observe::events::RuleLookup;

use self::attached::AttachedGuard;
use self::events::Events;
use self::health::Health;
use self::history::{History, HistorySample, Position, SLOT_SECS};
use self::http::Listener;
use self::recent::Recent;
use self::shared::ServeShared;
use self::sink::Sinks;
use self::supervisor::Supervisor;

/// How often events are read.
const TICK_MS: u16 = 200;
/// How often it is written down how far events were read, at the most.
const POSITION_NS: u64 = 2_000_000_000;
/// How often it is looked for connections whose message is overdue.
const OVERDUE_NS: u64 = 2_000_000_000;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the address can't be had, or the pins are of another version at the start.
pub fn run(host: &Context, options: &Options, fetch: Option<Fetch>) -> Result<()> {
    let (pins, store) = (&host.pins, host.store.as_path());
    // Before there is a second thread, which would be killed by them.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().context("blocking signals")?;
    // Comes when somebody writes a core that is looked at.
    let leases: SigSet = [Signal::SIGIO].into_iter().collect();
    leases.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.context("waiting for signals")?;
    AttachedGuard::attached(pins)?;
    let listener = Listener::bind(&options.listen.0)?;
    let address = listener.address()?;
    if !address.ip().is_loopback() {
        notice::send(format!(
            "whoever reaches {address} can read what is counted, who is blocked and what devices sent"
        ));
    }
    let shared = Arc::new(ServeShared::new(pins, store, options));
    let mut sinks = Sinks::new(RuleLookup::new(pins, store));
    sinks::add(&mut sinks, options, pins, store);
    sinks.add(Box::new(Recent(shared.clone())));
    let router = dashboard::add(api::router(shared.clone()));
    let mut work = ServeLoop::new(shared, sinks)?;
    work.feeds_fail = feeds::start(host.clone(), fetch)?;
    // Before anybody asks.
    let mut status = work.tick()?;
    let answers = thread::Builder::new().name("http".to_owned()).spawn(move || listener.serve(router));
    let answers = answers.context("starting the thread of HTTP")?;
    notice::send(written(options));
    notice::send(format!("serving the dashboard at http://{address}/, metrics at http://{address}/metrics"));
    let mut supervisor = Supervisor::ready();
    loop {
        supervisor.alive(&status);
        if answers.is_finished() {
            return match answers.join() {
                Ok(Err(error)) => Err(error),
                _ => bail!("the thread of HTTP ended"),
            };
        }
        if has_come(&signals)? {
            supervisor.stopping();
            work.end();
            return Ok(());
        }
        status = work.tick()?;
    }
}

/// What is written, and where to: also without a word in the configuration file.
fn written(options: &Options) -> String {
    let history = options.history.0.as_ref().map(|file| format!("the history to {}", file.display()));
    let evidence = options.evidence.as_ref().map(|directory| format!("evidence to {}", directory.display()));
    let log = options.log.as_ref().map(|file| format!("events to {}", file.display()));
    let journal = options.journal.then(|| "events to the journal".to_owned());
    let all: Vec<String> = [history, evidence, log, journal].into_iter().flatten().collect();
    let what = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
    format!("writing {what}; [serve] of the configuration file says otherwise")
}

/// Whether a signal has come; waits for one until the next tick.
fn has_come(signals: &SignalFd) -> Result<bool> {
    let mut one = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut one, PollTimeout::from(TICK_MS)) {
        Err(Errno::EINTR) => Ok(false),
        polled => Ok(polled.context("waiting for signals")? > 0),
    }
}

/// The loop of events.
struct ServeLoop {
    shared: Arc<ServeShared>,
    sinks: Sinks,
    events: Events,
    history: Option<History>,
    slot: i64,
    saved: (u64, Option<Position>),
    reading: Health,
    keeping: Health,
    looking: Health,
    ending: Health,
    /// Whether a feed can't be read.
    feeds_fail: Arc<AtomicBool>,
    /// When it was last looked for connections that are overdue (`CLOCK_BOOTTIME`, nanoseconds).
    looked_ns: u64,
}

impl ServeLoop {
    fn new(shared: Arc<ServeShared>, sinks: Sinks) -> Result<ServeLoop> {
        let mut history = shared.options.history.0.as_deref().map(History::new);
        let mut keeping = Health::new("the history");
        let position = history.as_mut().map(History::position).transpose();
        let now_ns = Clock::now()?.boot_ns;
        let position = position.unwrap_or_else(|error| {
            tell(keeping.record(now_ns, &Err(error)));
            None
        });
        let events = Events::new(&shared.pins, &shared.store, position.flatten());
        Ok(ServeLoop {
            shared,
            sinks,
            events,
            history,
            slot: 0,
            saved: (now_ns, None),
            reading: Health::new("reading events"),
            keeping,
            looking: Health::new("looking at the guard"),
            ending: Health::new("ending connections whose message is not finished"),
            feeds_fail: Arc::default(),
            looked_ns: 0,
        })
    }

    /// One round; returns what there is to be said of the state.
    fn tick(&mut self) -> Result<String> {
        let clock = Clock::now()?;
        let (guard, looked) = match AttachedGuard::attached(&self.shared.pins) {
            Ok(guard) => (guard, Ok(())),
            Err(error) => (None, Err(error)),
        };
        tell(self.looking.record(clock.boot_ns, &looked));
        let (packets, read) = match self.events.read(guard.as_ref(), &clock) {
            Ok(packets) => (packets, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        tell(self.reading.record(clock.boot_ns, &read));
        tell(self.sinks.round(&packets, &clock));
        self.keep(guard.as_ref(), &clock);
        self.end_overdue(guard.is_some(), &clock);
        let feeds = ("feeds", self.feeds_fail.load(Ordering::Relaxed));
        let mut state = self.shared.state();
        state.missed = self.events.missed();
        let own =
            [&self.reading, &self.keeping, &self.looking, &self.ending].map(|one| (one.what(), one.fails()));
        state.parts = own.into_iter().chain([feeds]).chain(self.sinks.parts()).collect();
        Ok(match (&guard, looked) {
            (_, Err(error)) => format!("{error:#}"),
            (Some(_), _) => "the guard is attached".to_owned(),
            (None, _) => "waiting: no guard is attached".to_owned(),
        })
    }

    /// Ends connections whose message is overdue.
    fn end_overdue(&mut self, is_attached: bool, clock: &Clock) {
        if !is_attached || clock.boot_ns.saturating_sub(self.looked_ns) < OVERDUE_NS {
            return;
        }
        self.looked_ns = clock.boot_ns;
        let ended = unfinished::end_overdue(&self.shared.pins);
        let outcome = ended.map(|ended| {
            if let Some(first) = ended.first() {
                let count = ended.len();
                notice::send(format!(
                    "ended {count} connections whose message was not finished in time, such as one of {first}"
                ));
            }
        });
        tell(self.ending.record(clock.boot_ns, &outcome));
    }

    fn keep(&mut self, guard: Option<&AttachedGuard>, clock: &Clock) {
        let now = clock.wall_ms().div_euclid(1000);
        let slot = now.div_euclid(SLOT_SECS);
        if slot != self.slot {
            self.slot = slot;
            let reading = guard.map(|guard| reading(&self.shared, guard));
            if let Some(history) = &mut self.history {
                // What can't be read of a guard is told by whoever looks at it, and is a gap here.
                let outcome = history.take(now, reading.and_then(Result::ok));
                tell(self.keeping.record(clock.boot_ns, &outcome));
            }
        }
        if clock.boot_ns.saturating_sub(self.saved.0) >= POSITION_NS {
            self.save(clock.boot_ns);
        }
    }

    fn save(&mut self, now_ns: u64) {
        self.saved.0 = now_ns;
        let position = self.events.position();
        if let (Some(history), Some(new)) = (&mut self.history, &position)
            && position != self.saved.1
        {
            let outcome = history.set_position(new);
            tell(self.keeping.record(now_ns, &outcome));
            if outcome.is_ok() {
                self.saved.1 = position;
            }
        }
    }

    fn end(&mut self) {
        self.save(self.saved.0);
    }
}

fn reading(shared: &ServeShared, guard: &AttachedGuard) -> Result<HistorySample> {
    let pins = &shared.pins;
    let mut reading = HistorySample::new(guard.clone(), Clock::now()?.boot_ns);
    reading.add("interface", &counters::read(pins, false)?);
    // Without the store trunks have no names.
    for trunk in ops::trunk::stored(&shared.host()).unwrap_or_default() {
        reading.add("trunk", &counters::of_trunk(pins, &trunk)?);
    }
    // The names of maps may be those of another guard by now.
    match AttachedGuard::attached(pins)? {
        Some(now) if now == *guard => Ok(reading),
        _ => bail!("another guard was attached"),
    }
}

fn tell(texts: impl IntoIterator<Item = String>) {
    for text in texts {
        notice::send(text);
    }
}

#[cfg(test)]
mod tests {
    use sipguard_core::service::Keep;

    use super::*;

    #[test]
    fn what_is_written_is_told() {
        // What docs/guide/serve.md says of an empty configuration.
        let text = written(&Options::default());
        for part in [
            "the history to /var/lib/sipguard/history.db, ",
            "evidence to /var/lib/sipguard/evidence, ",
            "events to the journal; ",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let guide = include_str!("../../docs/guide/serve.md");
        for path in ["/var/lib/sipguard/history.db", "/var/lib/sipguard/evidence"] {
            assert!(guide.contains(path), "{path}");
        }
        let none = Options { history: Keep(None), evidence: None, journal: false, ..Options::default() };
        assert!(written(&none).starts_with("writing nothing; "));
    }
}
