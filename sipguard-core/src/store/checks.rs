//! The rows of `checks`: which checks of messages are not refused, and for whom.

use anyhow::{Result, anyhow};
use rusqlite::params;
use sipguard_common::Reason;

use super::edit::Change;
use super::rows::{FromRow, StoreTables, text};
use crate::check::{self, CheckScope, CheckState, Switch};

/// The switch of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRow {
    /// The switch.
    pub switch: Switch,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

impl StoreTables<'_> {
    /// Every switch; those of the guard first.
    pub fn checks(&self) -> Result<Vec<CheckRow>> {
        self.read_all()
    }

    /// The same, without who set them.
    pub fn switches(&self) -> Result<Vec<Switch>> {
        Ok(self.checks()?.into_iter().map(|row| row.switch).collect())
    }
}

impl FromRow for CheckRow {
    const TABLE: &'static str = "checks";
    const SELECT: &'static str =
        "SELECT scope, reason, state, author, created FROM checks ORDER BY scope, reason";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<CheckRow> {
        let strange = |error| anyhow!("the store has a check that this sipguard does not know: {error}");
        Ok(CheckRow {
            switch: Switch {
                scope: CheckScope::of(text(row, 0)?),
                reason: check::parse(text(row, 1)?).map_err(strange)?,
                state: check::parse_state(text(row, 2)?).map_err(strange)?,
            },
            author: text(row, 3)?.to_owned(),
            created_ms: row.get(4)?,
        })
    }
}

impl Change<'_> {
    /// Sets a switch; author and time are this change's. That the guard refuses needs no row.
    pub(crate) fn set_check(&mut self, switch: &Switch) -> Result<()> {
        let Switch { scope, reason, state } = switch;
        if (scope, state) == (&CheckScope::Everybody, &CheckState::Refuse) {
            return self.clear_checks(scope, Some(*reason));
        }
        let all = self.rows.switches()?;
        let old = all.iter().find(|old| (&old.scope, old.reason) == (scope, *reason));
        if old.is_some_and(|old| old.state == *state) {
            self.counts.same += 1;
            return Ok(());
        }
        let (author, now_ms) = (&self.author, self.clock.wall_ms());
        self.rows.db().execute(
            "INSERT OR REPLACE INTO checks VALUES (?1, ?2, ?3, ?4, ?5)",
            params![scope.key(), reason.name(), state.name(), author, now_ms],
        )?;
        let count = if old.is_some() { &mut self.counts.moved } else { &mut self.counts.added };
        *count += 1;
        Ok(())
    }

    /// Takes switches away, of one check or of all.
    pub(crate) fn clear_checks(&mut self, scope: &CheckScope, reason: Option<Reason>) -> Result<()> {
        let removed = self.rows.db().execute(
            "DELETE FROM checks WHERE scope = ?1 AND (?2 IS NULL OR reason = ?2)",
            params![scope.key(), reason.map(Reason::name)],
        )?;
        self.counts.removed += removed;
        self.counts.same += usize::from(removed == 0);
        Ok(())
    }
}
