//! The rows of `feeds`: lists of others that are read again and again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use rusqlite::params;

use super::edit::Change;
use super::rows::{FromRow, RuleQuery, RuleRow, StoreTables, text};
use crate::address::Source;
use crate::feed::{FeedForm, FeedSource, ORIGIN};
use crate::rule::RuleVerb;
use crate::target::Target;

/// A feed. Times are milliseconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRow {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: FeedSource,
    /// Its form.
    pub form: FeedForm,
    /// How often it is read.
    pub every: Duration,
    /// How long an entry without an end of its own holds at least after it was read last.
    pub keep: Duration,
    /// The file with the key that the server asks for.
    pub key_file: Option<PathBuf>,
    /// The person at the keyboard.
    pub author: String,
    /// Since when.
    pub created_ms: i64,
    /// When it was read last, whatever came of it; while nothing changes written down once a minute.
    pub tried_ms: Option<i64>,
    /// When that worked.
    pub refreshed_ms: Option<i64>,
    /// When all of it was read, and not only what had changed.
    pub whole_ms: Option<i64>,
    /// Why the last time failed; empty when it did not.
    pub failure: String,
    /// Readings that began and came to no end, one after the other: one may be at work, each more ended with its process.
    pub unfinished: u32,
}

impl FeedRow {
    /// The origin of its rules.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{ORIGIN}{}", self.name)
    }
}

impl StoreTables<'_> {
    /// Every feed, by name.
    pub(crate) fn feeds(&self) -> Result<Vec<FeedRow>> {
        self.read_all()
    }

    /// The addresses that an origin blocks at a wall time, with their ends.
    pub(crate) fn blocked_by(&self, origin: &str, now_ms: i64) -> Result<BTreeMap<Source, Option<i64>>> {
        let query = RuleQuery { verb: Some(RuleVerb::Block), origin: Some(origin), now_ms, ends_by_ms: None };
        let mut blocked = BTreeMap::new();
        self.each(&query, usize::MAX, &mut |row| {
            blocked.extend(
                row.target.source().filter(|_| row.target.is_source()).map(|one| (one, row.expires_ms)),
            );
            Ok(())
        })?;
        Ok(blocked)
    }

    /// The same of some addresses alone.
    pub(crate) fn blocked_among(
        &self,
        origin: &str,
        among: &[Source],
        now_ms: i64,
    ) -> Result<BTreeMap<Source, Option<i64>>> {
        let mut blocked = BTreeMap::new();
        for source in among {
            let rows = self.of(&Target::Source(*source))?;
            let is_ours =
                |row: &&RuleRow| row.origin == origin && row.verb == RuleVerb::Block && row.is_active(now_ms);
            blocked.extend(rows.iter().find(is_ours).map(|row| (*source, row.expires_ms)));
        }
        Ok(blocked)
    }
}

impl FromRow for FeedRow {
    const TABLE: &'static str = "feeds";
    const SELECT: &'static str = "SELECT name, source, form, every, keep, key_file, author, created, tried, refreshed, whole, failure, unfinished FROM feeds ORDER BY name";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<FeedRow> {
        let strange = |what: &str| anyhow!("the store has a feed that this sipguard does not know: {what}");
        let key_file = text(row, 5)?;
        let span = |column| {
            Ok::<_, rusqlite::Error>(Duration::from_millis(row.get::<_, i64>(column)?.unsigned_abs()))
        };
        Ok(FeedRow {
            name: text(row, 0)?.to_owned(),
            source: FeedSource::parse(text(row, 1)?).map_err(|error| strange(&error))?,
            form: FeedForm::of(text(row, 2)?).ok_or_else(|| strange("its form"))?,
            every: span(3)?,
            keep: span(4)?,
            key_file: (!key_file.is_empty()).then(|| key_file.into()),
            author: text(row, 6)?.to_owned(),
            created_ms: row.get(7)?,
            tried_ms: row.get(8)?,
            refreshed_ms: row.get(9)?,
            whole_ms: row.get(10)?,
            failure: text(row, 11)?.to_owned(),
            unfinished: row.get(12)?,
        })
    }
}

impl Change<'_> {
    /// Adds a feed, or gives the one of that name these settings. Author and time are this change's.
    pub(crate) fn set_feed(&mut self, feed: &FeedRow) -> Result<()> {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let key_file =
            feed.key_file.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        self.rows.db().execute(
            "INSERT INTO feeds VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, NULL, NULL, '', 0)
             ON CONFLICT (name) DO UPDATE SET source = ?2, form = ?3, every = ?4, keep = ?5, key_file = ?6",
            params![
                feed.name,
                feed.source.text(),
                feed.form.name(),
                ms(feed.every),
                ms(feed.keep),
                key_file,
                self.author,
                self.clock.wall_ms()
            ],
        )?;
        Ok(())
    }

    /// Removes a feed, where there is one; not its rules.
    pub(crate) fn remove_feed(&mut self, name: &str) -> Result<()> {
        self.rows.db().execute("DELETE FROM feeds WHERE name = ?1", [name])?;
        Ok(())
    }

    /// Writes down that a feed is going to be read, so that a reading that ends this process is known to the next one.
    pub(crate) fn begin_feed(&mut self, name: &str) -> Result<()> {
        self.rows.db().execute(
            "UPDATE feeds SET tried = ?2, unfinished = min(unfinished + 1, 1000) WHERE name = ?1",
            params![name, self.clock.wall_ms()],
        )?;
        Ok(())
    }

    /// Writes down what came of reading a feed: `None` is that it worked, and with `whole` that all of it was read.
    pub(crate) fn note_feed(&mut self, name: &str, whole: bool, failure: Option<&str>) -> Result<()> {
        let now_ms = self.clock.wall_ms();
        match failure {
            Some(why) => self.rows.db().execute(
                "UPDATE feeds SET tried = ?2, failure = ?3, unfinished = 0 WHERE name = ?1",
                params![name, now_ms, why],
            )?,
            None => self.rows.db().execute(
                "UPDATE feeds SET tried = ?2, refreshed = ?2, whole = iif(?3, ?2, whole), failure = '', unfinished = 0
                 WHERE name = ?1",
                params![name, now_ms, whole],
            )?,
        };
        Ok(())
    }
}
