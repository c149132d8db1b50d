//! `crash`: reports of crashes of the PBX.

use std::path::PathBuf;

use clap::ValueEnum;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_observe::ops::crash::DEFAULT_DIRECTORY;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the reports
    #[arg(long, global = true, value_name = "DIR", env = "SIPGUARD_CRASHES", default_value = DEFAULT_DIRECTORY, hide_env_values = true)]
    pub directory: PathBuf,

    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the reports
    #[command(visible_alias = "ls")]
    List,
    /// Show a report
    Show {
        /// Its name, as `list` has it [default: the last one]
        name: Option<String>,
    },
    /// Keep the last packets of each device, which a report is made of; `off` ends it
    Record {
        /// Whether they are kept
        #[arg(value_enum)]
        switch: Switch,
    },
    /// Report a crash by hand: the PBX died just now
    Report {
        /// How long ago it died
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ago: Option<Span>,
        /// Block the likely cause for this time, when it is clear which device it was
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        quarantine: Option<Span>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}
