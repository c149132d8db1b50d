//! `sipguard check`: is the configuration valid? Changes nothing.

use anyhow::Result;
use serde_json::json;

use super::config::{ConfigArgs, json_of, refused, warn};
use crate::config::{DEFAULT_FILE, Invalid, LoadedConfig};
use crate::output::{Format, object};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(format: Format, args: &Args) -> Result<()> {
    let loaded = args.config.load();
    let value = match &loaded {
        Ok(LoadedConfig { sources, warnings, .. }) => {
            json!({ "valid": true, "files": sources.paths(), "warnings": warnings, "problems": [] })
        }
        Err(Invalid { sentences, problems }) => {
            let mut all: Vec<_> = problems
                .iter()
                .map(|problem| {
                    let mut value = json_of(&problem.location);
                    value["key"] = problem.key.as_str().into();
                    value["problem"] = problem.text.as_str().into();
                    value
                })
                .collect();
            if problems.is_empty() {
                all.extend(sentences.iter().map(|sentence| json!({ "problem": sentence })));
            }
            json!({ "valid": false, "problems": all })
        }
    };
    if loaded.is_ok() || format != Format::Table {
        object(format, "sipguard.check/1", value, || match &loaded {
            Ok(LoadedConfig { sources, .. }) if sources.0.is_empty() => {
                format!("there is no {DEFAULT_FILE}: the defaults hold\n")
            }
            Ok(LoadedConfig { sources, .. }) => {
                sources.paths().iter().map(|file| format!("{}: valid\n", file.display())).collect()
            }
            Err(_) => String::new(),
        })?;
    }
    let loaded = loaded.map_err(|invalid| refused(&invalid, "it would not be taken"))?;
    warn(&loaded.warnings);
    Ok(())
}
