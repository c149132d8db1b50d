//! `limit`: how much a sender, or a trunk, may send.

use std::fmt;

use anyhow::Result;
use sipguard_common::abi::CountedConnection;
pub use sipguard_common::abi::MESSAGES;

use super::{Context, RuleChange, mode};
use crate::check::CheckScope;
use crate::counting;
pub use crate::rate::{AtOnce, LimitKind as Kind};
use crate::rate::{AtOnceMost, RateLimit};
pub use crate::rule::RuleMode;
use crate::store::{AtOnceLimit, Change, DEFAULT_LIMITS, OPERATOR, StoreTables};
use crate::view::LimitView;
use crate::{senders, unfinished};

/// A limit that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// So many a second, and so many at once, by position in [`sipguard_common::abi::RATE_KINDS`].
    Rate(usize, RateLimit),
    /// So many at once.
    AtOnce(AtOnce, AtOnceMost),
}

impl Most {
    /// Of what.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Most::Rate(kind, _) => Kind::Rate(kind),
            Most::AtOnce(kind, _) => Kind::AtOnce(kind),
        }
    }

    /// Whether what is over it is stopped, or only counted.
    #[must_use]
    pub fn mode(self) -> RuleMode {
        match self {
            Most::Rate(_, RateLimit { mode, .. }) | Most::AtOnce(_, AtOnceMost { mode, .. }) => mode,
        }
    }
}

/// How much, as in `20/s burst 40`, `500 at once` and `500 at once monitor`.
impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Most::Rate(_, limit) => limit.fmt(f),
            Most::AtOnce(_, limit) => limit.fmt(f),
        }
    }
}

/// Sets a limit: of a trunk, or with `None` of each sender that is no trunk's.
///
/// # Errors
/// When there is no such trunk, the kernel can't count open connections, or the store or the kernel refuses.
pub fn set(host: &Context, trunk: Option<&str>, most: Most) -> Result<RuleChange> {
    let done = host.change(|change| {
        known(change, trunk)?;
        match most {
            Most::Rate(kind, limit) => change.set_limit(trunk, kind, limit)?,
            Most::AtOnce(kind, limit) => {
                if kind == AtOnce::Open && host.is_attached() {
                    counting::is_on_or_fail(&host.pins)?;
                }
                change.set_at_once(trunk, kind, limit)?;
            }
        }
        let what = format!("{} {most}", named(trunk, most.kind().name()));
        change.record("limit set", OPERATOR, &[what], "")?;
        Ok(change.counts)
    })?;
    Ok(RuleChange::of(&done))
}

/// What taking limits away did.
#[derive(Clone, Debug)]
pub struct ClearedLimits {
    /// The change.
    pub change: RuleChange,
    /// The limits that there were.
    pub removed: Vec<Most>,
}

/// Takes limits away, of one kind or of all.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn clear(host: &Context, trunk: Option<&str>, kind: Option<Kind>) -> Result<ClearedLimits> {
    let mut removed = Vec::new();
    let done = host.change(|change| {
        known(change, trunk)?;
        removed = limits(&change.rows, trunk)?;
        removed.retain(|most| kind.is_none_or(|kind| kind == most.kind()));
        match kind {
            Some(Kind::Rate(kind)) => change.clear_limits(trunk, Some(kind))?,
            Some(Kind::AtOnce(kind)) => change.clear_at_once(trunk, kind)?,
            None => {
                change.clear_limits(trunk, None)?;
                AtOnce::ALL.into_iter().try_for_each(|kind| change.clear_at_once(trunk, kind))?;
            }
        }
        change.record("limit clear", OPERATOR, &[named(trunk, kind.map_or("all", Kind::name))], "")?;
        Ok(change.counts)
    })?;
    Ok(ClearedLimits { change: RuleChange::of(&done), removed })
}

/// The limits of devices, or of a trunk.
fn limits(rows: &StoreTables<'_>, trunk: Option<&str>) -> Result<Vec<Most>> {
    let rates = rows.limits()?.into_iter().map(|row| (row.trunk, Most::Rate(row.kind, row.limit)));
    let at_once = rows.at_once_limits()?.into_iter();
    let all = rates.chain(at_once.map(|row| (row.trunk, Most::AtOnce(row.kind, row.limit))));
    Ok(all.filter(|(whose, _)| whose.as_deref() == trunk).map(|(_, most)| most).collect())
}

