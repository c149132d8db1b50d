//! Where events go.

use std::path::PathBuf;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use sipguard_core::clock::Clock;
use sipguard_core::named::named;
use sipguard_observe::events::RuleLookup;
use sipguard_observe::redact::RedactedPacket;
use sipguard_observe::tap::TapPacket;

use super::health::Health;

/// Takes events: writes them down, sends them, keeps them.
///
/// A sink works on the thread of all events, so it does not wait for others (the network, a lock) for more than some milliseconds.
/// It gets each event once, but those of the last two seconds again when `serve` was killed: an event is known by its number and time.
pub(crate) trait Sink: Send {
    /// Its name in what is told of it: one word, or a few.
    fn name(&self) -> &'static str;

    /// Takes an event, and what the sinks before it found out of it.
    ///
    /// # Errors
    /// When it can't; an operator is told so once, and the next event is handed over all the same.
    fn take(&mut self, _packet: &RedactedPacket, _context: &mut EventContext) -> Result<()> {
        Ok(())
    }

    /// Takes what another sink reports.
    ///
    /// # Errors
    /// As for [`Sink::take`].
    fn notice(&mut self, _note: &HostEvent) -> Result<()> {
        Ok(())
    }

    /// Is called some five times a second, behind the events, and also while no guard is attached. What it reports itself.
    ///
    /// # Errors
    /// As for [`Sink::take`].
    fn tick(&mut self, _now: &Clock) -> Result<Vec<HostEvent>> {
        Ok(Vec::new())
    }
}

/// What is known of an event beside its packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventContext {
    /// The rule that decided, in words.
    pub rule: Option<String>,
    /// Name of the file that has its packet.
    pub evidence: Option<String>,
}

/// Something that happened on this host: a crash of the PBX, a core that was moved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostEvent {
    /// When.
    pub time: Timestamp,
    /// What it is about.
    pub kind: HostEventKind,
    /// What happened, a line.
    pub text: String,
    /// The same for programs.
    pub data: HostEventData,
}

/// What happened, for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum HostEventData {
    /// The PBX began to run.
    Runs {
        /// Its process.
        pid: i32,
    },
    /// The PBX ended, and did not crash.
    Ended {
        /// Its process.
        pid: i32,
        /// How it ended.
        how: String,
    },
    /// The PBX crashed, and there is no report.
    Crashed {
        /// How it ended.
        how: String,
    },
    /// The PBX crashed.
    Reported {
        /// Path of the report for people.
        report: PathBuf,
        /// The report in a line.
        summary: String,
    },
    /// The PBX crashed, and its report can't be written.
    Unwritten {
        /// Why not.
        error: String,
        /// The report in a line.
        summary: String,
    },
    /// Something was done to a core dump.
    Core {
        /// Its path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Why it was done.
        why: String,
    },
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostEventKind {
    /// The PBX crashed.
    Crash,
    /// The PBX began to run, or ended in order.
    Pbx,
    /// Something was done to a core dump.
    Core,
}

named!(HostEventKind { Crash = "crash", Pbx = "pbx", Core = "core" });

/// All sinks, none of which can disturb the others. Each event is redacted once, and enriched with the rule that decided, before the first
/// sink gets it.
#[derive(Default)]
pub(crate) struct Sinks {
    entries: Vec<SinkEntry>,
    rules: Option<RuleLookup>,
}

struct SinkEntry {
    sink: Box<dyn Sink>,
    takes: Health,
    ticks: Health,
}

impl Sinks {
    /// None yet, with a lookup of the rules that decided.
    #[must_use]
    pub(crate) fn new(rules: RuleLookup) -> Sinks {
        Sinks { entries: Vec::new(), rules: Some(rules) }
    }

    /// Adds one.
    pub(crate) fn add(&mut self, sink: Box<dyn Sink>) {
        let name = sink.name();
        self.entries.push(SinkEntry { sink, takes: Health::new(name), ticks: Health::new(name) });
    }

