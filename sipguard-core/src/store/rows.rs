//! The rows of `rules`.

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use rusqlite::{Connection, ToSql, params};

use super::origin::is_operators;
use crate::address::{Source, mapped};
use crate::rule::{RuleMode, RuleVerb};
use crate::target::Target;

/// A rule: what one origin set for one target, with either verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRow {
    /// Whom it is about.
    pub target: Target,
    /// Who set it: [`super::OPERATOR`], or such as `fail2ban`.
    pub origin: String,
    /// What is to be done.
    pub verb: RuleVerb,
    /// Whether a block stops.
    pub mode: RuleMode,
    /// Why; may be empty.
    pub reason: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// When it was set first (milliseconds since 1970, UTC).
    pub created_ms: i64,
    /// When it ends; `None` for a permanent one.
    pub expires_ms: Option<i64>,
    /// The store's version at which it was set last.
    pub version: i64,
}

impl RuleRow {
    /// Whether it is a block that stops nothing, and only counts what it would stop.
    #[must_use]
    pub fn only_counts(&self) -> bool {
        self.verb == RuleVerb::Block && self.mode == RuleMode::Monitor
    }

    /// Whether it holds at a wall time in milliseconds.
    #[must_use]
    pub fn is_active(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|end| now_ms < end)
    }

    /// Whether an operator decided it: nothing automatic allows. What was found in the kernel was in force, so it counts as decided.
    #[must_use]
    pub(crate) fn is_operators(&self) -> bool {
        self.verb == RuleVerb::Allow || is_operators(&self.origin) || self.origin == super::RECOVERED
    }
}

/// `kind` and `target` of a row: the order of the table.
pub type RuleKey = (&'static str, String);

/// The key of a target.
#[must_use]
pub(crate) fn key(target: &Target) -> RuleKey {
    (target.kind(), target.to_string())
}

/// Which rows are asked for; `None` is any.
#[derive(Clone, Copy, Debug)]
pub struct RuleQuery<'w> {
    /// Of this verb.
    pub verb: Option<RuleVerb>,
    /// Of this source.
    pub origin: Option<&'w str>,
    /// That hold at this wall time in milliseconds.
    pub now_ms: i64,
    /// That end at this wall time or before.
    pub ends_by_ms: Option<i64>,
}

/// The rows that are wanted, with the fields of [`RuleQuery`] as parameters 1 to 4.
const HOLDS: &str = "(?1 IS NULL OR verb = ?1) AND (?2 IS NULL OR origin = ?2) AND (expires IS NULL OR expires > ?3) AND (?4 IS NULL OR expires <= ?4)";

/// Kind, target and origin of a row: its position among those of one verb.
pub(super) type RulePosition = (String, String, String);

/// Rows of one statement.
pub(super) const BATCH: usize = 32;
/// Rows that are read with one lock of the file: who reads longer keeps writers from their commit.
pub(super) const PAGE: usize = 1000;

const COLUMNS: &str = "target, origin, verb, mode, reason, author, created, expires, word";

/// What a row of a table holds.
pub(super) trait FromRow: Sized {
    /// The table, which an older store may not have.
    const TABLE: &'static str;
    /// Reads all of it.
    const SELECT: &'static str;

    fn from_row(row: &rusqlite::Row<'_>) -> Result<Self>;
}

/// The text of a column.
pub(super) fn text<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<&'r str> {
    row.get_ref(column)?.as_str().map_err(anyhow::Error::new)
}

/// The table in a connection or transaction.
pub struct StoreTables<'c> {
    db: &'c Connection,
}

impl<'c> StoreTables<'c> {
    pub(super) fn new(db: &'c Connection) -> StoreTables<'c> {
        StoreTables { db }
    }

    pub(super) fn db(&self) -> &'c Connection {
        self.db
    }

