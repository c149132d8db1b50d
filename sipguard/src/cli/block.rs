//! `sipguard block` and `sipguard unblock`

use std::io::Read;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Span, parse_duration, plural, usage};
use crate::address::Source;
use crate::blocks::{Blocks, Changed};
use crate::clock::Clock;
use crate::error::{Failure, Status};
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::protect::{hit, protected};

#[derive(Debug, clap::Args)]
pub struct BlockArgs {
    /// Addresses or prefixes; `-` reads them from standard input, separated by white space, `#` begins a comment
    #[arg(required = true, value_name = "ADDR|CIDR|-")]
    sources: Vec<String>,

    /// For how long: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Block also the SSH peer, a gateway or an own address
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct UnblockArgs {
    /// Addresses or prefixes; `-` reads them from standard input
    #[arg(required_unless_present = "all", value_name = "ADDR|CIDR|-")]
    sources: Vec<String>,

    /// Every block
    #[arg(long, conflicts_with = "sources")]
    all: bool,
}

pub fn block(pins: &Pins, format: Format, args: &BlockArgs) -> Result<()> {
    let sources = read_sources(&args.sources)?;
    pins.exist_or_fail()?;
    if !args.force {
        let protected = protected();
        if let Some((source, entry)) =
            sources.iter().find_map(|source| Some((source, hit(source, &protected)?)))
        {
            return Err(Failure::with(
                Status::Failed,
                format!(
                    "{source} is {} ({}): nothing was blocked; `--force` blocks it all the same",
                    entry.role, entry.address
                ),
            ));
        }
    }
    let _lock = pins.lock(true)?;
    pins.check()?;
    let clock = Clock::now()?;
    let changed = Blocks::open(pins)?.add(&sources, clock.after(args.span.0), &clock)?;
    report(format, changed, || {
        let end = args
            .span
            .0
            .map_or("permanently".to_owned(), |span| format!("for {}", humantime::format_duration(span)));
        let mut did = Vec::new();
        if changed.added > 0 {
            did.push(format!("blocked {} {end}", plural(changed.added, "source")));
        }
        if changed.moved > 0 {
            did.push(format!("moved the end of {}", plural(changed.moved, "block")));
        }
        sentence(did, changed.same, "blocked so already")
    })
}

pub fn unblock(pins: &Pins, format: Format, args: &UnblockArgs) -> Result<()> {
    let mut sources = read_sources(&args.sources)?;
    pins.exist_or_fail()?;
    let _lock = pins.lock(true)?;
    pins.check()?;
    let mut blocks = Blocks::open(pins)?;
    if args.all {
        sources = blocks.list(&Clock::now()?)?.into_iter().map(|(source, _)| source).collect();
    }
    let changed = blocks.remove(&sources)?;
    report(format, changed, || {
        let did = match changed.removed {
            0 => Vec::new(),
            count => vec![format!("unblocked {}", plural(count, "source"))],
        };
        sentence(did, changed.same, "not blocked")
    })
}

fn report(format: Format, changed: Changed, sentence: impl FnOnce() -> String) -> Result<()> {
    let value = json!({
        "added": changed.added, "moved": changed.moved, "removed": changed.removed, "unchanged": changed.same,
    });
    object(format, "sipguard.change/1", value, || sentence() + "\n")
}

/// What was done, and to how many sources nothing had to be done.
fn sentence(did: Vec<String>, same: usize, state: &str) -> String {
    let mut parts = did;
    if parts.is_empty() {
        parts.push("nothing changed".to_owned());
    }
    if same > 0 {
        parts.push(format!("{} {state}", plural(same, "source")));
    }
    parts.join(", ")
}

/// Every source, or none: a mistake anywhere leaves all as it was.
fn read_sources(words: &[String]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for word in words {
        if word != "-" {
            sources.push(word.parse::<Source>().map_err(usage)?);
            continue;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            for word in line.split_whitespace() {
                let source = word.parse::<Source>();
                sources.push(
                    source.map_err(|error| usage(format!("standard input, line {}: {error}", number + 1)))?,
                );
            }
        }
    }
    sources.sort_unstable();
    sources.dedup();
    Ok(sources)
}
