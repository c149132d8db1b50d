//! Blocks of countries and AS numbers, as a file has them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::import::{self, List, Progress};
use super::{Context, RuleChange};
use crate::address::Source;
use crate::area::{self, Area, Networks};
use crate::error::{Failure, FailureKind};
use crate::exchange::Entry;
use crate::notice::Notice;
use crate::rule::RuleMode;
use crate::senders::{self, TalliedKind};
use crate::target::Target;

/// After so long, networks have moved to other countries.
const OLD: Duration = Duration::from_secs(90 * 86_400);

/// Whom to block.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name of the file.
    pub file: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Countries and AS numbers.
    pub areas: Vec<Area>,
    /// For how long; `None` is permanent.
    pub lasts: Option<Duration>,
    /// Why.
    pub comment: Option<String>,
    /// Only counts.
    pub monitor: bool,
}

/// Blocks every network of the areas, and lifts those that an earlier file had. Each area is an origin of its own, so that trunks and allowed addresses
/// win. All or none.
///
/// # Errors
/// When the file is no MaxMind DB file, has none of an area, or the store or the kernel refuses.
pub fn block(host: &Context, request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<RuleChange> {
    let Request { file, bytes, areas, .. } = request;
    let networks = area::networks(bytes, areas).map_err(|error| {
        usage(format!("{file} can't be read as a MaxMind DB file: {error:#}: nothing was blocked"))
    })?;
    for area in areas {
        expect_some(&networks, *area, file)?;
    }
    let mut notices = Vec::new();
    notices.extend(age(&networks, file));
    if !request.monitor {
        notices.extend(neighbours(host, &networks.of));
    }
    let mut entries = entries(request, &networks.of);
    import::skip_protected(&mut entries, &mut notices);
    let origin = areas.iter().map(|area| area.origin()).collect::<Vec<_>>().join(" ");
    let list = List { entries, origin, verb: "block", file, lasts: request.lasts, replace: true, notices };
    import::apply(host, list, progress)
}

fn entries(request: &Request, of: &BTreeMap<Area, Vec<Source>>) -> Vec<Entry> {
    let mode = if request.monitor { RuleMode::Monitor } else { RuleMode::Enforce };
    let of = of.iter().flat_map(|(area, sources)| sources.iter().map(|source| (area.origin(), source)));
    let entry = |(origin, source): (String, &Source)| Entry {
        mode,
        reason: request.comment.clone(),
        origin: Some(origin),
        ..Entry::block(Target::Source(*source))
    };
    of.map(entry).collect()
}

fn expect_some(networks: &Networks, area: Area, file: &str) -> Result<()> {
    if networks.of.contains_key(&area) {
        return Ok(());
    }
    let (tells, what) = match area {
        Area::Country(_) => (networks.tells.countries, "countries"),
        Area::As(_) => (networks.tells.numbers, "AS numbers"),
    };
    let kind = &networks.kind;
    Err(usage(match tells {
        true => format!("{file} ({kind}) has no network of {area}: nothing was blocked"),
        false => {
            format!("{file} ({kind}) tells no {what}: nothing was blocked; another file of its maker does")
        }
    }))
}

fn age(networks: &Networks, file: &str) -> Option<Notice> {
    let made = Timestamp::from_second(i64::try_from(networks.made_s).ok()?).ok()?;
    let age = Timestamp::now().duration_since(made);
    (age.as_secs() > OLD.as_secs().cast_signed()).then(|| {
        Notice(format!(
            "{file} was made {} days ago: networks have moved since; a newer one and the same command bring the difference",
            age.as_secs() / 86_400
        ))
    })
}

/// That something well-formed came from there: customers may be among them.
fn neighbours(host: &Context, of: &BTreeMap<Area, Vec<Source>>) -> Option<Notice> {
    if !host.pins.exist() {
        return None;
    }
    // The block holds, whether this can be told or not.
    let senders = senders::read(&host.pins, &[], TalliedKind::Messages).ok()?;
    let is_within = |source: Source| {
        of.values().any(|sources| {
            let behind = sources.partition_point(|one| one.bytes() <= source.bytes());
            sources[..behind].last().is_some_and(|one| one.covers(&source))
        })
    };
    let rows = senders.iter().filter(|row| row.source.is_some_and(is_within));
    let good = rows.map(|row| row.totals[TalliedKind::Messages as usize]).filter(|good| *good > 0);
    let (addresses, messages) = good.fold((0usize, 0), |(count, sum), good| (count + 1, sum + good));
    (addresses > 0).then(|| {
        Notice(format!(
            "well-formed messages came from there since the attach (messages: {messages}, sources: {addresses}): \
             `sipguard counters --by source --of messages` names them, `sipguard allow` excepts them"
        ))
    })
}

fn usage(text: String) -> anyhow::Error {
    Failure::with(FailureKind::Usage, text)
}
