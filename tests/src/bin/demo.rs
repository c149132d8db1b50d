//! The incident, replayed without and with sipguard: `demo [--json FILE] [--seconds N]`.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use sipguard_tests::demo::{self, Options};

const USAGE: &str = "usage: demo [--json FILE] [--seconds N]

Plays the incident twice in network namespaces of its own, without and with sipguard, and prints what happened.
Needs root, and sipguard and fragile-pbx next to it (or named in SIPGUARD and FRAGILE_PBX).
The core dumps of an act take about 300 MB of the temporary directory while it lasts.

  --json FILE   write the figures as JSON as well
  --seconds N   how long each act lasts (default 15)";

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(()), |options| demo::run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for; `None` when it was only the usage.
fn options() -> Result<Option<Options>> {
    let mut options = Options { json: None, act: Duration::from_secs(15), only_act_one: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--help" || word == "-h" {
            println!("{USAGE}");
            return Ok(None);
        }
        let value = words.next().with_context(|| format!("{word} needs a value\n{USAGE}"))?;
        match (word.as_str(), value.as_str()) {
            ("--json", _) => options.json = Some(value.into()),
            ("--seconds", _) => {
                let seconds = value.parse().with_context(|| format!("{value} is no number of seconds"))?;
                options.act = Duration::from_secs(seconds);
            }
            ("--act", "one") => options.only_act_one = true,
            _ => bail!("unknown option {word}\n{USAGE}"),
        }
    }
    Ok(Some(options))
}
