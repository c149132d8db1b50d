//! `sipguard replay FILE...`: what would be stopped of a capture. Touches no interface and no pin.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::attach::{TlsPort, parse_tls_port};
use super::config::{refused, warn};
use super::plural;
use crate::config::{self, Config};
use crate::error::{Failure, Status};
use crate::output::{Format, rows};
use crate::replay::{DEFAULT_FLOWS, ReplayReport, ReplayRequest, replay};
use crate::settings::{EffectiveSettings, Profile, SettingsRequest};
use crate::store::dry_run;
use crate::view::{self, schema};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Captures, pcap or pcapng
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// An address of the PBX: what it sent itself is not judged; can be repeated [default: as the capture says, or guessed]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pbx: Vec<IpAddr>,

    /// Ports, profile, checks, trunks and denials of this configuration file, with `conf.d/*.toml` beside it [default: the built-in
    /// defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The rules of the store as well: blocks, allowances, trunks and denials
    #[arg(long)]
    with_store: bool,

    /// Guarded ports, TCP and UDP [default: 5060, or those of the configuration file]
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,

    /// Ports of SIP over TLS; `none` for none [default: 5061, or those of the configuration file]
    #[arg(long = "tls-port", value_name = "PORT", value_delimiter = ',', value_parser = parse_tls_port)]
    tls_ports: Vec<TlsPort>,

    /// Which checks are made and how large the limits are; docs/reference/checks.md lists them [default: default, or that of the configuration
    /// file]
    #[arg(long, value_enum)]
    profile: Option<Profile>,

    /// Of each malformed message also the line at fault, and its offset in the payload of the packet
    #[arg(long)]
    explain: bool,

    /// How many connections can be followed at once, about 370 bytes of kernel memory each
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_FLOWS, value_parser = clap::value_parser!(u32).range(1024..=4_000_000))]
    flows: u32,
}

pub fn run(store: &Path, format: Format, args: &Args) -> Result<()> {
    let request = request(store, args)?;
    let mut reports = Vec::new();
    for file in &args.files {
        let bar = progress(std::fs::metadata(file).map_or(0, |about| about.len()));
        let report = replay(file, &request, &|bytes| bar.set_position(bytes));
        bar.finish_and_clear();
        reports.push((file, report?));
    }
    let values = reports.iter().map(|(_, report)| view::json(&report.view())).collect();
    rows(format, schema::REPLAY, values, || {
        // Of a file in which nothing could be read there is only the error.
        let told = reports.iter().filter(|(_, report)| report.packets > 0 || report.damage.is_none());
        told.map(|(_, report)| report.text()).collect::<Vec<_>>().join("\n")
    })?;
    let found: Vec<String> = reports.iter().flat_map(|(file, report)| sentences(file, report)).collect();
    if found.is_empty() { Ok(()) } else { Err(Failure::with(Status::Failed, found.join("\nsipguard: "))) }
}

fn request(store: &Path, args: &Args) -> Result<ReplayRequest> {
    let config = match &args.config {
        Some(path) => {
            let loaded =
                config::load(Some(path)).map_err(|invalid| refused(&invalid, "nothing was replayed"))?;
            warn(&loaded.warnings);
            loaded.config
        }
        None => Config::default(),
    };
    let said = SettingsRequest {
        ports: (!args.ports.is_empty()).then(|| args.ports.clone()),
        tls_ports: (!args.tls_ports.is_empty())
            .then(|| args.tls_ports.iter().filter_map(|port| port.0).collect()),
        profile: args.profile,
        ..SettingsRequest::default()
    };
    let settings = said.or(&config.settings).of(&EffectiveSettings::default());
    let rules =
        dry_run(args.with_store.then_some(store), |change| config::apply(change, &config, None).map(drop))?;
    Ok(ReplayRequest { pbx: args.pbx.clone(), flows: args.flows, settings, rules, explain: args.explain })
}

/// Why the exit status is 1.
fn sentences(file: &Path, report: &ReplayReport) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(damage) = &report.damage {
        let judged = if report.packets == 0 { "" } else { "; the report is of the packets before" };
        all.push(format!("{damage}{judged}"));
    }
    if report.stopped() > 0 {
        let stopped = plural(usize::try_from(report.stopped()).unwrap_or(usize::MAX), "packet");
        all.push(format!("{}: {stopped} would be stopped", file.display()));
    }
    all
}

fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template("{bar:40} {percent}% {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
