//! The incident, replayed: a device that sends malformed SIP over TCP, first against an unguarded PBX, then
//! against the same PBX behind sipguard.

mod act;
mod errant;
mod guard;
mod phones;
mod report;
mod trunk;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use self::{act::Stage, report::Report};
use crate::{guard::neighbour, interrupt, network::Network, scratch::Scratch};

/// What to play.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the figures are written as JSON.
    pub json: Option<PathBuf>,
    /// How long the errant device goes on in each act.
    pub act: Duration,
    /// Only the first act, for work on the demo itself.
    pub only_act_one: bool,
}

/// Plays both acts, prints the report, and fails when sipguard did not do what it is for. Namespaces, processes,
/// pins and files are gone when this returns.
pub fn run(options: &Options) -> Result<()> {
    interrupt::install()?;
    let find_sipguard = || neighbour("SIPGUARD", "sipguard");
    let sipguard = (!options.only_act_one).then(find_sipguard).transpose()?;
    let fragile_pbx = neighbour("FRAGILE_PBX", "fragile-pbx")?;
    let report = {
        say("laying out the network: an office behind NAT, the PBX, a trunk");
        let network = Network::new()?;
        let scratch = Scratch::new("demo")?;
        let stage =
            Stage { network: &network, scratch: &scratch, fragile_pbx: &fragile_pbx, duration: options.act };
        say("act one: the PBX without sipguard");
        let without = stage.play("one", None)?;
        let with = match &sipguard {
            None => None,
            Some(sipguard) => {
                say("act two: the same night with sipguard on both interfaces");
                Some(stage.play("two", Some(sipguard))?)
            }
        };
        Report { without, with }
    };
    println!("\n{report}");
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    let failed = report.failed_expectations();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the demo did not show what it should:\n  - {}", failed.join("\n  - "));
}

/// A line that lets an operator follow the story.
fn say(line: &str) {
    use std::{sync::LazyLock, time::Instant};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("[{:5.1} s] {line}", START.elapsed().as_secs_f32());
}

fn write_json(path: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_string_pretty(&report.json()).context("writing the figures as JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}
