//! `capture`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use sipguard_core::disk::parse_size;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_observe::ops::capture::{Request, SenderFilter, To};

use super::usage;

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Stopped, or in `monitor` mode counted as such
    Drop,
    /// Passed
    Pass,
    /// Both
    #[default]
    Any,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write; `-` is standard output, where it goes without this too unless that is a terminal
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Writes over a file that is there already
    #[arg(long)]
    force: bool,

    /// For how long [default: until SIGINT]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    span: Option<Span>,

    /// Only from this address, prefix, or address and port
    #[arg(long = "src", value_name = "ADDR|CIDR|ADDR:PORT")]
    source: Option<SenderFilter>,

    /// What became of the packets; those that pass are those of guarded ports
    #[arg(long, value_enum, default_value_t)]
    verdict: Verdict,

    /// Also what goes out from or to guarded ports, whatever the verdict, so that calls are whole (sngrep); with `--src` what goes there
    #[arg(long)]
    both: bool,

    /// End after so many packets
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End when the file has so many bytes, such as 100M
    #[arg(long, alias = "limit", value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    max_size: u64,

    /// Leave secrets as they are; else credentials, tokens, cookies, keys of media and dialled digits, and what may be a part of one, are
    /// overwritten by `x`
    #[arg(long)]
    no_redact: bool,
}

impl Args {
    pub fn request(self) -> Result<Request> {
        let to = match self.write {
            Some(path) if path != Path::new("-") => To::File { path, force: self.force },
            _ if std::io::stdout().is_terminal() => {
                return Err(usage(
                    "a terminal can't show packets: name a file with `-w FILE`, or `| tshark -r -`",
                ));
            }
            _ => {
                let stdout = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned();
                To::Stream(stdout.context("opening standard output")?.into())
            }
        };
        Ok(Request {
            to,
            lasts: self.span.and_then(|span| span.0),
            source: self.source,
            dropped: self.verdict != Verdict::Pass,
            passed: self.verdict != Verdict::Drop,
            both: self.both,
            count: self.count,
            max_bytes: self.max_size,
            redact: !self.no_redact,
        })
    }
}
