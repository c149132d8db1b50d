//! `limit`: how much a sender, or a trunk, may send.

use anyhow::Result;
pub use sipguard_common::abi::MESSAGES;
use sipguard_common::abi::{CountedConnection, RATE_KINDS};

use super::{Context, RuleChange};
use crate::counting;
use crate::error::{Failure, FailureKind};
pub use crate::store::AtOnce;
use crate::store::{AtOnceLimit, Change, OPERATOR, StoreTables};
use crate::view::LimitView;
use crate::{senders, unfinished};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many a second, by position in [`RATE_KINDS`].
    Rate(usize),
    /// So many at once.
    AtOnce(AtOnce),
}

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..RATE_KINDS.len()).map(Kind::Rate).chain(AtOnce::ALL.map(Kind::AtOnce))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rate(kind) => RATE_KINDS[kind],
            Kind::AtOnce(kind) => kind.name(),
        }
    }
}

/// A limit that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Most {
    /// So many a second, and so many at once.
    Rate {
        /// Position in [`RATE_KINDS`].
        kind: usize,
        /// A second.
        per_second: u32,
        /// At once.
        burst: u32,
    },
    /// So many at once.
    AtOnce(AtOnce, u32),
}

/// Sets a limit: of a trunk, or with `None` of each sender that is no trunk's.
///
/// # Errors
/// When there is no such trunk, the kernel can't count open connections, or the store or the kernel refuses.
pub fn set(host: &Context, trunk: Option<&str>, most: Most) -> Result<RuleChange> {
    let done = host.change(|change| {
        known(change, trunk)?;
        let what = match most {
            Most::Rate { kind, per_second, burst } => {
                change.set_limit(trunk, kind, per_second, burst)?;
                format!("{} {per_second}/s burst {burst}", named(trunk, RATE_KINDS[kind]))
            }
            Most::AtOnce(kind, most) => {
                if kind == AtOnce::Open && host.is_attached() {
                    counting::is_on_or_fail(&host.pins)?;
                }
                change.set_at_once(trunk, kind, most)?;
                format!("{} {most}", named(trunk, kind.name()))
            }
        };
        change.record("limit set", OPERATOR, &[what], "")?;
        Ok(change.counts)
    })?;
    Ok(RuleChange::of(&done))
}

/// Takes limits away, of one kind or of all.
///
/// # Errors
/// When there is no such trunk, or the store or the kernel refuses.
pub fn clear(host: &Context, trunk: Option<&str>, kind: Option<Kind>) -> Result<RuleChange> {
    let done = host.change(|change| {
        known(change, trunk)?;
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
    Ok(RuleChange::of(&done))
}

/// `messages of a source`, or `messages of the trunk carrier`.
#[must_use]
pub fn named(trunk: Option<&str>, kind: &str) -> String {
    trunk.map_or_else(|| format!("{kind} of a source"), |trunk| format!("{kind} of the trunk {trunk}"))
}

/// Whether there is such a trunk.
///
/// # Errors
/// When there is none, or the store can't be read.
pub fn known(change: &Change<'_>, trunk: Option<&str>) -> Result<()> {
    let Some(name) = trunk else { return Ok(()) };
    if change.rows.trunks()?.iter().any(|trunk| trunk.name == name) {
        return Ok(());
    }
    let text = format!("there is no trunk {name}: `sipguard trunk list` shows them");
    Err(Failure::with(FailureKind::Failed, text))
}

/// The limits.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Those of senders first, and those of each trunk side by side.
    pub limits: Vec<LimitView>,
    /// Whether a guard is attached.
    pub in_force: bool,
}

/// Lists the limits.
///
/// # Errors
/// When the store, or what there is at the moment, can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    let now = now(host)?;
    let limits = host.read(|rows| listed(rows, now.as_deref()))?.unwrap_or_default();
    Ok(Listing { limits, in_force: now.is_some() })
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
