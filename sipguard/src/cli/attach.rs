//! `sipguard attach IFACE...`

use std::io::{IsTerminal, Read, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use serde_json::json;
use sipguard_common::framer::LIMITS;

use super::config::{ConfigArgs, complaint, keep, refused, warn};
use super::{Span, parse_duration, trail, usage};
use crate::attach::{self, AttachOutcome, AttachRequest, Attached, DEFAULT_GRACE};
use crate::config::{Invalid, LastGood, LoadedConfig, last_good};
use crate::error::{Failure, Status};
use crate::output::{Format, rows};
use crate::pins::Pins;
use crate::protect::occupied;
use crate::settings::{self, EffectiveSettings, Malformed, Profile, SettingsRequest, XdpChoice};
use crate::status;
use crate::store::Counts;

/// A port, or `none`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TlsPort(pub(super) Option<u16>);

pub(super) fn parse_tls_port(text: &str) -> Result<TlsPort, String> {
    if text == "none" {
        return Ok(TlsPort(None));
    }
    match text.parse() {
        Ok(port) if port != 0 => Ok(TlsPort(Some(port))),
        _ => Err("a port is 1 to 65535, or `none`".to_owned()),
    }
}

fn parse_limit(text: &str) -> Result<(usize, u32), String> {
    let names = || LIMITS.iter().map(|limit| limit.name).collect::<Vec<_>>().join(", ");
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("NAME=VALUE is missing; names are {}", names()))?;
    let index = LIMITS.iter().position(|limit| limit.name == name);
    let index = index.ok_or_else(|| format!("no limit `{name}`; there are {}", names()))?;
    let (low, high) = LIMITS[index].range;
    match value.parse() {
        Ok(number) if (low..=high).contains(&number) => Ok((index, number)),
        _ => Err(format!("{name} is a number from {low} to {high}")),
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interfaces [default: those of the configuration file]
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,

    /// XDP mode [default: auto]
    #[arg(long, value_enum)]
    mode: Option<XdpChoice>,

    /// Count what would be dropped, and drop nothing
    #[arg(long)]
    monitor: bool,

    /// Guarded ports of the PBX, TCP and UDP; plain SIP only, since TLS, WebSocket or HTTP there would be
    /// reset [default: 5060, or those in force]
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,

    /// Ports of SIP over TLS, whose records are checked and not decrypted; `none` for none [default: 5061, or those in force]
    #[arg(long = "tls-port", value_name = "PORT", value_delimiter = ',', value_parser = parse_tls_port)]
    tls_ports: Vec<TlsPort>,

    /// Which checks are made and how large the limits are; docs/reference/checks.md lists them [default: default, or what is in force]
    #[arg(long, value_enum)]
    profile: Option<Profile>,

    /// Refuse messages whose lines end with LF alone [default: no, or what is in force]
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, require_equals = true, default_missing_value = "yes", value_parser = clap::builder::BoolishValueParser::new())]
    refuse_lf: Option<bool>,

    /// Sets one limit, such as line-bytes=8192; can be repeated
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    limits: Vec<(usize, u32)>,

    /// How many connections can be followed at once, about 370 bytes of kernel memory each [default: 65536, or what is in force]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1024..=4_000_000))]
    flows: Option<u32>,

    /// What happens to a malformed stream [default: reset, or what is in force]
    #[arg(long = "on-malformed", value_enum, value_name = "ACTION")]
    malformed: Option<Malformed>,

    /// How long connections older than the guard may be in the middle of a message [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Span>,

    /// Take it all back unless confirmed with Enter within this time (as `netplan try`)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    confirm: Option<Span>,

    /// Guard also ports of SSH here, and those that another protocol is known by
    #[arg(long)]
    force: bool,

    /// Where the configuration is invalid, attach with the one that was applied last, and say so with exit status 7: for a start of the
    /// machine that nobody watches
    #[arg(long)]
    or_last_good: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

impl Args {
    /// The configuration to attach with; with the mistakes of the present one where it is the last good one.
    fn configuration(&self, store: &Path) -> Result<(LoadedConfig, Option<(Invalid, String)>)> {
        const NOTHING: &str = "nothing was attached";
        if !self.or_last_good {
            return Ok((self.config.read(NOTHING)?, None));
        }
        let invalid = match self.config.load() {
            Ok(loaded) => {
                warn(&loaded.warnings);
                return Ok((loaded, None));
            }
            Err(invalid) => invalid,
        };
        match last_good::load(store) {
            Ok(LastGood { loaded, applied }) => Ok((loaded, Some((invalid, applied)))),
            Err(error) => Err(refused(&invalid, &format!("{NOTHING}, for {error:#}"))),
        }
    }
}

