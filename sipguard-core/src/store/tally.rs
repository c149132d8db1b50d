//! How many rules there are, without a list of them.

use std::collections::BTreeMap;

use anyhow::Result;
use rusqlite::{OptionalExtension as _, params};

use super::rows::StoreTables;

impl StoreTables<'_> {
    /// How many blocks of each source hold at a wall time in milliseconds. A million rows take a fifth of a second.
    pub fn blocks_by_origin(&self, now_ms: i64) -> Result<Vec<(String, i64)>> {
        // SQLite would sort all rows to group them.
        let sql = "SELECT origin, kind, target, verb, verb = 'block' AND (expires IS NULL OR expires > ?1) FROM rules
             WHERE (kind, target, origin, verb) > (?2, ?3, ?4, ?5) ORDER BY kind, target, origin, verb LIMIT ?6";
        const MANY: usize = 20_000;
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let mut after = [const { String::new() }; 4];
        loop {
            let mut statement = self.db().prepare_cached(sql)?;
            let mut found =
                statement.query(params![now_ms, after[0], after[1], after[2], after[3], MANY as i64])?;
            let mut rows = 0;
            while let Some(row) = found.next()? {
                let origin = row.get_ref(0)?.as_str()?;
                if row.get::<_, bool>(4)? {
                    match counts.get_mut(origin) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(origin.to_owned(), 1)),
                    }
                }
                rows += 1;
                if rows == MANY {
                    after = [row.get(1)?, row.get(2)?, origin.to_owned(), row.get(3)?];
                }
            }
            if rows < MANY {
                return Ok(counts.into_iter().collect());
            }
        }
    }

    /// How many blocks have ended and are not swept yet, whose targets nothing else blocks.
    pub(crate) fn ended_blocks(&self, now_ms: i64) -> Result<i64> {
        let sql = "SELECT count(DISTINCT kind || target) FROM rules AS gone WHERE expires <= ?1 AND verb = 'block' AND NOT EXISTS (
             SELECT 1 FROM rules WHERE kind = gone.kind AND target = gone.target AND verb = 'block' AND (expires IS NULL OR expires > ?1))";
        Ok(self.db().query_row(sql, [now_ms], |row| row.get(0))?)
    }

    /// How many entries of maps block, by the last change, when the maps are those that it changed; and whether no change has begun since.
    pub(crate) fn blocks_of(&self, guard: &str) -> Result<Option<(i64, bool)>> {
        if !self.has("bulk")? {
            return Ok(None);
        }
        let sql = "SELECT blocks, version = applied AND dirty = 0 AND NOT EXISTS (SELECT 1 FROM bulk) FROM state WHERE guard = ?1";
        Ok(self.db().query_row(sql, [guard], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }
}
