//! The command line: what was typed, one file a verb.

mod allow;
mod attach;
mod bans;
mod block;
mod capture;
mod check;
mod config;
mod counters;
mod crash;
mod deny;
mod detach;
mod events;
mod export;
mod import;
#[cfg(test)]
mod json_page;
mod limit;
mod limit_list;
mod list;
mod log;
mod lookup;
mod mode;
mod pages;
mod privilege;
mod reload;
mod replay;
mod serve;
mod status;
mod targets;
mod top;
mod trail;
mod trunk;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use crate::duration::{Span, parse_duration};
use crate::error::{Status, status_of};
use crate::output::{Format, print};
use crate::pins::{DEFAULT_DIR, Pins};
use crate::store::DEFAULT_FILE;

/// Drops malformed SIP on the network card, before the PBX sees it.
#[derive(Debug, Parser)]
#[command(name = "sipguard", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    /// Directory of the pins, on a bpffs
    #[arg(long, global = true, env = "SIPGUARD_PINS", default_value = DEFAULT_DIR, hide_env_values = true)]
    pins: PathBuf,

    /// File of the rules, which `attach` restores
    #[arg(long, global = true, value_name = "FILE", env = "SIPGUARD_STORE", default_value = DEFAULT_FILE, hide_env_values = true)]
    store: PathBuf,

    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,

    /// The same as `--output json`
    #[arg(short, long, global = true, conflicts_with = "output")]
    json: bool,

    #[command(subcommand)]
    verb: Verb,
}

const EXIT_STATUS: &str = "Exit status: 0 done or nothing to do, 1 failed, 2 usage, 3 not attached, 4 privileges missing, \
5 kernel or driver can't, \
6 configuration invalid, 7 done with the last good configuration, for the present one is invalid.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Attach to interfaces; the filter then stays until `detach`
    Attach(attach::Args),
    /// Detach from interfaces
    Detach(detach::Args),
    /// Show what is attached, how, and why so
    Status(status::Args),
    /// Block hosts and prefixes, every protocol of theirs, or one device behind an address
    #[command(visible_alias = "ban")]
    Block(block::BlockArgs),
    /// Lift blocks
    #[command(visible_alias = "unban")]
    Unblock(block::UnblockArgs),
    /// Allow hosts and prefixes: no block of a shorter prefix holds for them, and nothing automatic blocks them
    Allow(allow::AllowArgs),
    /// End allowances
    Unallow(allow::UnallowArgs),
    /// Deny a transport or a method to all trunks, or to all devices; without arguments show what is denied
    Deny(deny::DenyArgs),
    /// Permit what was denied
    Permit(deny::PermitArgs),
    /// Say which addresses are trunks, and what they may send
    Trunk(trunk::Args),
    /// Limit how much a source, or a trunk, may send
    Limit(limit::Args),
    /// Say when a sender of malformed streams is banned; `list ban` shows who is, `unblock` lifts
    Bans(bans::Args),
    /// List the rules, in force or stored for the next `attach`
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Say which rule decides about an address
    Lookup(lookup::Args),
    /// Take rules from a list: all of it, or none when there is a mistake in it
    Import(import::Args),
    /// Write the rules as a list, for `import`, ipset or others
    Export(export::Args),
    /// Show who changed which rules, and when
    #[command(visible_alias = "audit")]
    Log(log::Args),
    /// Show what was counted, by reason, by source or by trunk
    Counters(counters::Args),
    /// Show what was stopped, packet by packet, from the kernel's memory of the last 1024 events
    Events(events::Args),
    /// Write packets of guarded ports, and what is stopped, to a file or pipe, as pcapng
    Capture(capture::Args),
    /// Watch it live: who is stopped and why; blocks whom you point at
    Top(top::Args),
    /// Show or set the mode: enforce drops, monitor only counts what would be dropped
    Mode(mode::Args),
    /// Judge the configuration file, and change nothing
    Check(check::Args),
    /// Apply the configuration file: what it names, and no more
    Reload(reload::Args),
    /// Say which device crashed the PBX: the reports of crashes, or one of just now
    Crash(crash::Args),
    /// Say what would be stopped of a capture, and why; no interface is touched
    Replay(replay::Args),
    /// Serve metrics, events and a history over HTTP, until it is stopped; the filter does not depend on it
    Serve(serve::Args),
    /// Show what the configuration file may say, and what is in effect
    Config(config::Args),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version and the ABI version of the pins
    Version,
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory; it is made where it is missing
        directory: PathBuf,
    },
}

/// Runs the command line.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own: 0 for help and version, 2 for usage.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sipguard: {error:#}");
            ExitCode::from(status_of(&error) as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    let pins = Pins::new(&cli.pins);
    let store = cli.store.as_path();
    let format = if cli.json { Format::Json } else { cli.output };
    if !matches!(
        cli.verb,
        Verb::Completion { .. } | Verb::Version | Verb::Man { .. } | Verb::Check(_) | Verb::Config(_)
    ) {
        privilege::check()?;
    }
    match cli.verb {
        Verb::Attach(args) => attach::run(&pins, store, format, &args),
        Verb::Detach(args) => detach::run(&pins, store, format, &args),
        Verb::Status(args) => status::run(&pins, store, format, &args),
        Verb::Block(args) => block::block(&pins, store, format, &args),
        Verb::Unblock(args) => block::unblock(&pins, store, format, &args),
        Verb::Allow(args) => allow::allow(&pins, store, format, &args),
        Verb::Unallow(args) => allow::unallow(&pins, store, format, &args),
        Verb::Deny(args) => deny::deny(&pins, store, format, &args),
        Verb::Permit(args) => deny::permit(&pins, store, format, &args),
        Verb::Trunk(args) => trunk::run(&pins, store, format, &args),
        Verb::Limit(args) => limit::run(&pins, store, format, &args),
        Verb::Bans(args) => bans::run(&pins, store, format, &args),
        Verb::List(args) => list::run(&pins, store, format, &args),
        Verb::Import(args) => import::run(&pins, store, format, &args),
        Verb::Export(args) => export::run(store, &args),
        Verb::Log(args) => log::run(store, format, &args),
        Verb::Lookup(args) => lookup::run(&pins, store, format, &args),
        Verb::Counters(args) => counters::run(&pins, store, format, &args),
        Verb::Events(args) => events::run(&pins, store, format, &args),
        Verb::Capture(args) => capture::run(&pins, store, format, &args),
        Verb::Top(args) => top::run(&pins, store, format, &args),
        Verb::Mode(args) => mode::run(&pins, store, format, &args),
        Verb::Check(args) => check::run(format, &args),
        Verb::Reload(args) => reload::run(&pins, store, format, &args),
        Verb::Crash(args) => crash::run(&pins, store, format, &args),
        Verb::Replay(args) => replay::run(store, format, &args),
        Verb::Serve(args) => serve::run(&pins, store, &args),
        Verb::Config(args) => config::run(format, &args),
        Verb::Version => version::run(format),
        Verb::Man { directory } => pages::man(&directory),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sipguard", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// `n thing` or `n things`.
fn plural(count: usize, thing: &str) -> String {
    if count == 1 {
        return format!("1 {thing}");
    }
    format!("{count} {thing}s")
}

/// The status of an input mistake that clap did not see.
fn usage(text: impl Into<String>) -> anyhow::Error {
    crate::error::Failure::with(Status::Usage, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
