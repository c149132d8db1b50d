//! `limit`: how much a sender, or a trunk, may send.

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use super::usage;
use crate::ops::limit::{AtOnce, Kind, MESSAGES, Most};
use crate::rate::{self, MOST_OPEN};
use crate::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set a limit: so many a second, and a burst of so many at once; of open connections and unfinished messages a number
    Set(SetArgs),
    /// Show the limits
    #[command(visible_alias = "ls")]
    List,
    /// Take limits away: of one kind, or all of a sender or trunk
    #[command(visible_alias = "rm")]
    Clear(ClearArgs),
}

#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    whose: WhoseArgs,

    /// Such as `20/s`, or `20/s burst 40`; without a burst twice as many as a second has. With `--of open` and
    /// `--of unfinished` a number, such as `500`. With `--per trunk` its name comes before
    #[arg(required = true, num_args = 1..=4, value_name = "RATE [burst COUNT]|COUNT")]
    rate: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    #[command(flatten)]
    whose: WhoseArgs,

    /// The trunk's name, with `--per trunk`
    #[arg(value_name = "NAME")]
    name: Option<String>,
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
struct WhoseArgs {
    /// Of each source that is no trunk's, or of a trunk (and then its name), all its peers together
    #[arg(long, value_enum, default_value = "source")]
    per: Per,

    /// What is counted: packets, messages, register, invite, connections (new ones), open (TCP connections at once), or unfinished
    /// (messages on TCP connections that have begun and are not finished)
    /// [default: messages, of `clear` all]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    of: Option<Kind>,
}

impl SetArgs {
    /// The trunk whose limit it is, or none, and the limit.
    pub fn request(&self) -> Result<(Option<String>, Most)> {
        let names = usize::from(self.whose.per == Per::Trunk);
        let (name, words) = self.rate.split_at(names.min(self.rate.len()));
        let trunk = self.whose.trunk(name.first().map(String::as_str))?;
        let kind = match self.whose.of {
            Some(Kind::AtOnce(kind)) => return Ok((trunk, Most::AtOnce(kind, count(kind, words)?))),
            Some(Kind::Rate(kind)) => kind,
            None => MESSAGES,
        };
        let (per_second, burst) = rate::parse(&words.join(" ")).map_err(usage)?;
        Ok((trunk, Most::Rate { kind, per_second, burst }))
    }
}

impl ClearArgs {
    /// The trunk whose limits they are, or none, and of which kind.
    pub fn request(&self) -> Result<(Option<String>, Option<Kind>)> {
        Ok((self.whose.trunk(self.name.as_deref())?, self.whose.of))
    }
}

impl WhoseArgs {
    fn trunk(&self, name: Option<&str>) -> Result<Option<String>> {
        match (self.per, name) {
            (Per::Source, None) => Ok(None),
            (Per::Trunk, Some(name)) => trunk::name(name).map(Some).map_err(usage),
            (Per::Trunk, None) => Err(usage("`--per trunk` needs the trunk's name: `--per trunk carrier`")),
            (Per::Source, Some(name)) => Err(usage(format!("`{name}`: only `--per trunk` takes a name"))),
        }
    }
}

/// `500`: so many at once.
fn count(kind: AtOnce, words: &[String]) -> Result<u32> {
    let text = words.join(" ");
    let count = text.parse().ok().filter(|count| (1..=MOST_OPEN).contains(count));
    count.ok_or_else(|| {
        usage(format!(
            "`{text}` is no limit of {}: write how many at once, such as 500 (1 to {MOST_OPEN})",
            kind.text()
        ))
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::all().find(|kind| kind.name() == text).ok_or_else(|| {
        let words: Vec<&str> = Kind::all().map(Kind::name).collect();
        format!("`{text}` is nothing that is limited: write one of {}", words.join(", "))
    })
}
