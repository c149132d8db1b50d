//! The rows of `configured`: what the configuration file named when it was brought the last time.

use std::collections::BTreeSet;

use anyhow::Result;
use rusqlite::params;

use super::rows::Rows;
use super::say::Change;

/// Things that the configuration file names: a kind and a name, such as `trunk` and `carrier`.
pub type Named = BTreeSet<(String, String)>;

impl Rows<'_> {
    /// What the configuration file named.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn configured(&self) -> Result<Named> {
        let mut named = Named::new();
        if !self.has("configured")? {
            return Ok(named);
        }
        let mut statement = self.db().prepare("SELECT kind, name FROM configured")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            named.insert((row.get(0)?, row.get(1)?));
        }
        Ok(named)
    }
}

impl Change<'_> {
    /// Notes what the configuration file names from now on.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn set_configured(&mut self, named: &Named) -> Result<()> {
        if self.rows.configured()? == *named {
            return Ok(());
        }
        self.rows.db().execute("DELETE FROM configured", [])?;
        let mut insert = self.rows.db().prepare("INSERT INTO configured VALUES (?1, ?2)")?;
        for (kind, name) in named {
            insert.execute(params![kind, name])?;
        }
        Ok(())
    }
}
