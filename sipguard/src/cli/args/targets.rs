//! Targets as verbs take them.

use std::io::Read;

use anyhow::{Context, Result};
use sipguard_core::target::Target;

use super::usage;

/// Every target once, or none: a mistake anywhere leaves all as it was. `check` looks at each as it is written.
pub fn read_checked(words: &[String], check: &dyn Fn(&str) -> Result<(), String>) -> Result<Vec<Target>> {
    let read = |word: &str| check(word).and_then(|()| word.parse::<Target>());
    let mut targets = Vec::new();
    for word in words {
        if word != "-" {
            targets.push(read(word).map_err(usage)?);
            continue;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            for word in line.split_whitespace() {
                targets.push(
                    read(word)
                        .map_err(|error| usage(format!("standard input, line {}: {error}", number + 1)))?,
                );
            }
        }
    }
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

/// The same without another look.
pub fn read_targets(words: &[String]) -> Result<Vec<Target>> {
    read_checked(words, &|_| Ok(()))
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
