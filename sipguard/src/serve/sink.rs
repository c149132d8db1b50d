//! Where events go.

use anyhow::Result;

use super::trouble::Trouble;
use crate::clock::Clock;
use crate::tap::Packet;

/// Takes events: writes them down, sends them, keeps them.
///
/// A sink works on the thread of all events, so it does not wait for others (the network, a lock) for more than some milliseconds.
/// It gets each event once, but those of the last two seconds again when `serve` was killed: an event is known by its number and time.
pub trait Sink: Send {
    /// Its name in what is told of it: one word, or a few.
    fn name(&self) -> &'static str;

    /// Takes an event.
    ///
    /// # Errors
    /// When it can't; an operator is told so once, and the next event is handed over all the same.
    fn take(&mut self, packet: &Packet) -> Result<()>;

    /// Is called some five times a second, behind the events, and also while no guard is attached.
    ///
    /// # Errors
    /// As for [`Sink::take`].
    fn tick(&mut self, _now: &Clock) -> Result<()> {
        Ok(())
    }
}

/// All sinks, none of which can disturb the others.
#[derive(Default)]
pub struct Sinks(Vec<Placed>);

struct Placed {
    sink: Box<dyn Sink>,
    takes: Trouble,
    ticks: Trouble,
}

impl Sinks {
    /// Adds one.
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        let name = sink.name();
        self.0.push(Placed { sink, takes: Trouble::new(name), ticks: Trouble::new(name) });
    }

    /// Hands over events, and then the time. What an operator is to be told.
    pub fn round(&mut self, packets: &[Packet], now: &Clock) -> Vec<String> {
        let mut told = Vec::new();
        for Placed { sink, takes, ticks } in &mut self.0 {
            for packet in packets {
                told.extend(takes.note(now.boot_ns, &sink.take(packet)));
            }
            told.extend(ticks.note(now.boot_ns, &sink.tick(now)));
        }
        told
    }

    /// Each with its name, and whether it fails.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.0.iter().map(|one| (one.sink.name(), one.takes.fails() || one.ticks.fails()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;
    use jiff::Timestamp;
    use sipguard_common::Reason;

    use super::*;
    use crate::counters::Action;

    struct Counting(Arc<AtomicUsize>);

    impl Sink for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn take(&mut self, _packet: &Packet) -> Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    struct Broken;

    impl Sink for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn take(&mut self, _packet: &Packet) -> Result<()> {
            bail!("no room")
        }
    }

    #[test]
    fn a_sink_that_fails_is_told_once_and_disturbs_no_other() {
        let count = Arc::new(AtomicUsize::new(0));
        let mut sinks = Sinks::default();
        sinks.add(Box::new(Broken));
        sinks.add(Box::new(Counting(count.clone())));
        let packet = Packet {
            number: 0,
            time_ns: 0,
            time: Timestamp::UNIX_EPOCH,
            count: 1,
            interface: "eth0".to_owned(),
            trunk: None,
            reason: Reason::BareLf,
            action: Action::Drop,
            header: None,
            frame: Vec::new(),
            frame_len: 0,
        };
        let now = Clock::now().unwrap();
        let told = sinks.round(&[packet.clone(), packet.clone()], &now);
        assert_eq!(told, ["broken fails, everything else goes on: no room"]);
        assert!(sinks.round(&[packet], &now).is_empty());
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert_eq!(sinks.parts().collect::<Vec<_>>(), [("broken", true), ("counting", false)]);
    }
}