    /// Whether there is a table: one that is only read may be of an older sipguard.
    pub(super) fn has(&self, table: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        Ok(self.db.query_row(sql, [table], |row| row.get(0))?)
    }

    /// All rows of a table; none where the store is older than the table.
    pub(super) fn read_all<T: FromRow>(&self) -> Result<Vec<T>> {
        if !self.has(T::TABLE)? {
            return Ok(Vec::new());
        }
        let mut statement = self.db.prepare(T::SELECT)?;
        let mut found = statement.query([])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(T::from_row(row)?);
        }
        Ok(rows)
    }

    /// Every row, those of one target side by side.
    pub fn all(&self) -> Result<Vec<RuleRow>> {
        let mut all = Vec::new();
        let query = RuleQuery { verb: None, origin: None, now_ms: i64::MIN, ends_by_ms: None };
        self.each(&query, usize::MAX, &mut |row| {
            all.push(row);
            Ok(())
        })?;
        Ok(all)
    }

    /// The rows that allow.
    pub fn allowing(&self) -> Result<Vec<RuleRow>> {
        self.select("WHERE verb = 'allow'", [])
    }

    /// The rows of one target.
    pub fn of(&self, target: &Target) -> Result<Vec<RuleRow>> {
        let (kind, text) = key(target);
        self.select("WHERE kind = ?1 AND target = ?2", params![kind, text])
    }

    /// The rows that an address lies in, the longest prefix first.
    pub fn around(&self, address: IpAddr) -> Result<Vec<RuleRow>> {
        let mut rows = self.of(&Source::from(address).into())?;
        let nets = (0..128).rev().filter_map(|bits| Source::network(mapped(address), bits));
        // Lengths that the family does not have give no prefix.
        for net in nets {
            rows.extend(self.of(&net.into())?);
        }
        Ok(rows)
    }

    /// The rows of one source about user agents.
    pub(crate) fn agents_of(&self, origin: &str) -> Result<Vec<RuleRow>> {
        self.select("WHERE kind = 'user-agent' AND origin = ?1", [origin])
    }

    /// The rows of identities and user agents, which are few.
    pub fn claims(&self) -> Result<Vec<RuleRow>> {
        self.select("WHERE kind IN ('identity', 'user-agent')", [])
    }

    /// The blocks that hold at a wall time in milliseconds, the newest first.
    pub fn newest_blocks(&self, now_ms: i64, most: usize) -> Result<Vec<RuleRow>> {
        let rest = "WHERE verb = 'block' AND (expires IS NULL OR expires > ?1) ORDER BY created DESC, target LIMIT ?2";
        self.select(rest, params![now_ms, i64::try_from(most)?])
    }

    /// The rules that were set or changed last, the latest first.
    pub fn newest(&self, count: u32) -> Result<Vec<RuleRow>> {
        self.select("ORDER BY word DESC, kind, target, origin LIMIT ?1", [count])
    }

    /// Whether there is no row at all.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.db.query_row("SELECT NOT EXISTS (SELECT 1 FROM rules)", [], |row| row.get(0))?)
    }

    /// Rows of a verb, of one source or of all, in the order of the table behind a kind, target and source.
    pub fn said(
        &self,
        verb: RuleVerb,
        origin: Option<&str>,
        after: Option<&RulePosition>,
        most: usize,
    ) -> Result<Vec<RuleRow>> {
        let (kind, target, source) = after
            .map_or(("", "", ""), |(kind, target, source)| (kind.as_str(), target.as_str(), source.as_str()));
        self.select(
            "WHERE (kind, target, origin) > (?1, ?2, ?3) AND verb = ?4 AND (?5 IS NULL OR origin = ?5)
             ORDER BY kind, target, origin LIMIT ?6",
            params![kind, target, source, verb.name(), origin, i64::try_from(most)?],
        )
    }

    /// Hands on the rows that are wanted and hold, `most` of them, in the order of the table. How many more there are.
    pub fn each(
        &self,
        query: &RuleQuery<'_>,
        most: usize,
        take: &mut dyn FnMut(RuleRow) -> Result<()>,
    ) -> Result<usize> {
        let RuleQuery { verb, origin, now_ms, ends_by_ms } = *query;
        let verb = verb.map(RuleVerb::name);
        let mut after = (String::new(), String::new(), String::new(), "");
        let mut left = most;
        while left > 0 {
            let page = self.select(
                &format!(
                    "WHERE {HOLDS} AND (kind, target, origin, verb) > (?5, ?6, ?7, ?8)
                     ORDER BY kind, target, origin, verb LIMIT ?9"
                ),
                params![
                    verb,
                    origin,
                    now_ms,
                    ends_by_ms,
                    after.0,
                    after.1,
                    after.2,
                    after.3,
                    left.min(PAGE) as i64
                ],
            )?;
            let Some(last) = page.last() else { return Ok(0) };
            let (kind, text) = key(&last.target);
            after = (kind.to_owned(), text, last.origin.clone(), last.verb.name());
            left -= page.len();
            page.into_iter().try_for_each(&mut *take)?;
        }
        Ok(self.count(query)?.saturating_sub(most))
    }

    /// How many rows are wanted and hold.
    pub fn count(&self, query: &RuleQuery<'_>) -> Result<usize> {
        let RuleQuery { verb, origin, now_ms, ends_by_ms } = *query;
        let sql = format!("SELECT count(*) FROM rules WHERE {HOLDS}");
        let count: i64 = self.db.query_row(
            &sql,
            params![verb.map(RuleVerb::name), origin, now_ms, ends_by_ms],
            |row| row.get(0),
        )?;
        Ok(usize::try_from(count)?)
    }

    /// Rows in the order of the table, behind those of a target.
    pub fn page(&self, after: Option<&RuleKey>, most: usize) -> Result<Vec<RuleRow>> {
        let (kind, target) = after.map_or(("", ""), |(kind, target)| (*kind, target.as_str()));
        self.select(
            "WHERE (kind, target) > (?1, ?2) ORDER BY kind, target, origin LIMIT ?3",
            params![kind, target, i64::try_from(most)?],
        )
    }

    /// Whether there are more rows than that.
    pub(super) fn are_more_than(&self, count: i64) -> Result<bool> {
        let sql = "SELECT count(*) > ?1 FROM (SELECT 1 FROM rules LIMIT ?1 + 1)";
        Ok(self.db.query_row(sql, [count], |row| row.get(0))?)
    }

    /// Rows that have ended. More than these are swept with the next changes; the kernel ends all of them by itself.
    pub(super) fn ended(&self, now_ms: i64) -> Result<Vec<RuleRow>> {
        self.select("WHERE expires <= ?1 LIMIT 1000", [now_ms])
    }

    fn select(&self, rest: &str, params: impl rusqlite::Params) -> Result<Vec<RuleRow>> {
        self.select_from("rules", rest, params)
    }

    pub(super) fn select_from(
        &self,
        table: &str,
        rest: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<RuleRow>> {
        let mut statement = self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM {table} {rest}"))?;
        let mut found = statement.query(params)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            // A store that can't be written may have some still.
            if !is_mapped(row.get_ref(0)?.as_str()?) {
                rows.push(parse(row)?);
            }
        }
        Ok(rows)
    }

    pub(super) fn write(&self, row: &RuleRow) -> Result<()> {
        let (kind, text) = key(&row.target);
        let mut statement = self.db.prepare_cached(
            "INSERT OR REPLACE INTO rules VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.execute(params![
            kind,
            text,
            row.origin,
            row.verb.name(),
            row.mode.name(),
            row.reason,
            row.author,
            row.created_ms,
            row.expires_ms,
            row.version
        ])?;
        Ok(())
    }

    /// Writes rows; [`BATCH`] of them are one statement, since a statement costs more than a row.
    pub(super) fn write_all(&self, rows: &[RuleRow]) -> Result<()> {
        let Ok(rows) = <&[RuleRow; BATCH]>::try_from(rows) else {
            return rows.iter().try_for_each(|row| self.write(row));
        };
        let values = ["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; BATCH].join(", ");
        let mut statement =
            self.db.prepare_cached(&format!("INSERT OR REPLACE INTO rules VALUES {values}"))?;
        for (number, row) in rows.iter().enumerate() {
            let (kind, text) = key(&row.target);
            let (verb, mode) = (row.verb.name(), row.mode.name());
            let values: [&dyn ToSql; 10] = [
                &kind,
                &text,
                &row.origin,
                &verb,
                &mode,
                &row.reason,
                &row.author,
                &row.created_ms,
                &row.expires_ms,
                &row.version,
            ];
            for (at, value) in values.into_iter().enumerate() {
                statement.raw_bind_parameter(number * 10 + at + 1, value)?;
            }
        }
        statement.raw_execute()?;
        Ok(())
    }

    pub(super) fn remove(&self, row: &RuleRow) -> Result<()> {
        let (kind, text) = key(&row.target);
        let mut statement = self.db.prepare_cached(
            "DELETE FROM rules WHERE kind = ?1 AND target = ?2 AND origin = ?3 AND verb = ?4",
        )?;
        statement.execute(params![kind, text, row.origin, row.verb.name()])?;
        Ok(())
    }

    /// The rows that older versions have written as IPv6 and that are of IPv4, each with the text that is stored.
    pub(super) fn mapped(&self) -> Result<Vec<(String, RuleRow)>> {
        let sql = format!("SELECT {COLUMNS} FROM rules WHERE target LIKE '{MAPPED}%'");
        let mut statement = self.db.prepare(&sql)?;
        let mut found = statement.query([])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let text: String = row.get(0)?;
            if is_mapped(&text) {
                rows.push((text, parse(row)?));
            }
        }
        Ok(rows)
    }

    /// Whether there is a rule of a kind.
    pub(super) fn has_kind(&self, kind: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM rules WHERE kind = ?1)";
        Ok(self.db.query_row(sql, [kind], |row| row.get(0))?)
    }

    /// How many targets of a kind there are.
    pub(super) fn targets(&self, kind: &str) -> Result<i64> {
        let sql = "SELECT count(DISTINCT target) FROM rules WHERE kind = ?1";
        Ok(self.db.query_row(sql, [kind], |row| row.get(0))?)
    }
}

