//! What a dashboard shows of the rules: the newest blocks and bans.

use std::cmp::Reverse;

use anyhow::Result;

use super::Context;
use crate::bans::Bans;
use crate::clock::Clock;
use crate::store::ban_row;
use crate::view::RuleView;

/// The newest blocks and bans.
#[derive(Clone, Debug)]
pub struct Newest {
    /// The newest first; bans too.
    pub rows: Vec<RuleView>,
    /// How many there are in all.
    pub total: usize,
}

/// Rules that hold with the next attach.
#[derive(Clone, Debug)]
pub struct KeptRules {
    /// Active blocks.
    pub blocks: i64,
    /// Active allowances.
    pub allowances: usize,
    /// Names of the trunks.
    pub trunks: Vec<String>,
}

/// What the store has; `None` where there is none.
///
/// # Errors
/// When the store can't be read.
pub fn kept_rules(host: &Context) -> Result<Option<KeptRules>> {
    let now_ms = Clock::now()?.wall_ms();
    host.read(|rows| {
        let blocks = rows.blocks_by_origin(now_ms)?.iter().map(|(_, count)| count).sum();
        let allowances = rows.allowing()?.iter().filter(|row| row.is_active(now_ms)).count();
        let trunks = rows.trunks()?.into_iter().map(|trunk| trunk.name).collect();
        Ok(KeptRules { blocks, allowances, trunks })
    })
}

/// The newest blocks and bans, `most` of them: those in force, or without an attached guard those that the next `attach` brings.
///
/// # Errors
/// When the store or a map can't be read.
pub fn newest_blocks(host: &Context, is_attached: bool, most: usize) -> Result<Newest> {
    let clock = Clock::now()?;
    let now_ms = clock.wall_ms();
    let read = host.read(|rows| {
        let total: i64 = rows.blocks_by_origin(now_ms)?.iter().map(|(_, count)| count).sum();
        Ok((rows.newest_blocks(now_ms, most)?, total, rows.bans(&clock)?))
    })?;
    let (rows, total, kept) = read.unwrap_or_default();
    let bans = if is_attached { Bans::open(&host.pins)?.list(clock.boot_ns)? } else { kept };
    let bans: Vec<_> = bans.into_iter().filter(|(_, ban)| ban.is_active(clock.boot_ns)).collect();
    let total = usize::try_from(total).unwrap_or(0) + bans.len();
    let bans = bans.iter().map(|(target, ban)| {
        (ban_row(*target, ban, &clock).created_ms, RuleView::of_ban(*target, ban, &clock))
    });
    let mut all: Vec<(i64, RuleView)> =
        rows.iter().map(|row| (row.created_ms, RuleView::of_row(row))).chain(bans).collect();
    all.sort_by_key(|(created_ms, _)| Reverse(*created_ms));
    all.truncate(most);
    Ok(Newest { rows: all.into_iter().map(|(_, view)| view).collect(), total })
}