    /// Hands over events, then the time, and then what the sinks report. Gives messages for the operator.
    pub(crate) fn round(&mut self, packets: &[TapPacket], now: &Clock) -> Vec<String> {
        let (mut messages, mut notices) = (Vec::new(), Vec::new());
        for packet in packets {
            let packet = RedactedPacket::new(packet);
            let rule = self.rules.as_mut().and_then(|rules| rules.of(&packet));
            let mut context = EventContext { rule, evidence: None };
            for SinkEntry { sink, takes, ticks } in &mut self.entries {
                let outcome = sink.take(&packet, &mut context);
                messages.extend(once(takes, ticks, now, &outcome));
            }
        }
        for SinkEntry { sink, takes, ticks } in &mut self.entries {
            let outcome = sink.tick(now).map(|said| notices.extend(said));
            messages.extend(once(ticks, takes, now, &outcome));
        }
        for notice in notices {
            for SinkEntry { sink, takes, ticks } in &mut self.entries {
                let outcome = sink.notice(&notice);
                messages.extend(once(takes, ticks, now, &outcome));
            }
            messages.push(notice.text);
        }
        messages
    }

    /// Each with its name, and whether it fails.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.entries.iter().map(|one| (one.sink.name(), one.takes.fails() || one.ticks.fails()))
    }
}

/// Takes an outcome of one half of a sink; while the other half fails nothing is told, for it was told already.
fn once(half: &mut Health, other: &Health, now: &Clock, outcome: &Result<()>) -> Option<String> {
    half.record(now.boot_ns, outcome).filter(|_| !other.fails())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;
    use sipguard_common::Reason;
    use sipguard_core::counters::Action;

    use super::*;

    struct Counting(Arc<AtomicUsize>);

    impl Sink for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn take(&mut self, _packet: &RedactedPacket, _context: &mut EventContext) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    struct Broken;

    impl Sink for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn take(&mut self, _packet: &RedactedPacket, _context: &mut EventContext) -> Result<()> {
            bail!("no room")
        }
    }

    struct Saying(Vec<String>);

    impl Sink for Saying {
        fn name(&self) -> &'static str {
            "saying"
        }

        fn tick(&mut self, now: &Clock) -> Result<Vec<HostEvent>> {
            let time = Timestamp::from_millisecond(now.wall_ms())?;
            Ok(vec![HostEvent {
                time,
                kind: HostEventKind::Core,
                text: "core moved".to_owned(),
                data: HostEventData::Runs { pid: 1 },
            }])
        }

        fn notice(&mut self, notice: &HostEvent) -> Result<()> {
            self.0.push(notice.text.clone());
            assert_eq!(self.0, ["core moved"]);
            Ok(())
        }
    }

    #[test]
    fn what_one_says_all_hear() {
        let mut sinks = Sinks::default();
        sinks.add(Box::new(Saying(Vec::new())));
        assert_eq!(sinks.round(&[], &Clock::now().unwrap()), ["core moved"]);
    }

    #[test]
    fn a_sink_that_fails_is_told_once_and_disturbs_no_other() {
        let count = Arc::new(AtomicUsize::new(0));
        let mut sinks = Sinks::default();
        sinks.add(Box::new(Broken));
        sinks.add(Box::new(Counting(count.clone())));
        let packet = TapPacket {
            number: 0,
            time_ns: 0,
            time: Timestamp::UNIX_EPOCH,
            count: 1,
            interface: "eth0".to_owned(),
            trunk: None,
            reason: Reason::BareLf,
            action: Action::Drop,
            client: None,
            header: None,
            frame: Vec::new(),
            frame_len: 0,
        };
        let now = Clock::now().unwrap();
        let messages = sinks.round(&[packet.clone(), packet.clone()], &now);
        assert_eq!(messages, ["broken fails, everything else goes on: no room"]);
        assert!(sinks.round(&[packet], &now).is_empty());
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert_eq!(sinks.parts().collect::<Vec<_>>(), [("broken", true), ("counting", false)]);
    }
}
