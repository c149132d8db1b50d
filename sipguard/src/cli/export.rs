//! `sipguard export`: rules as a list.

use std::path::Path;

use anyhow::Result;

use crate::clock::Clock;
use crate::exchange::{self, Form};
use crate::output::print;
use crate::store;
use crate::store::parse_origin;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The form; only json and csv have all that a rule has
    #[arg(long, value_enum, default_value = "json")]
    format: Form,

    /// Only what this source set
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

pub fn run(path: &Path, args: &Args) -> Result<()> {
    let now_ms = Clock::now()?.wall_ms();
    let mut rows = store::all_rows(path)?;
    rows.retain(|row| row.holds(now_ms) && args.origin.as_ref().is_none_or(|origin| row.origin == *origin));
    rows.sort_by(|one, other| (one.target, &one.origin).cmp(&(other.target, &other.origin)));
    print(&exchange::write(args.format, &rows, now_ms))
}
