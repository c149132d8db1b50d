//! `sipguard trunk`: who the carriers are, and what they may send.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use sipguard_common::abi::TRANSPORTS;

use super::usage;
use crate::address::Source;
use crate::counters;
use crate::error::{Failure, Status};
use crate::output::{Format, object, rows, table};
use crate::pins::Pins;
use crate::store::{self, Changed, Counts, OPERATOR, TrunkRow, change, parse_reason};
use crate::trunk::{self, TrunkMode, TrunkPolicy, TrunkProfile};
use crate::view::{self, TrunkCounters, TrunkView, schema, time};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a trunk of the addresses of a carrier; nothing automatic blocks them
    Add(AddArgs),
    /// Change a trunk; what is not named stays
    Set(SetArgs),
    /// Remove a trunk: its peers are devices like any other
    Remove {
        /// Its name
        #[arg(value_parser = trunk::name)]
        name: String,
    },
    /// List the trunks
    List,
    /// Show a trunk: peers, policy, and what was counted
    Show {
        /// Its name
        #[arg(value_parser = trunk::name)]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Its name: 1 to 32 of a-z, 0-9 and -_.
    #[arg(value_parser = trunk::name)]
    name: String,

    /// Its addresses and prefixes; of prefixes within each other the longest says whose an address is
    #[arg(long = "peer", value_name = "CIDR", required = true, num_args = 1..)]
    peers: Vec<String>,

    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// Its name
    #[arg(value_parser = trunk::name)]
    name: String,

    /// All of its addresses and prefixes, instead of those that it has
    #[arg(long = "peer", value_name = "CIDR", num_args = 1..)]
    peers: Vec<String>,

    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// What it may use, such as udp,tls; the rest is denied [default: all]
    #[arg(long, value_name = "LIST|all", value_parser = transports)]
    transport: Option<Transports>,

    /// What it may send, such as INVITE,ACK,BYE,CANCEL,OPTIONS; the rest is denied (over TLS no method can be told) [default: all]
    #[arg(long, value_name = "LIST|all", value_parser = trunk::method_set)]
    method: Option<u32>,

    /// How its messages are judged: as everybody's (inherit), or by a profile of its own [default: inherit]
    #[arg(long, value_name = "inherit|default|strict", value_parser = TrunkProfile::parse)]
    profile: Option<TrunkProfile>,

    /// Whether its faults are stopped: as the guard's mode says (inherit), always, or never [default: inherit]
    #[arg(long, value_name = "inherit|enforce|monitor", value_parser = TrunkMode::parse)]
    mode: Option<TrunkMode>,

    /// What it is, for `trunk list`
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: Option<String>,

    /// Take peers shorter than /8 (IPv6: /16) as well
    #[arg(long)]
    force: bool,
}

/// clap takes an array for several values.
#[derive(Clone, Copy, Debug)]
struct Transports([bool; TRANSPORTS.len()]);

fn transports(text: &str) -> Result<Transports, String> {
    trunk::transports(text).map(Transports)
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Add(args) => add(pins, path, format, args),
        Verb::Set(args) => set(pins, path, format, args),
        Verb::Remove { name } => remove(pins, path, format, name),
        Verb::List => list(pins, path, format),
        Verb::Show { name } => show(pins, path, format, name),
    }
}

fn add(pins: &Pins, path: &Path, format: Format, args: &AddArgs) -> Result<()> {
    let peers = peers(&args.peers, args.policy.force)?;
    let mut row = TrunkRow {
        name: args.name.clone(),
        number: 0,
        peers,
        policy: TrunkPolicy::default(),
        reason: String::new(),
        author: String::new(),
        created_ms: 0,
    };
    merge(&mut row, &args.policy);
    let done = change(path, pins, |change| {
        let old = change.rows.trunks()?.into_iter().find(|old| old.name == row.name);
        let differs = |old: &TrunkRow| (&old.peers, old.policy) != (&row.peers, row.policy);
        if old.as_ref().is_some_and(differs) {
            let text = format!("there is a trunk {} already: `sipguard trunk set` changes it", row.name);
            return Err(Failure::with(Status::Failed, text));
        }
        // What is not named stays, as with `set`.
        let reason = old.filter(|_| args.policy.reason.is_none()).map(|old| old.reason);
        let row = TrunkRow { reason: reason.unwrap_or_else(|| row.reason.clone()), ..row.clone() };
        change.set_trunk(&row)?;
        change.record("trunk add", OPERATOR, &[&row.name], &row.reason)?;
        Ok(change.counts)
    })?;
    hint(&row.policy);
    let what = match done.value.added {
        0 => format!("changed the trunk {}", row.name),
        _ => format!("added the trunk {} with {}", row.name, super::plural(row.peers.len(), "peer")),
    };
    report(format, &done, &what, "it is so already")
}

fn set(pins: &Pins, path: &Path, format: Format, args: &SetArgs) -> Result<()> {
    let desired = peers(&args.peers, args.policy.force)?;
    let done = set_with(pins, path, &args.name, |row| {
        if !desired.is_empty() {
            row.peers.clone_from(&desired);
        }
        merge(row, &args.policy);
        hint(&row.policy);
    })?;
    report(format, &done, &format!("changed the trunk {}", args.name), "it is so already")
}

/// Sets the mode of a trunk, for `sipguard mode`.
pub fn set_mode(pins: &Pins, path: &Path, format: Format, name: &str, mode: TrunkMode) -> Result<()> {
    let done = set_with(pins, path, name, |row| row.policy.mode = mode)?;
    report(format, &done, &format!("{name}: {}", mode.name()), &format!("{name}: {} already", mode.name()))
}

