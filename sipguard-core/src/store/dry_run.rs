//! The entries that the maps would have, for a replay: of a store, of the configuration, or of both. Neither store nor kernel change.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::desired::{self, Allowed};
use super::diagnosis::explain;
use super::edit::Change;
use super::rows::StoreTables;
use super::{open, policy, schema};
use crate::blocks::DesiredEntry;
use crate::clock::Clock;
use crate::error::{Failure, FailureKind};
use crate::policy::Policy;
use crate::target::Target;
use crate::trunk::TrunkRow;

/// What the maps would say.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The policy.
    pub policy: Policy,
    /// The entries of rules and of the peers of trunks.
    pub entries: Vec<(Target, DesiredEntry)>,
    /// The trunks.
    pub trunks: Vec<TrunkRow>,
}

/// What would be wanted once `work` was done, on the rules of a store or, without one, on none.
///
/// # Errors
/// When the store is not there or can't be read, and what `work` says.
pub fn dry_run(path: Option<&Path>, work: impl FnOnce(&mut Change<'_>) -> Result<()>) -> Result<DryRun> {
    let Some(path) = path else {
        let mut db = Connection::open_in_memory().context("a store in memory")?;
        schema::migrate(&mut db, 0)?;
        return on(&mut db, work);
    };
    if !path.exists() {
        let text = format!("there is no store {}: name it with `--store FILE`", path.display());
        return Err(Failure::with(FailureKind::Failed, text));
    }
    let dry_run = open::as_it_is(path).and_then(|mut db| on(&mut db, work));
    dry_run.map_err(|error| explain(error, path))
}

/// The transaction is never committed.
fn on(db: &mut Connection, work: impl FnOnce(&mut Change<'_>) -> Result<()>) -> Result<DryRun> {
    let clock = Clock::now()?;
    let tx = db.transaction()?;
    let mut change = Change::new(StoreTables::new(&tx), clock, 0, None)?;
    work(&mut change)?;
    change.flush()?;
    let rows = &change.rows;
    let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, clock.wall_ms());
    let entries = desired::all(&rows.all()?, &allowed, &clock).into_iter().collect();
    Ok(DryRun { policy: policy::desired(rows)?, entries, trunks: rows.trunks()? })
}
