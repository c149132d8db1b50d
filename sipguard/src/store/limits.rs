//! The rows of `limits`: how much a source, or a trunk, may send.

use anyhow::{Result, anyhow};
use rusqlite::{Connection, params};
use sipguard_common::abi::{CONNECTIONS, INVITES, RATE_KINDS, REGISTERS, Rate};

use super::at_once::AtOnce;
use super::edit::Change;
use super::rows::{FromRow, StoreTables};

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The trunk that it is of, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Position in [`RATE_KINDS`].
    pub kind: usize,
    /// How many a second, 1 to 1,000,000.
    pub per_second: u32,
    /// How many at once, 1 to 10,000,000.
    pub burst: u32,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

/// What a new store limits each source to (position in [`RATE_KINDS`], a second, at once): floods are held to it, and no office comes near.
pub const DEFAULTS: [(usize, (u32, u32)); 3] =
    [(REGISTERS, (500, 6000)), (INVITES, (300, 3000)), (CONNECTIONS, (500, 5000))];

/// Gives a new store its limits. A store in use keeps what it has.
pub fn begin(db: &Connection) -> Result<()> {
    for (kind, (per_second, burst)) in DEFAULTS {
        let values = params![RATE_KINDS[kind], per_second, burst];
        db.execute("INSERT INTO limits VALUES ('', ?1, ?2, ?3, 'default', unixepoch() * 1000)", values)?;
    }
    for kind in AtOnce::ALL {
        if let Some(most) = kind.default() {
            let sql = format!("INSERT INTO {} VALUES ('', ?1, 'default', unixepoch() * 1000)", kind.table());
            db.execute(&sql, params![most])?;
        }
    }
    Ok(())
}

impl Limit {
    /// The kernel's form.
    #[must_use]
    pub fn rate(&self) -> Rate {
        Rate::new(self.per_second, self.burst)
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
    const SELECT: &'static str =
        "SELECT trunk, kind, per_second, burst, author, created FROM limits ORDER BY trunk, kind";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<Limit> {
        let (trunk, kind): (String, String) = (row.get(0)?, row.get(1)?);
        let strange = || anyhow!("the store has a limit of `{kind}`, which this sipguard does not know");
        Ok(Limit {
            trunk: Some(trunk).filter(|trunk| !trunk.is_empty()),
            kind: RATE_KINDS.iter().position(|name| *name == kind).ok_or_else(strange)?,
            per_second: row.get(2)?,
            burst: row.get(3)?,
            author: row.get(4)?,
            created_ms: row.get(5)?,
        })
    }
}

impl Change<'_> {
    /// Sets a limit; author and time are this change's.
    pub fn set_limit(&mut self, trunk: Option<&str>, kind: usize, per_second: u32, burst: u32) -> Result<()> {
        let all = self.rows.limits()?;
        let old = all.iter().find(|old| (old.trunk.as_deref(), old.kind) == (trunk, kind));
        if old.is_some_and(|old| (old.per_second, old.burst) == (per_second, burst)) {
            self.counts.same += 1;
            return Ok(());
        }
        let (author, now_ms) = (&self.author, self.clock.wall_ms());
        self.rows.db().execute(
            "INSERT OR REPLACE INTO limits VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![trunk.unwrap_or_default(), RATE_KINDS[kind], per_second, burst, author, now_ms],
        )?;
        let count = if old.is_some() { &mut self.counts.moved } else { &mut self.counts.added };
        *count += 1;
        Ok(())
    }

    /// Takes limits away, of one kind or of all.
    pub fn clear_limits(&mut self, trunk: Option<&str>, kind: Option<usize>) -> Result<()> {
        let removed = self.rows.db().execute(
            "DELETE FROM limits WHERE trunk = ?1 AND (?2 IS NULL OR kind = ?2)",
            params![trunk.unwrap_or_default(), kind.map(|kind| RATE_KINDS[kind])],
        )?;
        self.counts.removed += removed;
        Ok(())
    }
}