fn set_with(pins: &Pins, path: &Path, name: &str, edit: impl Fn(&mut TrunkRow)) -> Result<Changed<Counts>> {
    change(path, pins, |change| {
        let mut row = find(change.rows.trunks()?, name)?;
        let mode = row.policy.mode;
        edit(&mut row);
        change.set_trunk(&row)?;
        let (old, new) = (mode.name(), row.policy.mode.name());
        let what = if old == new { name.to_owned() } else { format!("{name} mode: {old} -> {new}") };
        change.record("trunk set", OPERATOR, &[what], &row.reason)?;
        Ok(change.counts)
    })
}

fn remove(pins: &Pins, path: &Path, format: Format, name: &str) -> Result<()> {
    let done = change(path, pins, |change| {
        change.remove_trunk(name)?;
        change.record("trunk remove", OPERATOR, &[name], "")?;
        Ok(change.counts)
    })?;
    report(format, &done, &format!("removed the trunk {name}"), &format!("there is no trunk {name}"))
}

fn list(pins: &Pins, path: &Path, format: Format) -> Result<()> {
    let trunks = stored(path)?;
    if format == Format::Table && !pins.are_attached() {
        eprintln!("sipguard: not attached: trunks take effect with the next `sipguard attach`");
    }
    rows(format, schema::TRUNKS, trunks.iter().map(|row| view::json(&TrunkView::from(row))).collect(), || {
        let head = ["TRUNK", "PEERS", "TRANSPORTS", "METHODS", "PROFILE", "MODE", "BY", "SINCE", "REASON"];
        table(&head, trunks.iter().map(line))
    })
}

fn show(pins: &Pins, path: &Path, format: Format, name: &str) -> Result<()> {
    let row = find(stored(path)?, name)?;
    let mut counted = Vec::new();
    if pins.are_attached() {
        pins.check()?;
        counted = counters::of_trunk(pins, &row)?;
    }
    object(format, schema::TRUNK, view::json(&TrunkCounters::new(&row, &counted)), || {
        let peers: Vec<_> = row.peers.iter().map(ToString::to_string).collect();
        let policy = &row.policy;
        let mut text = format!(
            "{name}: {}\n  peers {}\n  transports {}, methods {}, profile {}, mode {}\n  by {}, since {}\n",
            if row.reason.is_empty() { "a trunk" } else { &row.reason },
            peers.join(" "),
            policy.transports_text(),
            policy.methods_text(),
            policy.profile.name(),
            policy.mode.name(),
            row.author,
            time(row.created_ms)
        );
        if !counted.is_empty() {
            text += &super::counters::trunk_table(&counted);
        }
        text
    })
}

/// Every trunk of the store.
pub fn stored(path: &Path) -> Result<Vec<TrunkRow>> {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method of one lifetime does not stand for any"
    )]
    Ok(store::read(path, |rows| rows.trunks())?.unwrap_or_default())
}

fn find(trunks: Vec<TrunkRow>, name: &str) -> Result<TrunkRow> {
    let names: Vec<String> = trunks.iter().map(|trunk| trunk.name.clone()).collect();
    trunks.into_iter().find(|trunk| trunk.name == name).ok_or_else(|| {
        let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
        Failure::with(Status::Failed, format!("there is no trunk {name} (known: {known})"))
    })
}

fn peers(words: &[String], force: bool) -> Result<Vec<Source>> {
    let mut peers = Vec::new();
    for word in words.iter().flat_map(|word| word.split(',')) {
        peers.push(word.parse::<Source>().map_err(usage)?);
    }
    if let Some(wide) = peers.iter().find(|peer| peer.is_wide() && !force) {
        let bits = wide.least_bits();
        let text = format!(
            "{wide} is shorter than /{bits}: nothing was changed; `--force` makes it a peer all the same"
        );
        return Err(Failure::with(Status::Failed, text));
    }
    peers.sort_unstable();
    peers.dedup();
    Ok(peers)
}

fn merge(row: &mut TrunkRow, args: &PolicyArgs) {
    let policy = &mut row.policy;
    policy.transports = args.transport.map_or(policy.transports, |Transports(may)| may);
    policy.methods = args.method.unwrap_or(policy.methods);
    policy.profile = args.profile.unwrap_or(policy.profile);
    policy.mode = args.mode.unwrap_or(policy.mode);
    if let Some(reason) = &args.reason {
        row.reason.clone_from(reason);
    }
}

fn hint(policy: &TrunkPolicy) {
    if let Some(warn) = policy.warn() {
        eprintln!("sipguard: {warn}");
    }
}

/// Prints what a change of one thing did.
pub fn report(format: Format, done: &Changed<Counts>, did: &str, same: &str) -> Result<()> {
    let counts = &done.value;
    let value = json!({
        "added": counts.added, "moved": counts.moved, "removed": counts.removed, "unchanged": counts.same,
        "in_force": done.in_force,
    });
    object(format, "sipguard.change/1", value, || {
        let changed = counts.added + counts.moved + counts.removed > 0;
        let later = if changed && !done.in_force {
            "; not attached: takes effect with the next `sipguard attach`"
        } else {
            ""
        };
        if changed { format!("{did}{later}\n") } else { format!("nothing changed, {same}\n") }
    })
}

fn line(row: &TrunkRow) -> Vec<String> {
    let peers: Vec<_> = row.peers.iter().map(ToString::to_string).collect();
    vec![
        row.name.clone(),
        peers.join(" "),
        row.policy.transports_text(),
        row.policy.methods_text(),
        row.policy.profile.name().to_owned(),
        row.policy.mode.name().to_owned(),
        row.author.clone(),
        time(row.created_ms),
        row.reason.clone(),
    ]
}
