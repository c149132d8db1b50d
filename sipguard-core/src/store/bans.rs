//! The rows of `bans`, which the kernel makes and the store keeps, and of `ban_policy`, by which it makes them.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rusqlite::params;
use sipguard_common::Reason;
use sipguard_common::abi::Ban;

use super::GUARD;
use super::apply::Apply;
use super::audit::{self, AuditRecord};
use super::edit::{Change, Counts};
use super::rows::{RuleRow, StoreTables};
use crate::address::Source;
use crate::ban_rule::BanRule;
use crate::clock::Clock;
use crate::rule::{RuleMode, RuleVerb};
use crate::target::Target;

/// What a ban says, in the form of a rule.
#[must_use]
pub fn row(target: Target, ban: &Ban, clock: &Clock) -> RuleRow {
    let fault = Reason::from_number(ban.reason).map_or("malformed", Reason::name);
    RuleRow {
        target,
        origin: GUARD.to_owned(),
        verb: RuleVerb::Block,
        mode: RuleMode::Enforce,
        reason: format!("ban {}, malformed streams: {fault}", ban.times),
        author: GUARD.to_owned(),
        created_ms: clock.wall_of(ban.since_ns).unwrap_or(0),
        expires_ms: clock.wall_of(ban.until_ns),
        version: 0,
    }
}

impl StoreTables<'_> {
    /// Every ban that is kept, ended or not; counters of packets are the kernel's and 0 here.
    pub fn bans(&self, clock: &Clock) -> Result<Vec<(Target, Ban)>> {
        if !self.has("bans")? {
            return Ok(Vec::new());
        }
        let mut statement = self.db().prepare("SELECT target, since, until, times, reason FROM bans")?;
        let mut found = statement.query([])?;
        let mut bans = Vec::new();
        while let Some(row) = found.next()? {
            let text = row.get_ref(0)?.as_str()?;
            let target: Target = text.parse().map_err(|error| anyhow!("the store has a ban of: {error}"))?;
            let mut ban: Ban = bytemuck::Zeroable::zeroed();
            ban.since_ns = clock.boot(Some(row.get(1)?));
            ban.until_ns = clock.boot(Some(row.get(2)?));
            ban.times = row.get(3)?;
            ban.reason = row.get(4)?;
            bans.push((target, ban));
        }
        Ok(bans)
    }

    /// When a sender is banned; `None` in a store that is older than bans.
    pub fn ban_rule(&self) -> Result<Option<BanRule>> {
        if !self.has("ban_policy")? {
            return Ok(None);
        }
        let sql = "SELECT after, address_after, within, first, longest, quiet FROM ban_policy";
        let rule = self.db().query_row(sql, [], |row| {
            let span = |index| row.get::<_, u32>(index).map(|ms| Duration::from_millis(ms.into()));
            Ok(BanRule {
                after: row.get(0)?,
                address_after: row.get(1)?,
                within: span(2)?,
                first: span(3)?,
                longest: span(4)?,
                quiet: span(5)?,
            })
        })?;
        Ok(Some(rule))
    }
}

impl Change<'_> {
    /// Says when a sender is banned.
    pub(crate) fn set_ban_rule(&mut self, rule: &BanRule) -> Result<()> {
        if self.rows.ban_rule()?.as_ref() == Some(rule) {
            self.counts.same += 1;
            return Ok(());
        }
        let ms = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        self.rows.db().execute(
            "UPDATE ban_policy SET after = ?1, address_after = ?2, within = ?3, first = ?4, longest = ?5, quiet = ?6",
            params![
                rule.after,
                rule.address_after,
                ms(rule.within),
                ms(rule.first),
                ms(rule.longest),
                ms(rule.quiet)
            ],
        )?;
        self.counts.moved += 1;
        Ok(())
    }

    /// Lifts the bans that lie in targets, or all: those of an address with those of its devices. Gives whose they were.
    pub fn lift(&mut self, targets: Option<&[Target]>) -> Result<Vec<Target>> {
        let mut lifted = Vec::new();
        for (banned, ban) in self.rows.bans(&self.clock)? {
            if targets.is_some_and(|targets| !targets.iter().any(|target| is_within(&banned, target))) {
                continue;
            }
            self.rows.db().execute("DELETE FROM bans WHERE target = ?1", [banned.to_string()])?;
            self.lifted.push(banned);
            if ban.is_active(self.clock.boot_ns) {
                lifted.push(banned);
            }
        }
        Ok(lifted)
    }

    /// Keeps the bans that the kernel has made, and forgets those that have ended there.
    pub(super) fn keep_bans(&mut self, in_kernel: &[(Target, Ban)]) -> Result<()> {
        let known = self.rows.bans(&self.clock)?;
        let wall_ms = |boot_ns| self.clock.wall_of(boot_ns).unwrap_or(0);
        self.rows.db().execute("DELETE FROM bans", [])?;
        for (target, ban) in in_kernel {
            let (since_ms, until_ms) = (wall_ms(ban.since_ns), wall_ms(ban.until_ns));
            self.rows.db().execute(
                "INSERT INTO bans VALUES (?1, ?2, ?3, ?4, ?5)",
                params![target.to_string(), since_ms, until_ms, ban.times, ban.reason],
            )?;
            if known.iter().any(|(one, old)| one == target && old.times == ban.times) {
                continue;
            }
            audit::write(
                self.rows.db(),
                &AuditRecord {
                    at_ms: since_ms,
                    author: GUARD.to_owned(),
                    origin: GUARD.to_owned(),
                    verb: "ban".to_owned(),
                    what: target.to_string(),
                    reason: row(*target, ban, &self.clock).reason,
                    counts: Counts { added: 1, ..Counts::default() },
                },
            )?;
        }
        Ok(())
    }
}

impl Apply<'_> {
    /// Takes bans out of the kernel.
    pub(super) fn lift(&mut self, targets: &[Target]) -> Result<()> {
        for target in targets {
            let old = self.maps.bans.get(target)?;
            self.maps.bans.set(target, None)?;
            self.bans.push((*target, old));
        }
        Ok(())
    }

    /// Gives a guard that has just begun the bans that are kept.
    pub(super) fn ban(&mut self, rows: &StoreTables<'_>) -> Result<()> {
        for (target, ban) in rows.bans(&self.clock)? {
            if ban.is_active(self.clock.boot_ns) {
                self.maps.bans.set(&target, Some(ban))?;
                self.bans.push((target, None));
            }
        }
        Ok(())
    }
}

/// Whether a ban lies in a target: it is its own, or of a device or an address within.
fn is_within(banned: &Target, target: &Target) -> bool {
    let (Target::Source(outer), Some(inner)) = (target, banned.source()) else { return banned == target };
    let covers = |outer: Source, inner: Source| {
        outer.bits() <= inner.bits() && Source::network(inner.bytes(), outer.bits()) == Some(outer)
    };
    // One address of a /64 stands for the ban of all of it.
    covers(*outer, inner) || banned.is_source() && covers(inner, *outer)
}
