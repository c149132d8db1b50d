//! `replay`.

use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use sipguard_replay::{DEFAULT_FLOWS, Request};

use super::guard::GuardArgs;
use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Captures, pcap or pcapng; `-` is standard input. Each is judged by itself: put the parts of one together first (mergecap)
    #[arg(required = true, value_name = "FILE|-")]
    files: Vec<PathBuf>,

    /// An address of the PBX: what it sent itself is not checked; can be repeated [default: as the capture says, or guessed]
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pbx: Vec<IpAddr>,

    /// Ports, profile, checks, trunks and denials of this configuration file, with `conf.d/*.toml` beside it [default: the built-in
    /// defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The rules of the store as well: blocks, allowances, trunks, denials, and what `checks set` has set
    #[arg(long)]
    with_store: bool,

    /// Of each malformed message the line at fault, and its offset in the payload of the packet; else of the first of each address and
    /// reason
    #[arg(long)]
    explain: bool,

    #[command(flatten)]
    guard: GuardArgs,

    /// How many connections can be followed at once, about 370 bytes of kernel memory each
    #[arg(long, value_name = "COUNT", default_value_t = DEFAULT_FLOWS, value_parser = clap::value_parser!(u32).range(1024..=4_000_000))]
    flows: u32,
}

impl Args {
    /// With what captures are replayed, and the captures.
    pub fn request(self) -> Result<(Request, Vec<PathBuf>)> {
        let Args { files, pbx, config, with_store, explain, guard, flows } = self;
        match files.iter().filter(|file| file.as_os_str() == "-").count() {
            0 => {}
            1 if std::io::stdin().is_terminal() => {
                return Err(usage("a terminal sends no capture: `tcpdump -w - ... | sipguard replay -`"));
            }
            1 => {}
            _ => return Err(usage("standard input (`-`) can be read once only")),
        }
        Ok((Request { pbx, config, with_store, explain, settings: guard.settings(), flows }, files))
    }
}
