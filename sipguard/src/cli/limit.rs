//! `sipguard limit`: how much a source, or a trunk, may send.

use std::path::Path;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use sipguard_common::abi::{MESSAGES, RATE_KINDS};

use super::limit_list;
use super::trunk::report;
use super::usage;
use crate::counting;
use crate::error::{Failure, Status};
use crate::output::Format;
use crate::pins::Pins;
use crate::rate::{self, MOST_OPEN};
use crate::store::{Change, OPERATOR, change};
use crate::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a limit: so many a second, and a burst of so many at once; of open connections a number
    Set {
        #[command(flatten)]
        whose: Whose,

        /// Such as `20/s`, or `20/s burst 40`; without a burst twice as many as a second has. With `--of open` a number, such as
        /// `500`. With `--per trunk` its name comes before
        #[arg(required = true, num_args = 1..=4, value_name = "RATE [burst COUNT]|COUNT")]
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

    /// What is counted: packets, messages, register, invite, connections (new ones), or open (TCP connections at once)
    /// [default: messages, of `clear` all]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    of: Option<Kind>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many a second, by position in [`RATE_KINDS`].
    Rate(usize),
    /// So many connections open at once.
    Open,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rate(kind) => RATE_KINDS[kind],
            Kind::Open => "open",
        }
    }
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Set { whose, rate } => set(pins, path, format, whose, rate),
        Verb::List => limit_list::list(pins, path, format),
        Verb::Clear { whose, name } => clear(pins, path, format, whose, name.as_deref()),
    }
}

fn set(pins: &Pins, path: &Path, format: Format, whose: &Whose, words: &[String]) -> Result<()> {
    let names = usize::from(whose.per == Per::Trunk);
    let (name, words) = words.split_at(names.min(words.len()));
    let trunk = trunk_of(whose, name.first().map(String::as_str))?;
    let kind = match whose.of {
        Some(Kind::Open) => return set_open(pins, path, format, trunk.as_deref(), words),
        Some(Kind::Rate(kind)) => kind,
        None => MESSAGES,
    };
    let (per_second, burst) = rate::parse(&words.join(" ")).map_err(usage)?;
    let named = named(trunk.as_deref(), RATE_KINDS[kind]);
    let done = change(path, pins, |change| {
        known(change, trunk.as_deref())?;
        change.set_limit(trunk.as_deref(), kind, per_second, burst)?;
        change.record("limit set", OPERATOR, &[format!("{named} {per_second}/s burst {burst}")], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("limited {named}: {per_second}/s burst {burst}"), "limited so already")
}

fn set_open(pins: &Pins, path: &Path, format: Format, trunk: Option<&str>, words: &[String]) -> Result<()> {
    let most = count(words)?;
    let named = named(trunk, Kind::Open.name());
    let done = change(path, pins, |change| {
        known(change, trunk)?;
        if pins.are_attached() {
            counting::is_on_or_fail(pins)?;
        }
        change.set_open_limit(trunk, most)?;
        change.record("limit set", OPERATOR, &[format!("{named} {most}")], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("limited {named}: {most} at once"), "limited so already")
}

fn clear(pins: &Pins, path: &Path, format: Format, whose: &Whose, name: Option<&str>) -> Result<()> {
    let trunk = trunk_of(whose, name)?;
    let named = named(trunk.as_deref(), whose.of.map_or("all", Kind::name));
    let done = change(path, pins, |change| {
        known(change, trunk.as_deref())?;
        if whose.of != Some(Kind::Open) {
            let kind = whose.of.and_then(|kind| if let Kind::Rate(kind) = kind { Some(kind) } else { None });
            change.clear_limits(trunk.as_deref(), kind)?;
        }
        if matches!(whose.of, None | Some(Kind::Open)) {
            change.clear_open_limit(trunk.as_deref())?;
        }
        change.record("limit clear", OPERATOR, &[&named], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("no limit any more: {named}"), "not limited")
}

/// `500`: so many open at once.
fn count(words: &[String]) -> Result<u32> {
    let text = words.join(" ");
    let count = text.parse().ok().filter(|count| (1..=MOST_OPEN).contains(count));
    count.ok_or_else(|| {
        usage(format!(
            "`{text}` is no limit of open connections: write how many at once, such as 500 (1 to {MOST_OPEN})"
        ))
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    let all = || (0..RATE_KINDS.len()).map(Kind::Rate).chain([Kind::Open]);
    all().find(|kind| kind.name() == text).ok_or_else(|| {
        let words: Vec<&str> = all().map(Kind::name).collect();
        format!("`{text}` is nothing that is limited: write one of {}", words.join(", "))
    })
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
