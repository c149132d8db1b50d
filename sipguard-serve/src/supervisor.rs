//! What systemd is told (sd_notify(3)). Without systemd nobody is.

use std::time::{Duration, Instant};

use sd_notify::{NotifyState, notify, watchdog_enabled};

/// The connection to it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    every: Option<Duration>,
    told: Option<Instant>,
    status: String,
}

impl Supervisor {
    /// Says that the service is up.
    #[must_use]
    pub(crate) fn ready() -> Supervisor {
        tell(&[NotifyState::Ready]);
        // Half of the time after which it kills.
        Supervisor { every: watchdog_enabled().map(|limit| limit / 2), told: None, status: String::new() }
    }

    /// Says how it is when that changed, and that the loop is alive when it is time to.
    pub(crate) fn alive(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&[NotifyState::Status(status)]);
        }
        let is_due = |every: Duration| self.told.is_none_or(|told| told.elapsed() >= every);
        if self.every.is_some_and(is_due) {
            self.told = Some(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Says that it ends.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// A supervisor that does not listen is not waited for: it kills by its own clock.
fn tell(states: &[NotifyState<'_>]) {
    let _unheard = notify(states);
}
