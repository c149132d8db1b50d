//! `attach`.

use std::time::Duration;

use anyhow::Result;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::attach::Request;
use sipguard_core::settings::{DEFAULT_GRACE, Malformed, Mode, SettingsRequest, XdpChoice};

use super::config::ConfigArgs;
use super::guard::GuardArgs;
use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interfaces [default: those of the configuration file]
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,

    /// Where XDP runs: in the driver (native) or in the kernel's stack (generic) [default: auto]
    #[arg(long, alias = "mode", value_enum)]
    xdp_mode: Option<XdpChoice>,

    /// Count what would be dropped, and drop nothing
    #[arg(long)]
    monitor: bool,

    #[command(flatten)]
    guard: GuardArgs,

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

    /// Where the configuration is invalid, attach with the one that was applied last, and exit with status 7: for a start of the
    /// machine that nobody watches
    #[arg(long)]
    or_last_good: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

impl Args {
    /// The request, and within which time it is to be confirmed.
    pub fn request(self) -> Result<(Request, Option<Duration>)> {
        if let Some(Span(None)) = self.confirm {
            return Err(usage("`--confirm` needs a time that ends, such as 60s: nothing was attached"));
        }
        let settings = SettingsRequest {
            mode: self.monitor.then_some(Mode::Monitor),
            malformed: self.malformed,
            ..self.guard.settings()
        };
        let request = Request {
            interfaces: self.interfaces,
            xdp: self.xdp_mode,
            settings,
            flows: self.flows,
            grace: self.grace.map(|grace| grace.0.unwrap_or(DEFAULT_GRACE)),
            force: self.force,
            or_last_good: self.or_last_good,
            config: self.config.file,
        };
        Ok((request, self.confirm.and_then(|Span(patience)| patience)))
    }
}
