//! `sipguard attach IFACE...`

use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use serde_json::json;
use sipguard_common::abi::{ACTION_DROP, ACTION_RESET, MODE_ENFORCE, MODE_MONITOR};

use super::{Span, parse_duration};
use crate::attach::{self, Attached, Wish};
use crate::error::{Failure, Status};
use crate::output::{Format, rows};
use crate::pins::Pins;

/// XDP mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Native where the driver can, generic elsewhere
    #[default]
    Auto,
    /// In the driver only
    Native,
    /// In the kernel's stack, with every driver
    Generic,
}

/// What happens to a malformed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Malformed {
    /// Reset its connection: the PBX's socket closes cleanly
    Reset,
    /// Drop its segments
    Drop,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interfaces
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,

    /// XDP mode
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,

    /// Count what would be dropped, and drop nothing
    #[arg(long)]
    monitor: bool,

    /// Guarded ports, TCP and UDP, on either side of the connection; plain SIP only, since TLS, WebSocket or HTTP on a guarded TCP
    /// port would be reset [default: 5060, or those in force]
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,

    /// What happens to a malformed stream [default: reset, or what is in force]
    #[arg(long = "on-malformed", value_enum, value_name = "ACTION")]
    malformed: Option<Malformed>,

    /// How long connections older than the guard may be in the middle of a message
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    grace: Span,

    /// Detach again unless confirmed with Enter within this time (as `netplan try`)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    confirm: Option<Span>,
}

pub fn run(pins: &Pins, format: Format, args: &Args) -> Result<()> {
    let wish = Wish {
        native: match args.mode {
            Mode::Auto => None,
            Mode::Native => Some(true),
            Mode::Generic => Some(false),
        },
        mode: args
            .monitor
            .then_some(MODE_MONITOR)
            .or_else(|| pins.slots().is_empty().then_some(MODE_ENFORCE)),
        action: args.malformed.map(|malformed| match malformed {
            Malformed::Reset => ACTION_RESET,
            Malformed::Drop => ACTION_DROP,
        }),
        ports: (!args.ports.is_empty()).then(|| args.ports.clone()),
        grace: args.grace.0.unwrap_or(Duration::from_secs(60)),
    };
    let outcome = attach::attach(pins, &args.interfaces, &wish)?;
    let attached = outcome.interfaces;
    let changed = outcome.settings_changed;
    let values = attached
        .iter()
        .map(|one| json!({ "interface": one.name, "mode": mode(one), "changed": one.new || changed }))
        .collect();
    rows(format, "sipguard.attach/1", values, || {
        let mut text: String = attached.iter().map(|one| sentence(one, changed)).collect();
        if changed {
            text += "the settings changed for all interfaces; `sipguard status` shows them\n";
        }
        text
    })?;
    if let Some(Span(Some(patience))) = args.confirm
        && !confirmed(patience)?
    {
        let new: Vec<String> = attached.into_iter().filter(|one| one.new).map(|one| one.name).collect();
        if !new.is_empty() {
            attach::detach(pins, Some(&new))?;
        }
        return Err(Failure::with(
            Status::Failed,
            format!("not confirmed: detached again from {}", new.join(", ")),
        ));
    }
    Ok(())
}

fn mode(one: &Attached) -> &'static str {
    if one.native { "native" } else { "generic" }
}

fn sentence(one: &Attached, settings_changed: bool) -> String {
    let name = &one.name;
    if !one.new {
        let unchanged = if settings_changed { "" } else { ", nothing changed" };
        return format!("{name}: attached already{unchanged}\n");
    }
    let why = if one.native_errno != 0 {
        " (its driver can't run XDP natively; `sipguard status` says why)"
    } else {
        ""
    };
    format!("{name}: attached in {} mode{why}\n", mode(one))
}

/// Waits for Enter. End of input and SIGHUP are no confirmation, they are what a cut connection looks like; nor is Ctrl-C.
fn confirmed(patience: Duration) -> Result<bool> {
    let mut ends = SigSet::empty();
    ends.extend([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    ends.thread_block().context("blocking signals")?;
    let signals = SignalFd::new(&ends).context("waiting for signals")?;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Press Enter within {} s to keep it.", patience.as_secs());
    }
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            PollTimeout::try_from(left.as_millis().min(60_000) as i32 + 1).context("waiting for Enter")?;
        let mut fds = [stdin.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut fds, timeout).context("waiting for Enter")? == 0 {
            continue;
        }
        if fds[1].any() == Some(true) {
            return Ok(false);
        }
        let mut byte = [0];
        return Ok(matches!(stdin.lock().read(&mut byte), Ok(1)));
    }
}
