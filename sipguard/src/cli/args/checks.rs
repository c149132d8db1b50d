//! `checks`: which faults of messages are refused, only counted, or not looked for.

use clap::Subcommand;
use sipguard_common::Reason;
use sipguard_core::check::{self, CheckScope, CheckState, Switch};
use sipguard_core::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Let a check refuse, only count what it would refuse, or not be made
    Set(SetArgs),
    /// Show the checks that are set
    #[command(visible_alias = "ls")]
    List,
    /// Take back what was set: of one check, or of all
    #[command(visible_alias = "rm")]
    Clear(ClearArgs),
}

#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// The check, by the reason that `counters` shows, such as bad-number; `explain` says what each is about
    #[arg(value_name = "REASON", value_parser = check::parse)]
    reason: Reason,

    /// What becomes of its faults. A check behind whose faults the end of a message is uncertain can't be off
    #[arg(value_name = "refuse|monitor|off", value_parser = check::parse_state)]
    state: CheckState,

    #[command(flatten)]
    whose: WhoseArgs,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    /// The check; without one, all
    #[arg(value_name = "REASON", value_parser = check::parse)]
    reason: Option<Reason>,

    #[command(flatten)]
    whose: WhoseArgs,
}

#[derive(Debug, clap::Args)]
struct WhoseArgs {
    /// For this trunk alone, whatever holds for everybody
    #[arg(long, value_name = "NAME", value_parser = trunk::name, conflicts_with = "devices")]
    trunk: Option<String>,

    /// For devices alone (whoever is no trunk), whatever holds for everybody
    #[arg(long)]
    devices: bool,
}

impl SetArgs {
    pub fn request(self) -> Switch {
        Switch { scope: self.whose.scope(), reason: self.reason, state: self.state }
    }
}

impl ClearArgs {
    pub fn request(self) -> (CheckScope, Option<Reason>) {
        (self.whose.scope(), self.reason)
    }
}

impl WhoseArgs {
    fn scope(self) -> CheckScope {
        match self.trunk {
            Some(name) => CheckScope::Trunk(name),
            None if self.devices => CheckScope::Devices,
            None => CheckScope::Guard,
        }
    }
}
