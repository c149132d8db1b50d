//! SIGINT and SIGTERM turned into an error that unwinds through every guard.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP only raise a flag, which [`pause`] and [`check`] turn into an error.
///
/// Namespaces and processes are removed by destructors, and the default action of these signals runs none.
pub fn install() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(raise), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catching {signal}"))?;
    }
    Ok(())
}

/// Fails once an interrupt was asked for.
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps for `time`, or fails soon after an interrupt.
pub fn pause(time: Duration) -> Result<()> {
    const STEP: Duration = Duration::from_millis(50);
    let until = Instant::now() + time;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

extern "C" fn raise(_signal: nix::libc::c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}
