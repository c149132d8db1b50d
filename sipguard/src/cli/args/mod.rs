//! What can be typed: one file a verb or a group of verbs. Each turns its arguments into the request of an operation.

pub mod attach;
pub mod bans;
pub mod capture;
pub mod checks;
pub mod config;
pub mod counters;
pub mod crash;
pub mod denial;
pub mod detach;
pub mod events;
pub mod feed;
pub mod guard;
pub mod import;
pub mod limit;
pub mod list;
pub mod lookup;
#[cfg(any(test, not(all(feature = "replay", feature = "serve", feature = "top"))))]
pub mod missing;
pub mod mode;
pub mod reload;
#[cfg(feature = "replay")]
pub mod replay;
pub mod rule;
pub mod scope;
#[cfg(feature = "serve")]
pub mod serve;
pub mod status;
pub mod targets;
#[cfg(feature = "top")]
pub mod top;
pub mod trunk;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sipguard_core::container::{ContainerName, Need};
use sipguard_core::error::{Failure, FailureKind};
use sipguard_core::ops::{Context, DEFAULT_STORE};
use sipguard_core::pins::DEFAULT_DIR;

#[cfg(not(feature = "replay"))]
use self::missing as replay;
#[cfg(not(feature = "serve"))]
use self::missing as serve;
#[cfg(not(feature = "top"))]
use self::missing as top;
use super::exit;
use super::printer::Format;

/// What the options that each verb takes are called in the help.
pub const EVERY_VERB: &str = "Options of every verb";

/// Drops malformed SIP on the network card, before the PBX sees it.
#[derive(Debug, Parser)]
#[command(name = "sipguard", version, max_term_width = 100, after_help = exit::HELP)]
pub struct Cli {
    /// Directory of the pins, on a bpffs
    #[arg(long, global = true, help_heading = EVERY_VERB, env = "SIPGUARD_PINS", default_value = DEFAULT_DIR, hide_env_values = true)]
    pub pins: PathBuf,

    /// File of the rules, which `attach` restores
    #[arg(long, global = true, help_heading = EVERY_VERB, value_name = "FILE", env = "SIPGUARD_STORE", default_value = DEFAULT_STORE, hide_env_values = true)]
    pub store: PathBuf,

    /// The guard of a container instead of the host's, in its network namespace, with pins and rules of its own beside those of the host: a name
    /// that docker, podman, systemd-nspawn, lxc or `ip netns` knows, ENGINE:NAME, the number of one of its processes, or NAME=PID
    #[arg(long, global = true, help_heading = EVERY_VERB, value_name = "NAME|PID", env = "SIPGUARD_CONTAINER", hide_env_values = true)]
    container: Option<ContainerName>,

    /// How to print
    #[arg(short, long, global = true, help_heading = EVERY_VERB, value_enum, default_value_t)]
    output: Format,

    /// The same as `--output json`
    #[arg(short, long, global = true, help_heading = EVERY_VERB, conflicts_with = "output")]
    json: bool,

    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// Whether it is the guard of a container that is worked on.
    pub fn is_of_container(&self) -> bool {
        self.container.is_some()
    }

    /// The guard that is worked on, in whose network namespace this process is from now on.
    pub fn host(&self) -> Result<Context> {
        let Some(container) = &self.container else { return Ok(Context::new(&self.pins, &self.store)) };
        let need = match &self.verb {
            Verb::Attach(_) | Verb::Upgrade => Need::Running,
            // They dial, and the last one listens, where the host does.
            Verb::Feed(_) | Verb::Serve(_) => Need::Outside,
            _ => Need::IfRunning,
        };
        Context::of_container(&self.pins, &self.store, container, need)
    }

    /// How to print.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Attach to interfaces; the filter then stays until `detach`
    Attach(attach::Args),
    /// Put the programs of this build in the place of those that filter, without a gap; settings, rules and connections stay
    Upgrade,
    /// Detach from interfaces
    Detach(detach::Args),
    /// Show what is attached, in which mode, and what passes unchecked
    Status(status::Args),
    /// Block addresses and prefixes, one device behind an address, a SIP identity or a user agent
    #[command(alias = "ban")]
    Block(rule::BlockArgs),
    /// Lift blocks and bans
    #[command(alias = "unban")]
    Unblock(rule::UnblockArgs),
    /// Allow addresses and prefixes: no block of a shorter prefix holds for them, and nothing automatic blocks them
    Allow(rule::AllowArgs),
    /// End allowances
    Unallow(rule::UnallowArgs),
    /// Deny a transport or a method to all trunks, or to all devices; without arguments show what is denied
    Deny(denial::DenyArgs),
    /// Permit what was denied
    Permit(denial::PermitArgs),
    /// Define which addresses are trunks, and what they may send; without a verb list them
    Trunk(trunk::Args),
    /// Limit how much devices, or a trunk, may send; without a verb list the limits
    Limit(limit::Args),
    /// Show or change when a sender of malformed streams is banned; `list ban` shows who is, `unblock` lifts
    Bans(bans::Args),
    /// Let a check of messages refuse, only count, or not be made: for everybody, for devices, or for a trunk; without a verb
    /// list what is set
    Checks(checks::Args),
    /// List the rules, in force or stored for the next `attach`
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show which rule decides about an address, a SIP identity or a user agent
    Lookup(lookup::Args),
    /// Show what a reason means, what holds now, and how to let pass what it refuses; of all else what `lookup` shows
    Explain(lookup::Args),
    /// Block what lists of others have, read again and again by `serve`; without a verb list them
    Feed(feed::Args),
    /// Import rules from a list: all of it, or none when there is a mistake in it
    Import(import::ImportArgs),
    /// Export the rules as a list, for `import`, ipset or others
    Export(import::ExportArgs),
    /// Show who changed which rules, and when
    #[command(visible_alias = "audit")]
    Log(list::LogArgs),
    /// Show what was counted, by reason, by sender or by trunk
    Counters(counters::Args),
    /// Show what was stopped, packet by packet, from the kernel's memory of the last 1024 events
    Events(events::Args),
    /// Write what comes in to guarded ports, and what is stopped, to a file or pipe, as pcapng; with `--both` what the PBX sends too
    Capture(capture::Args),
    /// Watch live who is stopped and why, and block the senders you select
    #[cfg_attr(not(feature = "top"), command(hide = true))]
    Top(top::Args),
    /// Show or set the mode: enforce drops, monitor only counts what would be dropped
    Mode(mode::Args),
    /// Check the configuration file, and change nothing
    Check(config::CheckArgs),
    /// Apply the configuration file: what it names, and no more
    Reload(reload::Args),
    /// Show which device crashed the PBX: the reports of crashes, or one of just now; without a verb list the reports
    Crash(crash::Args),
    /// Show what would be stopped of a capture, and why: exit status 8 when anything would be, 1 when it can't be judged
    #[cfg_attr(not(feature = "replay"), command(hide = true))]
    Replay(replay::Args),
    /// Serve metrics, events and a history over HTTP, until it is stopped; the filter does not depend on it
    #[cfg_attr(not(feature = "serve"), command(hide = true))]
    Serve(serve::Args),
    /// Show what the configuration file may contain, and what is in effect; without a verb the latter
    Config(config::Args),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory; it is made where it is missing
        directory: PathBuf,
    },
    /// Print the version and the ABI version of the pins
    Version,
}

/// The failure of an input mistake that clap did not see.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Failure::with(FailureKind::Usage, text)
}
