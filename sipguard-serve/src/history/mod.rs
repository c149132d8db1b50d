//! What was stopped and when, for plots: a SQLite file of its own, which may be deleted at any time.
//!
//! Each slot of ten seconds has a row that says how long it was watched (`spans`), and one for each counter that changed in it
//! (`counts`). Only two readings of one process and of one guard make a row, so a time in which nobody watched has none.
//! What is older than a day is put together in slots of five minutes (`thin.rs`).

mod file;
mod plot;
mod reading;
mod thin;

use std::path::{Path, PathBuf};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::attached::AttachedGuard;
pub(crate) use plot::{PlotView, plot};
pub(crate) use reading::HistorySample;

/// Length of a slot in seconds.
pub(crate) const SLOT_SECS: i64 = 10;
/// Length of a slot of what is older than a day.
pub(crate) const THIN_SECS: i64 = 300;
/// How long what happened is kept, in seconds.
pub(crate) const KEPT_SECS: i64 = 7 * 86_400;
/// The file does not grow beyond this; the oldest goes before.
const MOST_BYTES: i64 = 64 << 20;

/// Where to go on reading events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Whose events.
    pub guard: AttachedGuard,
    /// The number of the next one.
    pub next: u64,
}

/// The file, to be written.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    most_bytes: i64,
    db: Option<Connection>,
    before: Option<HistorySample>,
    thinned: i64,
}

impl History {
    /// In a file, which is made when it is written first.
    #[must_use]
    pub(crate) fn new(path: &Path) -> History {
        History { path: path.to_owned(), most_bytes: MOST_BYTES, db: None, before: None, thinned: 0 }
    }

    /// Where the last process had got to with the events.
    pub(crate) fn position(&mut self) -> Result<Option<Position>> {
        self.with(|db, _| {
            let sql = "SELECT boot, map, next FROM position";
            let found = db.query_row(sql, [], |row| {
                let guard = AttachedGuard { boot: row.get(0)?, map: row.get(1)? };
                Ok(Position { guard, next: row.get::<_, i64>(2)?.cast_unsigned() })
            });
            Ok(found.optional()?)
        })
    }

    /// Remembers how far events were read.
    pub(crate) fn set_position(&mut self, position: &Position) -> Result<()> {
        self.with(|db, _| {
            let sql = "INSERT INTO position VALUES (1, ?1, ?2, ?3) ON CONFLICT (one) DO UPDATE SET boot = ?1, map = ?2, next = ?3";
            let Position { guard, next } = position;
            db.execute(sql, params![guard.boot, guard.map, next.cast_signed()])?;
            Ok(())
        })
    }

    /// Takes a reading at a wall time (seconds since 1970), or that none could be had. What happened since the last one becomes
    /// rows of the slot that has just ended.
    ///
    /// # Errors
    /// When the file can't be written; the time since the last reading is then a gap.
    pub(crate) fn take(&mut self, now: i64, reading: Option<HistorySample>) -> Result<()> {
        let before = std::mem::replace(&mut self.before, reading);
        let since = before.zip(self.before.as_ref()).and_then(|(before, after)| after.since(&before));
        let slot = slot_before(now);
        let thin = now.div_euclid(THIN_SECS);
        let is_due = self.thinned != thin;
        self.with(|db, most_bytes| {
            let tx = db.transaction()?;
            if let Some((span_ms, counts)) = &since {
                reading::write(&tx, slot, *span_ms, counts)?;
            }
            if is_due {
                thin::thin(&tx, now)?;
            }
            thin::bound(&tx, most_bytes)?;
            tx.commit()?;
            Ok(())
        })?;
        self.thinned = thin;
        Ok(())
    }

    /// Works on the open file; after a failure it is opened anew the next time.
    fn with<T>(&mut self, work: impl FnOnce(&mut Connection, i64) -> Result<T>) -> Result<T> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => file::open(&self.path, self.most_bytes)?,
        };
        let outcome = work(&mut db, self.most_bytes);
        if outcome.is_ok() {
            self.db = Some(db);
        }
        outcome.map_err(|error| file::explain(error, &self.path))
    }
}

/// The slot that has ended by `now`.
fn slot_before(now: i64) -> i64 {
    (now.div_euclid(SLOT_SECS) - 1) * SLOT_SECS
}

#[cfg(test)]
mod tests;
