//! The rows of `denials`: what a class of senders may not send.

use anyhow::{Result, anyhow};
use rusqlite::params;

use super::edit::Change;
use super::rows::{FromRow, StoreTables, text};
use crate::denial::{DeniedTraffic, Whom};

/// One thing that is denied.
#[derive(Clone, Debug)]
pub struct Denial {
    /// To whom.
    pub whom: Whom,
    /// What.
    pub what: DeniedTraffic,
    /// Why; may be empty.
    pub reason: String,
    /// The person at the keyboard, or the user of the program.
    pub author: String,
    /// Since when (milliseconds since 1970, UTC).
    pub created_ms: i64,
}

impl StoreTables<'_> {
    /// All that is denied, by whom.
    pub fn denials(&self) -> Result<Vec<Denial>> {
        self.read_all()
    }
}

impl FromRow for Denial {
    const TABLE: &'static str = "denials";
    const SELECT: &'static str = "SELECT whom, method, transport, reason, author, created FROM denials ORDER BY whom, transport, method";

    fn from_row(row: &rusqlite::Row<'_>) -> Result<Denial> {
        let (method, transport) = (text(row, 1)?, text(row, 2)?);
        let name = if method.is_empty() { transport.to_owned() } else { format!("{method}/{transport}") };
        let strange = |error| anyhow!("the store denies what this sipguard does not know: {error}");
        Ok(Denial {
            whom: Whom::parse(text(row, 0)?).map_err(strange)?,
            what: DeniedTraffic::parse(&name).map_err(strange)?[0],
            reason: text(row, 3)?.to_owned(),
            author: text(row, 4)?.to_owned(),
            created_ms: row.get(5)?,
        })
    }
}

/// What `deny` or `permit` did.
#[derive(Clone, Debug, Default)]
pub struct DenialChange {
    /// What changed.
    pub changed: Vec<DeniedTraffic>,
    /// What was so already.
    pub same: Vec<DeniedTraffic>,
    /// What is denied still, of what was permitted: by a wider or a narrower denial.
    pub left: Vec<DeniedTraffic>,
}

impl Change<'_> {
    /// Denies. A reason that is not given leaves the one that is there.
    pub fn deny(&mut self, whom: Whom, all: &[DeniedTraffic], reason: Option<&str>) -> Result<DenialChange> {
        let before = self.rows.denials()?;
        let mut done = DenialChange::default();
        for what in all {
            let old = before.iter().find(|old| is(old, whom, what));
            if old.is_some_and(|old| reason.is_none_or(|reason| old.reason == reason)) {
                done.same.push(*what);
                continue;
            }
            self.rows.db().execute(
                "INSERT INTO denials VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET reason = excluded.reason, author = excluded.author",
                params![
                    whom.name(),
                    method(what),
                    transport(what),
                    reason.unwrap_or_default(),
                    self.author,
                    self.clock.wall_ms()
                ],
            )?;
            if old.is_some() {
                self.counts.moved += 1;
            } else {
                self.counts.added += 1;
            }
            done.changed.push(*what);
        }
        self.counts.same += done.same.len();
        Ok(done)
    }

    /// Permits what was denied.
    pub fn permit(&mut self, whom: Whom, all: &[DeniedTraffic]) -> Result<DenialChange> {
        let mut done = DenialChange::default();
        for what in all {
            let removed = self.rows.db().execute(
                "DELETE FROM denials WHERE whom = ?1 AND method = ?2 AND transport = ?3",
                params![whom.name(), method(what), transport(what)],
            )?;
            let list = if removed > 0 { &mut done.changed } else { &mut done.same };
            list.push(*what);
        }
        self.counts.removed += done.changed.len();
        self.counts.same += done.same.len();
        let overlap = |left: &DeniedTraffic| {
            let meets = |what: &DeniedTraffic| {
                what.transport == left.transport && (what.method.is_none() || left.method.is_none())
            };
            all.iter().any(meets)
        };
        let left = self.rows.denials()?.into_iter().filter(|left| left.whom == whom);
        done.left = left.map(|left| left.what).filter(overlap).collect();
        Ok(done)
    }
}

fn is(denial: &Denial, whom: Whom, what: &DeniedTraffic) -> bool {
    denial.whom == whom && denial.what.transport == what.transport && denial.what.bits() == what.bits()
}

fn method(what: &DeniedTraffic) -> &'static str {
    what.method.map_or("", |method| method.name)
}

fn transport(what: &DeniedTraffic) -> &'static str {
    sipguard_common::abi::TRANSPORTS[what.transport]
}