/// Sets limits to what they are in a new store, of one kind or of all: each source has some, a trunk has none. What the configuration file says
/// is for `reload` to apply.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn reset(host: &Context, trunk: Option<&str>, kind: Option<Kind>) -> Result<RuleChange> {
    let is_new = host.read(|_| Ok(()))?.is_none();
    let mut done = host.change(|change| {
        known(change, trunk)?;
        for one in Kind::all().filter(|one| kind.is_none_or(|kind| kind == *one)) {
            match (default(trunk, one), one) {
                (Some(Most::Rate(kind, limit)), _) => change.set_limit(trunk, kind, limit)?,
                (Some(Most::AtOnce(kind, limit)), _) => change.set_at_once(trunk, kind, limit)?,
                (None, Kind::Rate(kind)) => change.clear_limits(trunk, Some(kind))?,
                (None, Kind::AtOnce(kind)) => change.clear_at_once(trunk, kind)?,
            }
        }
        change.record("limit reset", OPERATOR, &[named(trunk, kind.map_or("all", Kind::name))], "")?;
        Ok(change.counts)
    })?;
    if is_new {
        // There were none: they came with the store.
        done.value.added += std::mem::take(&mut done.value.same);
    }
    Ok(RuleChange::of(&done))
}

/// The limit that a new store has.
#[must_use]
pub fn default(trunk: Option<&str>, kind: Kind) -> Option<Most> {
    if trunk.is_some() {
        return None;
    }
    match kind {
        Kind::Rate(kind) => {
            let found = DEFAULT_LIMITS.iter().find(|(of, _)| *of == kind);
            found.map(|(_, limit)| Most::Rate(kind, *limit))
        }
        Kind::AtOnce(kind) => {
            let most = kind.default()?;
            Some(Most::AtOnce(kind, AtOnceMost { most, mode: RuleMode::Enforce }))
        }
    }
}

/// `messages for devices`, or `messages for trunk carrier`.
#[must_use]
pub fn named(trunk: Option<&str>, kind: &str) -> String {
    format!("{kind} for {}", CheckScope::of_limit(trunk))
}

/// Whether there is such a trunk.
///
/// # Errors
/// [`crate::error::FailureKind::Usage`] when there is none; else when the store can't be read.
pub fn known(change: &Change<'_>, trunk: Option<&str>) -> Result<()> {
    trunk.map_or(Ok(()), |name| super::trunk::known(&change.rows.trunks()?, name))
}

/// The limits.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Those of senders first, and those of each trunk side by side.
    pub limits: Vec<LimitView>,
    /// Whether there is a store: a new one has the defaults.
    pub is_stored: bool,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists the limits.
///
/// # Errors
/// When the store, or what there is at the moment, can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    let now = now(host)?;
    let limits = host.read(|rows| listed(rows, now.as_deref()))?;
    let is_stored = limits.is_some();
    let (mut limits, modes) = (limits.unwrap_or_default(), mode::modes(host)?);
    for limit in &mut limits {
        limit.monitored_by(modes.monitored_by(&CheckScope::of_limit(limit.trunk.as_deref())));
    }
    Ok(Listing { limits, is_stored, in_force: now.is_some() })
}

/// How much of something a sender has at the moment.
#[derive(Clone, Copy, Debug)]
struct Having {
    kind: AtOnce,
    /// Address of a source, IPv4 mapped; of IPv6 its /64, of a trunk zero.
    remote: [u32; 4],
    trunk: u32,
    count: usize,
}

/// Who has how much, the most first; `None` without an attached interface.
fn now(host: &Context) -> Result<Option<Vec<Having>>> {
    if !host.is_attached() {
        return Ok(None);
    }
    host.pins.check()?;
    let open =
        counting::senders(&host.pins)?.into_iter().map(|(CountedConnection { remote, trunk, .. }, count)| {
            Having { kind: AtOnce::Open, remote, trunk, count }
        });
    let unfinished = unfinished::senders(&host.pins)?.into_iter();
    let unfinished = unfinished.map(|sender| Having {
        kind: AtOnce::Unfinished,
        remote: sender.remote,
        trunk: sender.trunk,
        count: sender.count as usize,
    });
    Ok(Some(open.chain(unfinished).collect()))
}

fn listed(rows: &StoreTables<'_>, now: Option<&[Having]>) -> Result<Vec<LimitView>> {
    let trunks = rows.trunks()?;
    let number = |name: &str| trunks.iter().find(|trunk| trunk.name == name).map(|trunk| trunk.number);
    let fullest = |AtOnceLimit { trunk, kind, .. }: &AtOnceLimit| {
        let number = u32::from(trunk.as_deref().map_or(Some(0), number)?);
        now?.iter().find(|having| (having.kind, having.trunk) == (*kind, number)).copied()
    };
    let mut all: Vec<LimitView> = rows.limits()?.iter().map(LimitView::of_rate).collect();
    for limit in rows.at_once_limits()? {
        let fullest = fullest(&limit);
        all.push(at_once(&limit, fullest));
    }
    all.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(all)
}

/// A limit of what there is at once, with how much the trunk has, or the source that has the most.
fn at_once(limit: &AtOnceLimit, fullest: Option<Having>) -> LimitView {
    let whose = fullest.filter(|_| limit.trunk.is_none()).and_then(|having| senders::source(having.remote));
    LimitView::of_at_once(limit, fullest.map_or(0, |having| having.count), whose)
}
