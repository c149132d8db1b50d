//! `sipguard config`: what the configuration file may say, and what is in effect.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::config::{self, Invalid, LoadedConfig, Location, Shown, Sources, last_good};
use crate::error::{Failure, Status};
use crate::output::{Format, print, rows};

/// Which configuration file.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file, with `conf.d/*.toml` beside it [default: /etc/sipguard/sipguard.toml, where it is]
    #[arg(long, value_name = "FILE", env = "SIPGUARD_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads and judges it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(&self) -> Result<LoadedConfig, Invalid> {
        config::load(self.config.as_deref())
    }

    /// The same for a verb that wants a valid one; says what is doubtful. `nothing` is what an invalid one did.
    ///
    /// # Errors
    /// [`Status::Configuration`] with everything that is wrong.
    pub fn read(&self, nothing: &str) -> Result<LoadedConfig> {
        let loaded = self.load().map_err(|invalid| refused(&invalid, nothing))?;
        warn(&loaded.warnings);
        Ok(loaded)
    }
}

/// Says what is doubtful.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("sipguard: {warning}");
    }
}

/// The failure of a verb whose configuration is invalid.
pub fn refused(invalid: &Invalid, nothing: &str) -> anyhow::Error {
    Failure::with(Status::Configuration, complaint(invalid, nothing))
}

/// Everything that is wrong, and the remedy. `outcome` is what became of the verb.
pub fn complaint(invalid: &Invalid, outcome: &str) -> String {
    let list: String = invalid.sentences.iter().map(|sentence| format!("\n  {sentence}")).collect();
    format!(
        "the configuration is invalid, {outcome}:{list}\nMend it and run `sipguard check`; `sipguard config example` shows every setting"
    )
}

/// Keeps files that were applied. A failure is said, and is none of the verb.
pub fn keep(store: &Path, sources: &Sources) {
    if let Err(error) = last_good::keep(store, sources) {
        eprintln!(
            "sipguard: the configuration is applied, but not kept for a start with a mistake in it: {error:#}"
        );
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the JSON schema of the configuration file
    Schema,
    /// Print a configuration file with every setting, its description and its default
    Example,
    /// Show what the files say, put together and with the defaults, and where each setting is said
    Show {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub fn run(format: Format, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Schema => print(&format!("{:#}\n", config::schema())),
        Verb::Example => print(&config::example()),
        Verb::Show { config } => show(format, config),
    }
}

fn show(format: Format, args: &ConfigArgs) -> Result<()> {
    let loaded = args.load().map_err(|invalid| refused(&invalid, "nothing can be shown"))?;
    warn(&loaded.warnings);
    let value = |one: &Shown| {
        json!({
            "table": one.table, "key": one.key, "value": one.value,
            "file": one.location.as_ref().map(|location| &location.path), "line": one.location.as_ref().map(|location| location.line),
        })
    };
    rows(format, "sipguard.config/1", loaded.shown.iter().map(value).collect(), || {
        let mut text = String::new();
        for all in loaded.shown.chunk_by(|one, other| one.table == other.table) {
            let blank = if text.is_empty() { "" } else { "\n" };
            text += &format!("{blank}[{}]\n", all[0].table);
            all.iter().for_each(|one| text += &format!("{one}\n"));
        }
        text
    })
}

/// A place for programs.
pub fn json_of(location: &Location) -> Value {
    json!({ "file": location.path, "line": location.line, "column": location.column })
}
