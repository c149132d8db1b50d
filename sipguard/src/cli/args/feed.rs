//! `feed`: lists of others.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::feed::{AddFeed, FeedForm, FeedSource, USUAL_KEEP, parse_name};

use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read a feed, block what it has, and go on reading it; one of that name gets these settings
    Add(AddArgs),
    /// Remove a feed with its blocks
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Read a feed, or every one, now
    Refresh(RefreshArgs),
    /// List the feeds
    #[command(visible_alias = "ls")]
    List,
    /// Show a feed
    Show {
        /// Its name
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Its name: 1 to 32 of a-z, 0-9 and -_.; its blocks have the origin feed:NAME
    #[arg(value_parser = parse_name)]
    name: String,

    /// Where it comes from: http://, https://, or a file with its whole path
    #[arg(value_name = "URL|FILE", value_parser = FeedSource::parse)]
    source: FeedSource,

    /// What it is
    #[arg(long, value_enum, default_value = "list")]
    format: FeedForm,

    /// How often `serve` reads it [default: 5m; crowdsec: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Span>,

    /// How long an entry holds at least after it was read last, when the feed can't be read any more; in as much time again all of it ends
    /// [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    keep: Option<Span>,

    /// File with the key that the server asks for in `X-Api-Key`
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Take also a change of more than half of what a feed of that name has
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct RefreshArgs {
    /// Its name [default: every feed]
    #[arg(value_parser = parse_name)]
    pub name: Option<String>,

    /// Take also a change of more than half of the feed
    #[arg(long, requires = "name")]
    pub force: bool,
}

impl AddArgs {
    pub fn request(self) -> Result<AddFeed> {
        let AddArgs { name, source, format: form, every, keep, key_file, force } = self;
        let span = |span: Option<Span>, usual| match span {
            None => Ok(usual),
            Some(Span(Some(span))) => Ok(Some(span)),
            Some(Span(None)) => {
                Err(usage("a feed is read again, and what it has ends when that fails for long"))
            }
        };
        let keep: Option<Duration> = span(keep, Some(USUAL_KEEP))?;
        Ok(AddFeed {
            name,
            source,
            form,
            every: span(every, None)?,
            keep: keep.unwrap_or(USUAL_KEEP),
            key_file,
            force,
        })
    }
}
