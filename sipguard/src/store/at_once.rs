//! The rows of `open_limits` and `unfinished_limits`: how much a source, or a trunk, may have at once.

use anyhow::Result;
use rusqlite::params;
use sipguard_common::Reason;
use sipguard_common::abi::AT_ONCE_KINDS;

use super::edit::Change;
use super::limits;
use super::rows::StoreTables;
use crate::rate::AtOnceMost;

/// What there may be so many of at once, in the order of [`AT_ONCE_KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtOnce {
    /// Open TCP connections.
    Open,
    /// Messages on TCP connections that have begun and are not finished.
    Unfinished,
}

impl AtOnce {
    /// Every one.
    pub const ALL: [AtOnce; 2] = [AtOnce::Open, AtOnce::Unfinished];

    /// Its name on the command line and in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        AT_ONCE_KINDS[self as usize].0
    }

    /// The reason of what is over its limit.
    #[must_use]
    pub const fn reason(self) -> Reason {
        AT_ONCE_KINDS[self as usize].1
    }

    /// What is counted, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            AtOnce::Open => "open connections",
            AtOnce::Unfinished => "unfinished messages",
        }
    }

    /// What each source may have in a new store.
    #[must_use]
    pub const fn default(self) -> Option<u32> {
        match self {
            AtOnce::Open => None,
            AtOnce::Unfinished => Some(DEFAULT_UNFINISHED),
        }
    }

    /// The table of its limits.
    pub(super) const fn table(self) -> &'static str {
        match self {
            AtOnce::Open => "open_limits",
            AtOnce::Unfinished => "unfinished_limits",
        }
    }
}

/// How many messages a source may have begun and not finished. A whole office behind one address does not come near: a message in several
/// segments is unfinished for the gap between two, or where one is lost for the second until TCP repeats it. Of 1,000 phones that register at
/// once with one segment in ten lost, that are 100. Beyond it no message is hurt: a new connection waits for its SYN's repetition.
pub const DEFAULT_UNFINISHED: u32 = 256;

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
            let table = kind.table();
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
    pub fn set_at_once(&mut self, trunk: Option<&str>, kind: AtOnce, limit: AtOnceMost) -> Result<()> {
        let all = self.rows.at_once_limits()?;
        let old = all.iter().find(|old| (old.trunk.as_deref(), old.kind) == (trunk, kind));
        if old.is_some_and(|old| old.limit == limit) {
            self.counts.same += 1;
            return Ok(());
        }
        self.rows.db().execute(
            &format!(
                "INSERT OR REPLACE INTO {} (trunk, most, mode, author, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                kind.table()
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
    pub fn clear_at_once(&mut self, trunk: Option<&str>, kind: AtOnce) -> Result<()> {
        let sql = format!("DELETE FROM {} WHERE trunk = ?1", kind.table());
        self.counts.removed += self.rows.db().execute(&sql, [trunk.unwrap_or_default()])?;
        Ok(())
    }
}
