//! `checks`: which faults of messages are refused, only counted, or not looked for.

use clap::Subcommand;
use sipguard_common::Reason;
use sipguard_core::check::{self, CheckScope, CheckState, Switch};

use super::scope::CheckScopeArgs;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
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
    /// The check, by the reason that `counters` shows, such as bad-number; `sipguard explain REASON` says what it is about
    #[arg(value_name = "REASON", value_parser = check::parse_typed)]
    reason: Reason,

    /// What becomes of its faults. A check behind whose faults the end of a message is uncertain can't be off
    #[arg(value_name = "refuse|monitor|off", value_parser = check::parse_state)]
    state: CheckState,

    #[command(flatten)]
    scope: CheckScopeArgs,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    /// The check; without one, all. Without `--devices` or `--trunk` what is set for everybody, and nothing else
    #[arg(value_name = "REASON", value_parser = check::parse_typed)]
    reason: Option<Reason>,

    #[command(flatten)]
    scope: CheckScopeArgs,
}

impl SetArgs {
    pub fn request(self) -> Switch {
        Switch { scope: self.scope.scope(), reason: self.reason, state: self.state }
    }
}

impl ClearArgs {
    pub fn request(self) -> (CheckScope, Option<Reason>) {
        (self.scope.scope(), self.reason)
    }
}
