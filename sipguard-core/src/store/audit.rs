//! The trail: who did what, when, and to how many. One row a command.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, params};

use super::diagnosis::explain;
use super::edit::{Counts, author};
use super::lock::Locks;
use super::rows::StoreTables;
use super::{OPERATOR, open};
use crate::clock::Clock;
use crate::target::Target;

/// Rows that are kept; the oldest go.
const KEPT: i64 = 100_000;
/// Rows of these that are searched for a target: its event is not older than what the ring of events holds.
const SEARCHED: i64 = 2000;
/// Targets that are named; of more only the number.
pub(super) const NAMED: usize = 4;
/// Settings that are told with what they were and are; of more only the number.
const LINES: usize = 40;

/// One row of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When (milliseconds since 1970, UTC).
    pub at_ms: i64,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// For which source.
    pub origin: String,
    /// The verb.
    pub verb: String,
    /// To what.
    pub what: String,
    /// Why.
    pub reason: String,
    /// What came of it.
    pub counts: Counts,
}

/// `203.0.113.7 203.0.113.9 and 998 more`
pub(super) fn what<T: ToString>(targets: &[T]) -> String {
    named(targets, targets.len())
}

/// The same of `count` targets of which the first are given.
pub(super) fn named<T: ToString>(first: &[T], count: usize) -> String {
    let mut text = first.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if count > NAMED {
        text += &format!(" and {} more", count - NAMED);
    }
    text
}

/// Writes down what was done to the guard itself: attached, detached, its settings changed. Rules and maps stay as they are.
pub(crate) fn note(path: &Path, verb: &str, what: &[String], reason: &str, counts: Counts) -> Result<()> {
    let record = AuditRecord {
        at_ms: Clock::now()?.wall_ms(),
        author: author(),
        origin: OPERATOR.to_owned(),
        verb: verb.to_owned(),
        what: lines(what),
        reason: reason.to_owned(),
        counts,
    };
    let write = || {
        open::make(path)?;
        let _turn = Locks::of(path)?.change()?;
        write(&open::for_change(path)?, &record)
    };
    write().map_err(|error| explain(error, path))
}

/// `guard.mode: enforce -> monitor; checks.line-bytes: 4096 -> 99`
pub(crate) fn lines(all: &[String]) -> String {
    let mut text = all.iter().take(LINES).map(String::as_str).collect::<Vec<_>>().join("; ");
    if all.len() > LINES {
        text += &format!("; and {} more", all.len() - LINES);
    }
    text
}

pub(super) fn write(db: &Connection, record: &AuditRecord) -> Result<()> {
    let Counts { added, moved, removed, same, skipped, overruled: _, again: _ } = record.counts;
    let unchanged = (same + skipped) as i64;
    db.execute(
        "INSERT INTO audit VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            record.at_ms,
            record.author,
            record.origin,
            record.verb,
            record.what,
            record.reason,
            added as i64,
            moved as i64,
            removed as i64,
            unchanged
        ],
    )?;
    db.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [KEPT])?;
    Ok(())
}

/// How a row tells that the guard's mode changed, before the modes.
const MODE_CHANGED: &str = "guard.mode: ";

impl StoreTables<'_> {
    /// When the guard's mode became `mode` (milliseconds since 1970, UTC); `None` where the trail does not know, or the last that it knows of is
    /// another one.
    pub fn mode_since(&self, mode: &str) -> Result<Option<i64>> {
        // Of settings that are told together each is apart from the next by `; `.
        let mut statement = self.db().prepare(
            "SELECT at, what FROM audit WHERE verb IN ('attach', 'mode', 'reload') AND instr(what, ?1) > 0
             ORDER BY id DESC LIMIT 1",
        )?;
        let mut found = statement.query([MODE_CHANGED])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let (at, what) = (row.get(0)?, row.get::<_, String>(1)?);
        let changed = what.split("; ").find_map(|one| one.strip_prefix(MODE_CHANGED));
        let became = changed.and_then(|modes| modes.split(" -> ").nth(1));
        Ok((became == Some(mode)).then_some(at))
    }

    /// The origin and the comment of the last block of exactly this target that the newest part of the trail names, whether it holds or not.
    pub fn last_block(&self, target: Target) -> Result<Option<(String, String)>> {
        let mut statement = self.db().prepare(
            "SELECT origin, reason FROM audit WHERE id > (SELECT max(id) FROM audit) - ?1 AND verb = 'block'
             AND instr(' ' || what || ' ', ' ' || ?2 || ' ') > 0 ORDER BY id DESC LIMIT 1",
        )?;
        let mut found = statement.query(params![SEARCHED, target.to_string()])?;
        found.next()?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
    }

    /// The last `count` rows of the trail, the oldest first; of one source or of all.
    pub fn trail(&self, count: usize, origin: Option<&str>) -> Result<Vec<AuditRecord>> {
        let mut statement = self.db().prepare(
            "SELECT at, author, origin, verb, what, reason, added, moved, removed, unchanged FROM audit
             WHERE ?1 IS NULL OR origin = ?1 ORDER BY id DESC LIMIT ?2",
        )?;
        let number = |row: &rusqlite::Row<'_>, index| row.get::<_, i64>(index).map(|number| number as usize);
        let found = statement.query_map(params![origin, count as i64], |row| {
            Ok(AuditRecord {
                at_ms: row.get(0)?,
                author: row.get(1)?,
                origin: row.get(2)?,
                verb: row.get(3)?,
                what: row.get(4)?,
                reason: row.get(5)?,
                counts: Counts {
                    added: number(row, 6)?,
                    moved: number(row, 7)?,
                    removed: number(row, 8)?,
                    same: number(row, 9)?,
                    ..Counts::default()
                },
            })
        })?;
        let mut records = found.collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        Ok(records)
    }
}
