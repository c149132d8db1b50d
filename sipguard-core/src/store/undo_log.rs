//! The rows of `bulk` and `undo`: what a long list has added, replaced and removed so far.

use anyhow::Result;
use rusqlite::params;

use super::rows::{RulePosition, RuleRow, StoreTables, key};
use crate::rule::RuleVerb;
use crate::target::Target;

impl StoreTables<'_> {
    /// Marks the rows of a version as those of a long list that is under way.
    pub(super) fn note_bulk(&self, version: i64) -> Result<()> {
        self.db().execute("INSERT INTO bulk VALUES (?1)", [version])?;
        Ok(())
    }

    /// Whether a row is of a long list that is under way.
    pub(super) fn is_of_bulk(&self, row: &RuleRow) -> Result<bool> {
        let mut statement = self.db().prepare_cached("SELECT EXISTS (SELECT 1 FROM bulk WHERE word = ?1)")?;
        Ok(row.version != 0 && statement.query_row([row.version], |row| row.get(0))?)
    }

    /// Keeps a row as it is, if none of its target and source is kept already.
    pub(super) fn keep(&self, row: &RuleRow) -> Result<()> {
        let (kind, text) = key(&row.target);
        let mut statement = self.db().prepare_cached(
            "INSERT OR IGNORE INTO undo SELECT * FROM rules WHERE kind = ?1 AND target = ?2 AND origin = ?3
             AND verb = ?4 AND word NOT IN (SELECT word FROM bulk)",
        )?;
        statement.execute(params![kind, text, row.origin, row.verb.name()])?;
        Ok(())
    }

    /// Removes what [`StoreTables::said`] gives between two of its keys, the second one included; with `keep` all of it is kept as by [`StoreTables::keep`].
    pub(super) fn remove_between(
        &self,
        verb: RuleVerb,
        origin: Option<&str>,
        after: Option<&RulePosition>,
        last: Option<&RulePosition>,
        keep: bool,
    ) -> Result<()> {
        const BETWEEN: &str =
            "(kind, target, origin) > (?1, ?2, ?3) AND (kind, target, origin) <= (?4, ?5, ?6) AND verb = ?7
             AND (?8 IS NULL OR origin = ?8)";
        let begin = (String::new(), String::new(), String::new());
        let (from, to) = (after.unwrap_or(&begin), last.unwrap_or(&begin));
        let params = params![from.0, from.1, from.2, to.0, to.1, to.2, verb.name(), origin];
        if keep {
            let sql = format!(
                "INSERT OR IGNORE INTO undo SELECT * FROM rules WHERE {BETWEEN} AND word NOT IN (SELECT word FROM bulk)"
            );
            self.db().prepare_cached(&sql)?.execute(params)?;
        }
        self.db().prepare_cached(&format!("DELETE FROM rules WHERE {BETWEEN}"))?.execute(params)?;
        Ok(())
    }

    /// Some of the rows that are kept.
    pub(super) fn undo_page(&self, most: usize) -> Result<Vec<RuleRow>> {
        self.select_from("undo", "LIMIT ?1", [i64::try_from(most)?])
    }

    /// Keeps no row of a target any more.
    pub(super) fn forget_all(&self, target: &Target) -> Result<()> {
        let (kind, text) = key(target);
        let mut statement = self.db().prepare_cached("DELETE FROM undo WHERE kind = ?1 AND target = ?2")?;
        statement.execute(params![kind, text])?;
        Ok(())
    }

    /// Keeps a row no more.
    pub(super) fn forget(&self, row: &RuleRow) -> Result<()> {
        let (kind, text) = key(&row.target);
        let mut statement = self.db().prepare_cached(
            "DELETE FROM undo WHERE kind = ?1 AND target = ?2 AND origin = ?3 AND verb = ?4",
        )?;
        statement.execute(params![kind, text, row.origin, row.verb.name()])?;
        Ok(())
    }
}
