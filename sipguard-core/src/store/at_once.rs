//! The rows of `open_limits` and `unfinished_limits`: how much a source, or a trunk, may have at once.

use anyhow::Result;
use rusqlite::params;

use super::edit::Change;
use super::limits;
use super::rows::StoreTables;
use crate::rate::{AtOnce, AtOnceMost};

/// The table of the limits of a kind.
pub(super) const fn table(kind: AtOnce) -> &'static str {
    match kind {
        AtOnce::Open => "open_limits",
        AtOnce::Unfinished => "unfinished_limits",
    }
}

/// A limit of what there is at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtOnceLimit {
    /// The trunk that it is of, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Of what.
    pub kind: AtOnce,
    /// How many at once, and what becomes of what is over it.
    pub limit: AtOnceMost,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

impl StoreTables<'_> {
    /// Every limit of what there is at once, by kind; that of sources first.
    pub fn at_once_limits(&self) -> Result<Vec<AtOnceLimit>> {
        let mut all = Vec::new();
        for kind in AtOnce::ALL {
            let table = table(kind);
            if !self.has(table)? {
                continue;
            }
            let sql = format!("SELECT * FROM {table} ORDER BY trunk");
            let mut statement = self.db().prepare(&sql)?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                all.push(AtOnceLimit {
                    trunk: Some(row.get("trunk")?).filter(|trunk: &String| !trunk.is_empty()),
                    kind,
                    limit: AtOnceMost { most: row.get("most")?, mode: limits::mode(row)? },
                    author: row.get("author")?,
                    created_ms: row.get("created")?,
                });
            }
        }
        Ok(all)
    }
}

impl Change<'_> {
    /// Sets a limit of what there is at once; author and time are this change's.
    pub(crate) fn set_at_once(&mut self, trunk: Option<&str>, kind: AtOnce, limit: AtOnceMost) -> Result<()> {
        let all = self.rows.at_once_limits()?;
        let old = all.iter().find(|old| (old.trunk.as_deref(), old.kind) == (trunk, kind));
        if old.is_some_and(|old| old.limit == limit) {
            self.counts.same += 1;
            return Ok(());
        }
        self.rows.db().execute(
            &format!(
                "INSERT OR REPLACE INTO {} (trunk, most, mode, author, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                table(kind)
            ),
            params![
                trunk.unwrap_or_default(),
                limit.most,
                limit.mode.name(),
                self.author,
                self.clock.wall_ms()
            ],
        )?;
        let count = if old.is_some() { &mut self.counts.moved } else { &mut self.counts.added };
        *count += 1;
        Ok(())
    }

    /// Takes such a limit away.
    pub(crate) fn clear_at_once(&mut self, trunk: Option<&str>, kind: AtOnce) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE trunk = ?1", table(kind));
        self.counts.removed += self.rows.db().execute(&sql, [trunk.unwrap_or_default()])?;
        Ok(())
    }
}
