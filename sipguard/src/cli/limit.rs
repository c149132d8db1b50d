//! `sipguard limit`: how much a source, or a trunk, may send.

use std::path::Path;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use sipguard_common::abi::{MESSAGES, RATE_KINDS};

use super::list::time;
use super::trunk::report;
use super::usage;
use crate::error::{Failure, Status};
use crate::output::{Format, rows, table};
use crate::pins::Pins;
use crate::rate;
use crate::store::{self, Change, Limit, OPERATOR, change, is_attached};
use crate::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a limit: so many a second, and a burst of so many at once
    Set {
        #[command(flatten)]
        whose: Whose,

        /// Such as `20/s`, or `20/s burst 40`; without a burst twice as many as a second has. With `--per trunk` its name comes before
        #[arg(required = true, num_args = 1..=4, value_name = "RATE [burst COUNT]")]
        rate: Vec<String>,
    },
    /// Show the limits
    List,
    /// Take limits away: of one kind, or all of a source or trunk
    Clear {
        #[command(flatten)]
        whose: Whose,

        /// The trunk's name, with `--per trunk`
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// Whose a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Per {
    /// Each source
    Source,
    /// A trunk
    Trunk,
}

#[derive(Debug, clap::Args)]
struct Whose {
    /// Of each source that is no trunk's, or of a trunk (and then its name), all its peers together
    #[arg(long, value_enum, default_value = "source")]
    per: Per,

    /// What is counted: packets, messages, register, invite or connections [default: messages, of `clear` all]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    of: Option<usize>,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Set { whose, rate } => set(pins, path, format, whose, rate),
        Verb::List => list(pins, path, format),
        Verb::Clear { whose, name } => clear(pins, path, format, whose, name.as_deref()),
    }
}

fn set(pins: &Pins, path: &Path, format: Format, whose: &Whose, words: &[String]) -> Result<()> {
    let names = usize::from(whose.per == Per::Trunk);
    let (name, words) = words.split_at(names.min(words.len()));
    let trunk = trunk_of(whose, name.first().map(String::as_str))?;
    let (per_second, burst) = rate::parse(&words.join(" ")).map_err(usage)?;
    let kind = whose.of.unwrap_or(MESSAGES);
    let named = named(trunk.as_deref(), RATE_KINDS[kind]);
    let done = change(path, pins, &|| {}, |change| {
        known(change, trunk.as_deref())?;
        change.set_limit(trunk.as_deref(), kind, per_second, burst)?;
        change.record("limit set", OPERATOR, &[format!("{named} {per_second}/s burst {burst}")], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("limited {named}: {per_second}/s burst {burst}"), "limited so already")
}

fn clear(pins: &Pins, path: &Path, format: Format, whose: &Whose, name: Option<&str>) -> Result<()> {
    let trunk = trunk_of(whose, name)?;
    let named = named(trunk.as_deref(), whose.of.map_or("all", |kind| RATE_KINDS[kind]));
    let done = change(path, pins, &|| {}, |change| {
        known(change, trunk.as_deref())?;
        change.clear_limits(trunk.as_deref(), whose.of)?;
        change.record("limit clear", OPERATOR, &[&named], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("no limit any more: {named}"), "not limited")
}

fn list(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let limits = store::read(path, |rows| rows.limits())?.unwrap_or_default();
    if format == Format::Table && !is_attached(pins) {
        eprintln!("sipguard: not attached: limits take effect with the next `sipguard attach`");
    }
    let value = |limit: &Limit| {
        json!({
            "per": if limit.trunk.is_some() { "trunk" } else { "source" }, "trunk": limit.trunk,
            "of": RATE_KINDS[limit.kind], "per_second": limit.per_second, "burst": limit.burst,
            "author": limit.author, "created": time(limit.created_ms),
        })
    };
    rows(format, "sipguard.limits/1", limits.iter().map(value).collect(), || {
        let line = |limit: &Limit| {
            vec![
                limit.trunk.as_ref().map_or("source".to_owned(), |trunk| format!("trunk {trunk}")),
                RATE_KINDS[limit.kind].to_owned(),
                format!("{}/s", limit.per_second),
                limit.burst.to_string(),
                limit.author.clone(),
                time(limit.created_ms),
            ]
        };
        table(&["PER", "OF", "RATE", "BURST", "BY", "SINCE"], limits.iter().map(line))
    })
}

fn kind(text: &str) -> Result<usize, String> {
    let found = RATE_KINDS.iter().position(|name| *name == text);
    found
        .ok_or_else(|| format!("`{text}` is nothing that is limited: write one of {}", RATE_KINDS.join(", ")))
}

fn trunk_of(whose: &Whose, name: Option<&str>) -> Result<Option<String>> {
    match (whose.per, name) {
        (Per::Source, None) => Ok(None),
        (Per::Trunk, Some(name)) => trunk::name(name).map(Some).map_err(usage),
        (Per::Trunk, None) => Err(usage("`--per trunk` wants the trunk's name: `--per trunk carrier`")),
        (Per::Source, Some(name)) => Err(usage(format!("`{name}`: only `--per trunk` takes a name"))),
    }
}

fn known(change: &Change<'_>, trunk: Option<&str>) -> Result<()> {
    let Some(name) = trunk else { return Ok(()) };
    if change.rows.trunks()?.iter().any(|trunk| trunk.name == name) {
        return Ok(());
    }
    Err(Failure::with(Status::Failed, format!("there is no trunk {name}: `sipguard trunk list` shows them")))
}

fn named(trunk: Option<&str>, kind: &str) -> String {
    trunk.map_or_else(|| format!("{kind} of a source"), |trunk| format!("{kind} of the trunk {trunk}"))
}
