//! `sipguard log`: the trail of who changed rules.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::output::{Format, rows, table};
use crate::store;
use crate::store::parse_origin;
use crate::view::time;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many entries, the last ones
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    last: usize,

    /// Only what this source did
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

pub fn run(path: &Path, format: Format, args: &Args) -> Result<()> {
    let trail = store::read(path, |rows| rows.trail(args.last, args.origin.as_deref()))?.unwrap_or_default();
    let values = trail
        .iter()
        .map(|one| {
            json!({
                "done_at": time(one.at_ms), "author": one.author, "origin": one.origin, "verb": one.verb, "what": one.what,
                "comment": one.reason, "added": one.counts.added, "moved": one.counts.moved, "removed": one.counts.removed,
                "unchanged": one.counts.same,
            })
        })
        .collect();
    rows(format, "sipguard.log/2", values, || {
        let head = ["TIME", "BY", "SOURCE", "VERB", "WHAT", "ADDED", "CHANGED", "REMOVED", "REASON"];
        table(
            &head,
            trail.iter().map(|one| {
                vec![
                    time(one.at_ms),
                    one.author.clone(),
                    one.origin.clone(),
                    one.verb.clone(),
                    one.what.clone(),
                    one.counts.added.to_string(),
                    one.counts.moved.to_string(),
                    one.counts.removed.to_string(),
                    one.reason.clone(),
                ]
            }),
        )
    })
}
