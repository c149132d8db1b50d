//! Completion of what only this host knows: interfaces, trunks, who is blocked or stopped, and of the reasons. A shell asks this program for it,
//! so nothing here may fail aloud, nor wait.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use sipguard_common::Reason;
use sipguard_core::ops::{self, Context, DEFAULT_STORE};
use sipguard_core::pins::DEFAULT_DIR;

use super::args::Cli;

/// The variable by which a shell asks.
const VARIABLE: &str = "SIPGUARD_COMPLETE";
/// Senders that are offered.
const MOST: usize = 200;

/// Answers a shell. Whether that was it.
#[must_use]
pub fn answer() -> bool {
    CompleteEnv::with_factory(|| with_candidates(Cli::command()))
        .var(VARIABLE)
        .bin("sipguard")
        .completer("sipguard")
        .try_complete(std::env::args_os(), None)
        // A shell shows what goes wrong in the middle of a line.
        .unwrap_or(true)
}

/// Says of each argument what it may be, by what its value is called in the help.
fn with_candidates(command: Command) -> Command {
    let is_of_trunks = command.get_name() == "trunk" && command.has_subcommands();
    let command = command.mut_args(|arg| {
        let names = arg.get_value_names().unwrap_or_default();
        let what = names.first().map(ToString::to_string).unwrap_or_default();
        let candidates: fn() -> Vec<CompletionCandidate> = match (arg.get_id().as_str(), what.as_str()) {
            (_, "IFACE") => interfaces,
            ("trunk", _) => trunks,
            ("reasons", _) => reasons,
            (_, "REASON") => checks,
            (_, what) if what.starts_with("ADDR") && what.ends_with("REASON") => senders_and_reasons,
            (_, what) if what.starts_with("ADDR") => senders,
            _ => return arg,
        };
        arg.add(ArgValueCandidates::new(candidates))
    });
    command.mut_subcommands(|verb| {
        let names_trunk = is_of_trunks && ["set", "remove", "show"].contains(&verb.get_name());
        let verb = with_candidates(verb);
        if names_trunk { verb.mut_arg("name", |arg| arg.add(ArgValueCandidates::new(trunks))) } else { verb }
    })
}

/// The script by which a shell asks.
///
/// # Errors
/// When the shell is none that is known, or its script can't be written.
pub fn script(shell: &str) -> Result<String> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).context("no script for this shell")?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "sipguard", "sipguard", "sipguard", &mut script);
    written.context("writing the script")?;
    String::from_utf8(script).context("the script is no text")
}

/// The host as its environment says: options that were typed before are not known here.
fn host() -> Context {
    let path = |name: &str, default: &str| {
        std::env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    Context::new(path("SIPGUARD_PINS", DEFAULT_DIR), path("SIPGUARD_STORE", DEFAULT_STORE))
}

/// Interfaces of this machine, without the loopback.
fn interfaces() -> Vec<CompletionCandidate> {
    let Ok(all) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut names: Vec<String> =
        all.filter_map(|one| one.ok()?.file_name().into_string().ok()).filter(|name| name != "lo").collect();
    names.sort_unstable();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// Names of the trunks.
fn trunks() -> Vec<CompletionCandidate> {
    let stored = ops::trunk::stored(&host()).unwrap_or_default();
    stored.into_iter().map(|trunk| CompletionCandidate::new(trunk.name)).collect()
}

/// Addresses that were stopped, the last ones first.
fn senders() -> Vec<CompletionCandidate> {
    let stopped = ops::counters::by_port(&host()).unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for address in stopped.iter().map(|row| row.address.to_string()) {
        if !all.contains(&address) && all.len() < MOST {
            all.push(address);
        }
    }
    all.into_iter().map(CompletionCandidate::new).collect()
}

fn senders_and_reasons() -> Vec<CompletionCandidate> {
    senders().into_iter().chain(reasons()).collect()
}

/// Names of all reasons, with what they mean.
fn reasons() -> Vec<CompletionCandidate> {
    of_reasons(|_| true)
}

/// Names of the reasons of checks, which can be switched.
fn checks() -> Vec<CompletionCandidate> {
    of_reasons(Reason::is_check)
}

fn of_reasons(is_offered: impl Fn(Reason) -> bool) -> Vec<CompletionCandidate> {
    let offered = Reason::ALL.iter().filter(|reason| is_offered(**reason));
    let one = |reason: &Reason| {
        let text = reason.text().split('.').next().unwrap_or_default();
        CompletionCandidate::new(reason.name()).help(Some(text.into()))
    };
    offered.map(one).collect()
}
