//! `limit`: how much a sender, or a trunk, may send.

use anyhow::Result;
pub use sipguard_common::abi::MESSAGES;
use sipguard_common::abi::{CountedConnection, RATE_KINDS};

use super::{Context, RuleChange};
use crate::address::Source;
use crate::counting;
use crate::error::{Failure, FailureKind};
use crate::store::{Change, OPERATOR, OpenLimit, StoreTables};
use crate::view::LimitView;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// So many a second, by position in [`RATE_KINDS`].
    Rate(usize),
    /// So many connections open at once.
    Open,
}

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..RATE_KINDS.len()).map(Kind::Rate).chain([Kind::Open])
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Rate(kind) => RATE_KINDS[kind],
            Kind::Open => "open",
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
    /// So many connections open at once.
    Open(u32),
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
            Most::Open(most) => {
                if host.is_attached() {
                    counting::is_on_or_fail(&host.pins)?;
                }
                change.set_open_limit(trunk, most)?;
                format!("{} {most}", named(trunk, Kind::Open.name()))
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
            Some(Kind::Open) => change.clear_open_limit(trunk)?,
            None => {
                change.clear_limits(trunk, None)?;
                change.clear_open_limit(trunk)?;
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

fn known(change: &Change<'_>, trunk: Option<&str>) -> Result<()> {
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
/// When the store or the count of open connections can't be read.
pub fn list(host: &Context) -> Result<Listing> {
    let open = open_now(host)?;
    let limits = host.read(|rows| listed(rows, open.as_deref()))?.unwrap_or_default();
    Ok(Listing { limits, in_force: open.is_some() })
}

/// Who has how many open, the most first; `None` without an attached interface.
fn open_now(host: &Context) -> Result<Option<Vec<(CountedConnection, usize)>>> {
    if !host.is_attached() {
        return Ok(None);
    }
    host.pins.check()?;
    counting::senders(&host.pins).map(Some)
}

fn listed(rows: &StoreTables<'_>, open: Option<&[(CountedConnection, usize)]>) -> Result<Vec<LimitView>> {
    let trunks = rows.trunks()?;
    let number = |name: &str| trunks.iter().find(|trunk| trunk.name == name).map(|trunk| trunk.number);
    let fullest = |trunk: Option<&str>| {
        let number = trunk.map_or(Some(0), number)?;
        open?.iter().find(|(opened, _)| opened.trunk == u32::from(number)).copied()
    };
    let mut all: Vec<LimitView> = rows.limits()?.iter().map(LimitView::of_rate).collect();
    for limit in rows.open_limits()? {
        let fullest = fullest(limit.trunk.as_deref());
        all.push(open_limit(&limit, fullest));
    }
    all.sort_by(|one, other| one.trunk.cmp(&other.trunk));
    Ok(all)
}

/// A limit of open connections, with those of the trunk or of the sender that has the most.
fn open_limit(limit: &OpenLimit, fullest: Option<(CountedConnection, usize)>) -> LimitView {
    let source = fullest.filter(|_| limit.trunk.is_none()).and_then(|(opened, _)| source(&opened));
    LimitView::of_open(limit, fullest.map_or(0, |(_, count)| count), source)
}

/// The sender of a counted connection: a host, or of IPv6 its /64.
fn source(opened: &CountedConnection) -> Option<Source> {
    let bytes = bytemuck::cast(opened.remote);
    Source::from_map(bytes, 128).filter(Source::is_ipv4).or_else(|| Source::from_map(bytes, 64))
}