const MAPPED: &str = "::ffff:";

/// Whether a stored target is IPv4, and written as IPv6: a form that only older versions wrote.
pub(super) fn is_mapped(text: &str) -> bool {
    // Without this look at its beginning a long list would be written out once more.
    text.starts_with(MAPPED) && text.parse::<Source>().is_ok_and(|source| source.is_ipv4())
}

fn parse(row: &rusqlite::Row<'_>) -> Result<RuleRow> {
    let text = |index| row.get_ref(index)?.as_str().map_err(anyhow::Error::new);
    let strange = |what: &str, word: &str| {
        anyhow!("the store has the {what} `{word}`, which this sipguard does not know")
    };
    let target: Target = text(0)?.parse().map_err(|_| strange("target", text(0).unwrap_or_default()))?;
    Ok(RuleRow {
        target,
        origin: text(1)?.to_owned(),
        verb: RuleVerb::of(text(2)?).ok_or_else(|| strange("verb", text(2).unwrap_or_default()))?,
        mode: RuleMode::of(text(3)?).ok_or_else(|| strange("mode", text(3).unwrap_or_default()))?,
        reason: text(4)?.to_owned(),
        author: text(5)?.to_owned(),
        created_ms: row.get(6)?,
        expires_ms: row.get(7)?,
        version: row.get(8)?,
    })
}
