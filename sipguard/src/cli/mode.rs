//! `sipguard mode [enforce|monitor]`

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::trail;
use crate::maps;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::settings::{EffectiveSettings, Mode, changes};
use crate::status;
use crate::store::Counts;
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
            Mode::Enforce => trunk::TrunkMode::Enforce,
            Mode::Monitor => trunk::TrunkMode::Monitor,
        };
        return super::trunk::set_mode(pins, path, format, name, mode);
    }
    pins.check()?;
    let edit = args.mode.is_some().then(|| pins.edit()).transpose()?;
    let mut settings = maps::settings(pins)?;
    let before = EffectiveSettings::read(pins)?;
    let after = EffectiveSettings { mode: args.mode.map_or(before.mode, Mode::number), ..before.clone() };
    let changed = after != before;
    if changed {
        after.put(&mut settings);
        maps::set_settings(pins, settings)?;
    }
    drop(edit);
    let word = status::mode(&settings);
    if changed {
        let counts = Counts { moved: 1, ..Counts::default() };
        trail::tell(
            path,
            &format!("the mode is {word}"),
            "mode",
            &changes(Some(&before), &after),
            "",
            counts,
        );
    }
    object(format, "sipguard.mode/1", json!({ "mode": word, "changed": changed }), || {
        if args.mode.is_some() && !changed {
            format!("{word} already, nothing changed\n")
        } else {
            format!("{word}\n")
        }
    })
}
