//! Addresses and prefixes as verbs take them.

use std::io::Read;

use anyhow::{Context, Result};

use super::usage;
use crate::target::Target;

/// Every target once, or none: a mistake anywhere leaves all as it was.
pub fn read_targets(words: &[String]) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for word in words {
        if word != "-" {
            targets.push(word.parse::<Target>().map_err(usage)?);
            continue;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            for word in line.split_whitespace() {
                let target = word.parse::<Target>();
                targets.push(
                    target.map_err(|error| usage(format!("standard input, line {}: {error}", number + 1)))?,
                );
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

/// The same, of addresses and prefixes alone: what the verb does is about all that an address sends.
pub fn read_sources(words: &[String], verb: &str) -> Result<Vec<Target>> {
    let targets = read_targets(words)?;
    match targets.iter().find(|target| !target.is_source()) {
        Some(target) => {
            Err(usage(format!("{target}: `{verb}` takes addresses and prefixes, without a port")))
        }
        None => Ok(targets),
    }
}
