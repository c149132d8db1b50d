//! `check`, `config`, and which configuration file other verbs read.

use std::path::PathBuf;

use clap::Subcommand;

/// Which configuration file.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file, with `conf.d/*.toml` beside it [default: /etc/sipguard/sipguard.toml, where it is]
    #[arg(
        long = "config",
        id = "config",
        value_name = "FILE",
        env = "SIPGUARD_CONFIG",
        hide_env_values = true
    )]
    pub file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the JSON schema of the configuration file
    Schema,
    /// Print a configuration file with every setting, its description and its default
    Example,
    /// Show what the files contain, merged and with the defaults, and where each setting comes from
    Show {
        #[command(flatten)]
        config: ConfigArgs,
    },
}
