//! What a packet costs: `bench [-o table|json] [--rounds N] [--runs N] [--only PART]`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sipguard_tests::bench::{self, Options};

const USAGE: &str = "usage: bench [-o table|json] [--rounds N] [--runs N] [--only PART]

Runs sipguard, xdp-filter and a bare XDP_DROP over the same frames and prints nanoseconds a run.
Needs root and xdp-filter of xdp-tools. A target that is missed is no failure.

  -o table|json  how to print it (default table)
  --rounds N     rounds, of which the median counts (default 101)
  --runs N       runs of each program in a round, at most 500000 (default 10000)
  --only PART    the frames whose name has PART, and no other table";

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(()), |options| bench::run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for; `None` when it was only the usage.
fn options() -> Result<Option<Options>> {
    let mut options = Options { rounds: 101, repeat: 10_000, json: false, only: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            println!("{USAGE}");
            return Ok(None);
        }
        let value = words.next().with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        let number = || value.parse().with_context(|| format!("{value} is no number"));
        match (word.as_str(), value.as_str()) {
            ("-o", "json") => options.json = true,
            ("-o", "table") => options.json = false,
            ("--only", _) => options.only = Some(value),
            ("--rounds", _) => options.rounds = number()?,
            ("--runs", _) => options.repeat = number()?,
            _ => bail!("unknown option {word} {value}\n{USAGE}"),
        }
    }
    Ok(Some(options))
}
