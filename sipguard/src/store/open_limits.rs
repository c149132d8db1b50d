//! The rows of `open_limits`: how many TCP connections a source, or a trunk, may have open at once.

use anyhow::Result;
use rusqlite::params;

use super::edit::Change;
use super::rows::{FromRow, StoreTables};

/// A limit of open connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLimit {
    /// The trunk that it is of, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// How many at once, 1 to 1,000,000.
    pub most: u32,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

impl StoreTables<'_> {
    /// Every limit of open connections; that of sources first.
    pub fn open_limits(&self) -> Result<Vec<OpenLimit>> {
        self.read_all()
    }
}

impl FromRow for OpenLimit {
    const TABLE: &'static str = "open_limits";
    const SELECT: &'static str = "SELECT trunk, most, author, created FROM open_limits ORDER BY trunk";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<OpenLimit> {
        Ok(OpenLimit {
            trunk: Some(row.get(0)?).filter(|trunk: &String| !trunk.is_empty()),
            most: row.get(1)?,
            author: row.get(2)?,
            created_ms: row.get(3)?,
        })
    }
}

impl Change<'_> {
    /// Sets a limit of open connections; author and time are this change's.
    pub fn set_open_limit(&mut self, trunk: Option<&str>, most: u32) -> Result<()> {
        let all = self.rows.open_limits()?;
        let old = all.iter().find(|old| old.trunk.as_deref() == trunk);
        if old.is_some_and(|old| old.most == most) {
            self.counts.same += 1;
            return Ok(());
        }
        self.rows.db().execute(
            "INSERT OR REPLACE INTO open_limits VALUES (?1, ?2, ?3, ?4)",
            params![trunk.unwrap_or_default(), most, self.author, self.clock.wall_ms()],
        )?;
        let count = if old.is_some() { &mut self.counts.moved } else { &mut self.counts.added };
        *count += 1;
        Ok(())
    }

    /// Takes a limit of open connections away.
    pub fn clear_open_limit(&mut self, trunk: Option<&str>) -> Result<()> {
        let sql = "DELETE FROM open_limits WHERE trunk = ?1";
        self.counts.removed += self.rows.db().execute(sql, [trunk.unwrap_or_default()])?;
        Ok(())
    }
}
