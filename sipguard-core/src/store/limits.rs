//! The rows of `limits`: how much a source, or a trunk, may send.

use anyhow::{Result, anyhow};
use rusqlite::{Connection, params};
use sipguard_common::abi::{CONNECTIONS, INVITES, RATE_KINDS, REGISTERS};

use super::at_once;
use super::edit::Change;
use super::rows::{FromRow, StoreTables};
use crate::rate::{AtOnce, RateLimit};
use crate::rule::RuleMode;

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The trunk that it is of, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Position in [`RATE_KINDS`].
    pub kind: usize,
    /// How many, and what becomes of what is over it.
    pub limit: RateLimit,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

/// What a new store limits each source to, by position in [`RATE_KINDS`]: floods are held to it, and no office comes near.
pub const DEFAULTS: [(usize, RateLimit); 3] =
    [(REGISTERS, enforced(500, 6000)), (INVITES, enforced(300, 3000)), (CONNECTIONS, enforced(500, 5000))];

const fn enforced(per_second: u32, burst: u32) -> RateLimit {
    RateLimit { per_second, burst, mode: RuleMode::Enforce }
}

/// Gives a new store its limits. A store in use keeps what it has.
pub(super) fn begin(db: &Connection) -> Result<()> {
    for (kind, limit) in DEFAULTS {
        db.execute(
            "INSERT INTO limits (trunk, kind, per_second, burst, author, created)
             VALUES ('', ?1, ?2, ?3, 'default', unixepoch() * 1000)",
            params![RATE_KINDS[kind], limit.per_second, limit.burst],
        )?;
    }
    for kind in AtOnce::ALL {
        if let Some(most) = kind.default() {
            let sql = format!(
                "INSERT INTO {} (trunk, most, author, created) VALUES ('', ?1, 'default', unixepoch() * 1000)",
                at_once::table(kind)
            );
            db.execute(&sql, params![most])?;
        }
    }
    Ok(())
}

/// Whether a limit stops what is over it. In a store that is older than the modes of limits each one does.
pub(super) fn mode(row: &rusqlite::Row<'_>) -> Result<RuleMode> {
    match row.get_ref("mode") {
        Err(rusqlite::Error::InvalidColumnName(_)) => Ok(RuleMode::Enforce),
        value => {
            let name = value?.as_str()?;
            RuleMode::of(name).ok_or_else(|| {
                anyhow!("the store has a limit of the mode `{name}`, which this sipguard does not know")
            })
        }
    }
}

impl StoreTables<'_> {
    /// Every limit; those of sources first.
    pub fn limits(&self) -> Result<Vec<Limit>> {
        self.read_all()
    }
}

impl FromRow for Limit {
    const TABLE: &'static str = "limits";
    const SELECT: &'static str = "SELECT * FROM limits ORDER BY trunk, kind";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<Limit> {
        let (trunk, kind): (String, String) = (row.get("trunk")?, row.get("kind")?);
        let strange = || anyhow!("the store has a limit of `{kind}`, which this sipguard does not know");
        Ok(Limit {
            trunk: Some(trunk).filter(|trunk| !trunk.is_empty()),
            kind: RATE_KINDS.iter().position(|name| *name == kind).ok_or_else(strange)?,
            limit: RateLimit {
                per_second: row.get("per_second")?,
                burst: row.get("burst")?,
                mode: mode(row)?,
            },
            author: row.get("author")?,
            created_ms: row.get("created")?,
        })
    }
}

impl Change<'_> {
    /// Sets a limit; author and time are this change's.
    pub(crate) fn set_limit(&mut self, trunk: Option<&str>, kind: usize, limit: RateLimit) -> Result<()> {
        let all = self.rows.limits()?;
        let old = all.iter().find(|old| (old.trunk.as_deref(), old.kind) == (trunk, kind));
        if old.is_some_and(|old| old.limit == limit) {
            self.counts.same += 1;
            return Ok(());
        }
        self.rows.db().execute(
            "INSERT OR REPLACE INTO limits (trunk, kind, per_second, burst, mode, author, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                trunk.unwrap_or_default(),
                RATE_KINDS[kind],
                limit.per_second,
                limit.burst,
                limit.mode.name(),
                self.author,
                self.clock.wall_ms()
            ],
        )?;
        let count = if old.is_some() { &mut self.counts.moved } else { &mut self.counts.added };
        *count += 1;
        Ok(())
    }

    /// Takes limits away, of one kind or of all.
    pub(crate) fn clear_limits(&mut self, trunk: Option<&str>, kind: Option<usize>) -> Result<()> {
        let removed = self.rows.db().execute(
            "DELETE FROM limits WHERE trunk = ?1 AND (?2 IS NULL OR kind = ?2)",
            params![trunk.unwrap_or_default(), kind.map(|kind| RATE_KINDS[kind])],
        )?;
        self.counts.removed += removed;
        Ok(())
    }
}
