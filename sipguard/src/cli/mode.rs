//! `sipguard mode [enforce|monitor]`

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::maps;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::settings::Mode;
use crate::status;
use crate::store::{OPERATOR, change};
use crate::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The mode; without one the mode in force is shown
    #[arg(value_enum)]
    mode: Option<Mode>,

    /// The mode of this trunk, whatever the guard's is; `trunk set --mode inherit` takes it back
    #[arg(long, value_name = "NAME", value_parser = trunk::name, requires = "mode")]
    trunk: Option<String>,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    if let (Some(name), Some(mode)) = (&args.trunk, args.mode) {
        let mode = match mode {
            Mode::Enforce => trunk::Mode::Enforce,
            Mode::Monitor => trunk::Mode::Monitor,
        };
        return super::trunk::set_mode(pins, path, format, name, mode);
    }
    pins.check()?;
    let edit = args.mode.is_some().then(|| pins.edit()).transpose()?;
    let mut settings = maps::settings(pins)?;
    let before = settings.mode;
    settings.mode = args.mode.map_or(before, Mode::number);
    let changed = settings.mode != before;
    if changed {
        maps::set_settings(pins, settings)?;
    }
    drop(edit);
    let word = status::mode(&settings);
    if changed && let Err(error) = record(pins, path, word) {
        // In an incident the mode counts, not the log.
        eprintln!("sipguard: the mode is {word}, but the log does not tell of it: {error:#}");
    }
    object(format, "sipguard.mode/1", json!({ "mode": word, "changed": changed }), || {
        if args.mode.is_some() && !changed {
            format!("{word} already, nothing changed\n")
        } else {
            format!("{word}\n")
        }
    })
}

/// Writes the row of the trail.
fn record(pins: &Pins, path: &Path, word: &str) -> Result<()> {
    change(path, pins, |change| {
        change.counts.moved = 1;
        change.record("mode", OPERATOR, &[word], "")
    })?;
    Ok(())
}
