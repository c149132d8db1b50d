//! The rows of `configured`: what the configuration file named when it was applied the last time.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use rusqlite::types::Value;
use rusqlite::{params, params_from_iter};

use super::CONFIGURATION;
use super::edit::Change;
use super::rows::StoreTables;

/// Things that the configuration file names: a kind and a name, such as `trunk` and `carrier`.
pub type ConfiguredNames = BTreeSet<(String, String)>;

/// What a configuration file may change in the store. Of `rules` what it has set itself.
const TABLES: [(&str, &str); 11] = [
    ("trunks", ""),
    ("peers", ""),
    ("balancers", ""),
    ("limits", ""),
    ("open_limits", ""),
    ("unfinished_limits", ""),
    ("checks", ""),
    ("denials", ""),
    ("ban_policy", ""),
    ("configured", ""),
    ("rules", "WHERE origin = 'config'"),
];

/// Rows of those tables, each with what makes it another one.
type ConfiguredContent = BTreeMap<(&'static str, String), Vec<Value>>;

/// What a change has added to the rows that a configuration file may change, and what it has taken from them.
#[derive(Clone, Debug, Default)]
pub struct ConfiguredRows {
    added: ConfiguredContent,
    removed: ConfiguredContent,
}

impl ConfiguredRows {
    /// The difference of two moments.
    #[must_use]
    pub fn between(mut before: ConfiguredContent, mut after: ConfiguredContent) -> ConfiguredRows {
        let same: Vec<_> = before.keys().filter(|key| after.contains_key(*key)).cloned().collect();
        for key in same {
            before.remove(&key);
            after.remove(&key);
        }
        ConfiguredRows { added: after, removed: before }
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl StoreTables<'_> {
    /// All that a configuration file may change.
    pub(crate) fn configured_rows(&self) -> Result<ConfiguredContent> {
        let mut content = ConfiguredContent::new();
        for (table, which) in TABLES {
            let mut statement = self.db().prepare(&format!("SELECT * FROM {table} {which}"))?;
            let columns = statement.column_count();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let values: Vec<Value> = (0..columns).map(|at| row.get(at)).collect::<Result<_, _>>()?;
                content.insert((table, format!("{values:?}")), values);
            }
        }
        Ok(content)
    }

    /// What the configuration file named.
    pub(crate) fn configured(&self) -> Result<ConfiguredNames> {
        let mut named = ConfiguredNames::new();
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
    /// Takes a difference back. Rows that somebody has changed since stay.
    pub(crate) fn give_back(&mut self, rows: &ConfiguredRows) -> Result<()> {
        for ((table, _), values) in &rows.added {
            let statement = self.rows.db().prepare(&format!("SELECT * FROM {table}"))?;
            let same: Vec<String> =
                statement.column_names().map(|column| format!("\"{column}\" IS ?")).collect();
            let sql = format!("DELETE FROM {table} WHERE {}", same.join(" AND "));
            self.counts.removed += self.rows.db().execute(&sql, params_from_iter(values))?;
        }
        for ((table, _), values) in &rows.removed {
            let sql =
                format!("INSERT OR IGNORE INTO {table} VALUES ({})", vec!["?"; values.len()].join(", "));
            self.counts.added += self.rows.db().execute(&sql, params_from_iter(values))?;
        }
        self.allowed.set_peers(self.rows.peers()?);
        self.dirty.all = true;
        self.record("undo", CONFIGURATION, &["attach"], "an attach that nobody confirmed")
    }

    /// Records what the configuration file names from now on.
    pub(crate) fn set_configured(&mut self, named: &ConfiguredNames) -> Result<()> {
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
