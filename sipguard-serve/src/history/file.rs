//! The file: its tables, and what can be wrong with it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sipguard_core::notice;

/// `siph`
const APPLICATION_ID: i64 = 0x7369_7068;
const VERSION: i64 = 1;
/// How long to wait for a reader of the file, or for a writer, which waits for the disk at its end.
const PATIENCE: Duration = Duration::from_secs(10);
const PAGE_BYTES: i64 = 4096;

const TABLES: &str = "
CREATE TABLE spans (at INTEGER PRIMARY KEY, watched_ms INTEGER NOT NULL) STRICT;
CREATE TABLE series (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL,
  UNIQUE (kind, name, what, reason)
) STRICT;
CREATE TABLE counts (at INTEGER, series INTEGER, packets INTEGER NOT NULL, PRIMARY KEY (at, series)) STRICT, WITHOUT ROWID;
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, map INTEGER NOT NULL, next INTEGER NOT NULL) STRICT;
";

/// Opens the file to be written, and makes it where there is none. A damaged one is set aside: a history is no loss.
pub(super) fn open(path: &Path, most_bytes: i64) -> Result<Connection> {
    make(path).with_context(|| format!("making {}", path.display()))?;
    let opened = writable(path, most_bytes);
    match opened {
        Err(error) if is_damage(&error) => {
            let aside = aside(path);
            let text = || format!("renaming the damaged {}", path.display());
            std::fs::rename(path, &aside).with_context(text)?;
            // A journal belongs to the file that is gone.
            let _none = std::fs::remove_file(ended(path, "-journal"));
            notice::send(format!("{}: {error:#}; renamed to {}", path.display(), aside.display()));
            make(path).with_context(|| format!("making {}", path.display()))?;
            writable(path, most_bytes)
        }
        opened => opened,
    }
}

/// Opens the file for a reader; `None` where there is none.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let db = connect(path)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((version == VERSION).then_some(db))
}

fn make(path: &Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(PATIENCE)?;
    db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cache_size = -2048;")?;
    Ok(db)
}

fn writable(path: &Path, most_bytes: i64) -> Result<Connection> {
    let db = connect(path)?;
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version = pragma("user_version")?;
    if tables == 0 && version == 0 {
        db.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; \
             PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    } else if pragma("application_id")? != APPLICATION_ID || version != VERSION {
        bail!(
            "it is a database of another program, or of another sipguard: name another file with `--history FILE`"
        );
    }
    // What a power cut takes of the last seconds is no loss.
    db.execute_batch("PRAGMA synchronous = NORMAL;")?;
    let _: String = db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    let _: i64 =
        db.query_row(&format!("PRAGMA max_page_count = {}", most_bytes / PAGE_BYTES), [], |row| row.get(0))?;
    Ok(db)
}

/// Whether the file is no whole database.
fn is_damage(error: &anyhow::Error) -> bool {
    let code = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()
    };
    let codes = [ErrorCode::NotADatabase, ErrorCode::DatabaseCorrupt];
    error.chain().filter_map(code).any(|code| codes.contains(&code))
}

fn aside(path: &Path) -> PathBuf {
    ended(path, ".damaged")
}

fn ended(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The sentence for an operator.
pub(super) fn explain(error: anyhow::Error, path: &Path) -> anyhow::Error {
    error.context(format!(
        "{} can't be written (is there room?), so nothing is added to the history",
        path.display()
    ))
}