pub fn run(pins: &Pins, store: &Path, format: Format, args: &Args) -> Result<()> {
    if let Some(Span(None)) = args.confirm {
        return Err(usage("`--confirm` wants a time that ends, such as 60s: nothing was attached"));
    }
    let (LoadedConfig { config, sources, .. }, mistake) = args.configuration(store)?;
    let names = if args.interfaces.is_empty() { &config.interfaces } else { &args.interfaces };
    if names.is_empty() {
        return Err(usage(
            "attach to what? Name an interface, or `interfaces` in [guard] of the configuration file; `ip link` lists those that there are",
        ));
    }
    let request = AttachRequest {
        xdp: args.mode,
        settings: SettingsRequest {
            mode: args.monitor.then_some(settings::Mode::Monitor),
            malformed: args.malformed,
            ports: (!args.ports.is_empty()).then(|| args.ports.clone()),
            tls_ports: (!args.tls_ports.is_empty())
                .then(|| args.tls_ports.iter().filter_map(|port| port.0).collect()),
            profile: args.profile,
            refuse_lf: args.refuse_lf,
            single: args.limits.clone(),
        },
        flows: args.flows,
        grace: args.grace.map(|grace| grace.0.unwrap_or(DEFAULT_GRACE)),
        config: config.clone(),
        store: store.to_owned(),
    };
    if !args.force && !config.force_ports {
        refuse_ports(pins, &request)?;
    }
    // From here on no signal keeps what nobody has confirmed.
    let confirm = args.confirm.and_then(|Span(patience)| patience);
    let signals = confirm.map(|_| ends()).transpose()?;
    let outcome = attach::attach(pins, names, &request)?;
    let (undo, first) = (outcome.undo.clone(), outcome.first);
    let stays = || match &mistake {
        None if first => {
            keep(store, &sources);
            Ok(())
        }
        None => Ok(()),
        Some((invalid, applied)) => {
            let outcome = format!("attached with the last good one, which was applied on {applied}");
            Err(Failure::with(Status::LastGood, complaint(invalid, &outcome)))
        }
    };
    let told = tell(pins, store, format, outcome);
    let (Some(patience), Some(signals)) = (confirm, signals) else { return told.and_then(|()| stays()) };
    if told.is_ok() && confirmed(patience, &signals).unwrap_or(false) {
        return stays();
    }
    let did =
        undo.take_back(pins, store).context("not confirmed, and it could not be taken back as a whole")?;
    let counts = Counts { removed: undo.new.len(), moved: 1, ..Counts::default() };
    trail::tell(store, &did, "attach", std::slice::from_ref(&did), "not confirmed", counts);
    told?;
    Err(Failure::with(Status::Failed, format!("not confirmed: {did}")))
}

/// A port whose connections the guard would reset is no slip of the pen that an operator can mend over SSH.
fn refuse_ports(pins: &Pins, request: &AttachRequest) -> Result<()> {
    let in_force = if pins.are_attached() {
        pins.check().and_then(|()| EffectiveSettings::read(pins)).map(Some)?
    } else {
        None
    };
    let settings = if in_force.is_some() {
        request.settings.clone()
    } else {
        request.settings.or(&request.config.settings)
    };
    match occupied(&settings.new_ports(in_force.as_ref())) {
        None => Ok(()),
        Some(why) => Err(Failure::with(
            Status::Failed,
            format!(
                "{why}: nothing was attached; `--force` guards it all the same, or `force-ports = true` in [guard] of the configuration file"
            ),
        )),
    }
}

/// Says what was done.
fn tell(pins: &Pins, store: &Path, format: Format, outcome: AttachOutcome) -> Result<()> {
    for weakness in status::weaknesses(pins) {
        let why = outcome.uncounted.as_ref().filter(|_| weakness.what == "open-connections");
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        let _gone = writeln!(std::io::stderr(), "sipguard: weaker than it could be: {}{why}", weakness.text);
    }
    record(store, &outcome);
    let attached = outcome.interfaces;
    let (changed, settings) = (outcome.settings_changed, outcome.settings);
    let values = attached
        .iter()
        .map(|one| json!({ "interface": one.name, "mode": mode(one), "changed": one.new || changed }))
        .collect();
    rows(format, "sipguard.attach/1", values, || {
        let mut text: String = attached.iter().map(|one| sentence(one, changed)).collect();
        if changed {
            text += "the settings changed for all interfaces:\n";
            text.extend(settings.iter().map(|line| format!("  {line}\n")));
        }
        text
    })
}

/// Who attached to what, and which settings came with it.
fn record(store: &Path, outcome: &AttachOutcome) {
    let new: Vec<&Attached> = outcome.interfaces.iter().filter(|one| one.new).collect();
    let mut what: Vec<String> = new.iter().map(|one| format!("{} {}", one.name, mode(one))).collect();
    what.extend(outcome.settings.iter().cloned());
    if !what.is_empty() {
        let counts = Counts { added: new.len(), moved: outcome.settings.len(), ..Counts::default() };
        trail::tell(store, "attached as asked", "attach", &what, "", counts);
    }
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

/// Holds the signals back that would end the process, to be read.
fn ends() -> Result<SignalFd> {
    let mut ends = SigSet::empty();
    ends.extend([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT]);
    ends.thread_block().context("blocking signals")?;
    SignalFd::new(&ends).context("waiting for signals")
}

/// Waits for Enter. End of input and SIGHUP are no confirmation, they are what a cut connection looks like; nor is Ctrl-C.
fn confirmed(patience: Duration, signals: &SignalFd) -> Result<bool> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        // A terminal that is gone is found by the poll: `eprintln` would panic.
        let _gone = writeln!(std::io::stderr(), "Press Enter within {} s to keep it.", patience.as_secs());
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
