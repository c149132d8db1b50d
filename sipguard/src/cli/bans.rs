//! `sipguard bans`: when a sender of malformed streams is banned. Who is, `list ban` says; `unblock` lifts.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::trunk::report;
use super::usage;
use crate::ban_rule::{BanRequest, BanRule, DEFAULT, MOST_STREAMS, parse_span};
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::store::{self, OPERATOR, change};
use crate::view::{self, BanView, schema};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show when a sender is banned
    Show,
    /// Say when a sender is banned; what is not named stays
    Set(Set),
    /// Ban nobody. Malformed streams are still cut
    Off,
    /// Write the bans in force to the store, as every change of a rule does; before a reboot, so that it brings them back
    Save,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Set {
    /// So many malformed streams of one address and port ban it, 1 to 1000
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STREAMS)))]
    after: Option<u32>,

    /// So many malformed streams of one address, by any ports, ban it, 1 to 1000
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STREAMS)))]
    address_after: Option<u32>,

    /// Within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    within: Option<Duration>,

    /// How long the first ban is; each further one is twice as long
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    first: Option<Duration>,

    /// How long a ban is at the most
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    longest: Option<Duration>,

    /// An address is banned only when nothing well-formed came from it for this time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    quiet: Option<Duration>,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    match &args.verb {
        None | Some(Verb::Show) => show(path, format),
        Some(Verb::Save) => save(pins, path, format),
        Some(Verb::Off) => rule(pins, path, format, "bans off", |old| Ok(BanRule { after: 0, ..*old })),
        Some(Verb::Set(set)) => rule(pins, path, format, "bans set", |old| merged(old, set)),
    }
}

fn rule(
    pins: &Pins,
    path: &Path,
    format: Format,
    verb: &str,
    desired: impl Fn(&BanRule) -> Result<BanRule>,
) -> Result<()> {
    let done = change(path, pins, |change| {
        let old = change.rows.ban_rule()?.unwrap_or(DEFAULT);
        let rule = desired(&old)?;
        change.set_ban_rule(&rule)?;
        change.record(verb, OPERATOR, &[sentence(&rule)], "")?;
        Ok((change.counts, rule))
    })?;
    let said = sentence(&done.value.1);
    let done = store::Changed { value: done.value.0, in_force: done.in_force };
    report(format, &done, &said, &said)
}

fn show(path: &Path, format: Format) -> Result<()> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    let rule = store::read(path, |rows| rows.ban_rule())?.flatten().unwrap_or(DEFAULT);
    object(format, schema::BANS, view::json(&BanView::from(&rule)), || sentence(&rule) + "\n")
}

fn save(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    let done = change(path, pins, |change| Ok(change.rows.bans(&change.clock)?.len()))?;
    object(format, "sipguard.saved/1", json!({ "bans": done.value }), || match done.value {
        0 => "no bans\n".to_owned(),
        count => format!("saved {}\n", super::plural(count, "ban")),
    })
}

fn merged(old: &BanRule, set: &Set) -> Result<BanRule> {
    let Set { after, address_after, within, first, longest, quiet } = *set;
    let request = BanRequest { enabled: Some(true), after, address_after, within, first, longest, quiet };
    let rule = request.of(old);
    if rule.first > rule.longest {
        return Err(usage(
            "the first ban would be longer than the longest: name both, `--first` and `--longest`",
        ));
    }
    Ok(rule)
}

/// `3 malformed streams ...`
fn sentence(rule: &BanRule) -> String {
    let span = humantime::format_duration;
    if rule.after == 0 {
        return "nobody is banned; malformed streams are cut all the same".to_owned();
    }
    format!(
        "banned is an address and port after {} malformed streams within {}, and an address after {} when nothing well-formed came from it for {}; \
         for {} at first, each time twice as long, {} at the most",
        rule.after,
        span(rule.within),
        rule.address_after,
        span(rule.quiet),
        span(rule.first),
        span(rule.longest)
    )
}
