//! Opening the file: its modes, a look at its health, and a place aside for a damaged one.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::diagnosis::{Damaged, Unwritable, explain, is_damage};
use super::rows::StoreTables;
use super::schema::{self, APPLICATION_ID};
use crate::error::{Failure, FailureKind};
use crate::notice;
use crate::trunk::TrunkRow;

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(5);
/// A file up to this size is looked at as a whole whenever it is opened; that takes some 20 ms. A larger one when a process died.
const SMALL_BYTES: u64 = 4 << 20;

/// Opens the store for a change, and makes it where there is none. The caller has the turn.
pub(super) fn for_change(path: &Path) -> Result<Connection> {
    make(path)?;
    let mut db = connect(path)?;
    // A rollback journal: one file at rest, readable on a read-only file system, and nothing to map where the disk is full.
    let _: String = db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    let version = checked(&db, path, true)?;
    schema::migrate(&mut db, version)?;
    Ok(db)
}

/// What is in the store; `None` when there is no file. A damaged one is left to the next change, and said.
pub fn read<T>(path: &Path, work: impl FnOnce(&StoreTables<'_>) -> Result<T>) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let opened = connect(path).and_then(|db| {
        let version = checked(&db, path, false)?;
        if version == 0 { Ok(None) } else { work(&StoreTables::new(&db)).map(Some) }
    });
    match opened {
        Err(error) if is_damage(&error) => {
            let path = path.display();
            notice::send(format!(
                "the store {path} is damaged ({error:#}); the next change sets it aside. Shown is what the kernel has"
            ));
            Ok(None)
        }
        opened => opened.map_err(|error| explain(error, path)),
    }
}

/// Opens a store that is there, to be left as it is. An older one is too old: only a change migrates it to today's tables.
pub(super) fn as_it_is(path: &Path) -> Result<Connection> {
    let db = connect(path)?;
    let version = checked(&db, path, false)?;
    if version != schema::newest() {
        let text = format!(
            "the store {} has schema {version}, and this sipguard's is {}: its next change of a rule brings it there",
            path.display(),
            schema::newest()
        );
        return Err(Failure::with(FailureKind::Failed, text));
    }
    Ok(db)
}

/// Every trunk, or none without a file.
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method of one lifetime does not stand for any"
)]
pub fn all_trunks(path: &Path) -> Result<Vec<TrunkRow>> {
    Ok(read(path, |rows| rows.trunks())?.unwrap_or_default())
}

/// Makes the file, and the directory that it lies in.
pub(super) fn make(path: &Path) -> Result<()> {
    let outcome = || -> std::io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.map(drop),
        }
    };
    outcome().map_err(|error| anyhow::Error::new(Unwritable(error)))
}

fn connect(path: &Path) -> Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(PATIENCE)?;
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cache_size = -8192;")?;
    Ok(db)
}

/// The schema version of a file that is ours and whole. Whoever has the turn to change it sees that a process died; others may see a change under way.
fn checked(db: &Connection, path: &Path, has_turn: bool) -> Result<i64> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version")?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == 0 && tables == 0 {
        return Ok(0);
    }
    let refused = |text: String| Err(Failure::with(FailureKind::Failed, text));
    let shown = path.display();
    if pragma("application_id")? != i64::from(APPLICATION_ID) {
        return refused(format!(
            "{shown} is a database of another program: name the store with `--store FILE`"
        ));
    }
    let newest = schema::newest();
    if version > newest {
        return refused(format!(
            "the store {shown} has schema {version}, this sipguard knows {newest} at the most: use the newer sipguard that wrote it, or \
             name another store with `--store FILE`. Nothing was changed"
        ));
    }
    let length = std::fs::metadata(path).with_context(|| format!("looking at {shown}"))?.len();
    let told = u64::try_from(pragma("page_count")? * pragma("page_size")?).unwrap_or(0);
    if length < told {
        return Err(Damaged(format!("it has {length} bytes and says that it has {told}")).into());
    }
    let died = || db.query_row("SELECT version <> applied FROM state", [], |row| row.get::<_, bool>(0));
    if length <= SMALL_BYTES || has_turn && died()? {
        let word: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if word != "ok" {
            return Err(Damaged(word.lines().collect::<Vec<_>>().join(" ")).into());
        }
    }
    Ok(version)
}

/// Renames a damaged file, with the journal that belongs to it. The caller says so.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = named(&format!(".damaged-{stamp}"));
    let journal = named("-journal");
    if journal.exists() {
        let kept = named(&format!(".damaged-{stamp}-journal"));
        std::fs::rename(&journal, kept).map_err(Unwritable)?;
    }
    std::fs::rename(path, &aside).map_err(Unwritable)?;
    Ok(aside)
}
