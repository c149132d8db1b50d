//! A long list is changed in many short changes, so that others get their turn in between: `mode monitor` or one `block` does not wait for a million
//! rules. It is whole or not at all nevertheless: `bulk` has the words of its changes, by which its rows are known, and `undo` the rows that it replaced
//! or removed, until it is through. When its process dies, the next one that changes anything takes it back, in short changes as well.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::statvfs::statvfs;
use nix::time::{ClockId, clock_gettime};
use rusqlite::Connection;

use super::GUARD;
use super::change::{Changed, Store};
use super::diagnosis::{Unwritable, explain, is_full};
use super::edit::{Change, Counts};
use super::lock::Held;
use super::rows::{RuleKey, key};
use crate::notice;
use crate::pins::Pins;

/// How long one of the changes works before it commits, in time of the processor: on a busy machine it would else do little more than begin and end.
const SLICE: Duration = Duration::from_millis(12);
/// The same on the clock.
const SLICE_AT_MOST: Duration = Duration::from_millis(60);
/// Up to so many targets are no long list.
const FEW: usize = 512;
/// Rows that are taken back together.
const PAGE: usize = 512;
/// What a row takes of the disk, with what is needed to write it.
const ROW_BYTES: u64 = 250;

/// The time of one of the changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    began: Instant,
    worked: Duration,
}

impl Slice {
    /// It begins now.
    pub(super) fn begin() -> Slice {
        Slice { began: Instant::now(), worked: worked() }
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        worked().saturating_sub(self.worked) >= SLICE || self.began.elapsed() >= SLICE_AT_MOST
    }
}

/// How long this thread has worked; nothing where the kernel does not tell.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What one of the changes hands on to the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct BulkProgress {
    /// What was done so far.
    pub counts: Counts,
    /// The version of the last change; 0 before the first.
    pub version: i64,
    /// Whether the store had no rows at first: then what comes in the order of the store is new without a look.
    pub empty: bool,
    /// The last row that came so.
    pub highest: Option<RuleKey>,
}

impl BulkProgress {
    /// Whether nothing was done yet.
    pub(super) fn is_first(&self) -> bool {
        self.version == 0
    }
}

/// Changes the rules of `count` targets. `work` is called again and again until it gives something: it does what it can until
/// [`Change::is_due`].
///
/// # Errors
/// As [`super::change`]. Then nothing has changed.
pub(crate) fn bulk<T>(
    path: &Path,
    pins: &Pins,
    count: usize,
    mut work: impl FnMut(&mut Change<'_>) -> Result<Option<T>>,
) -> Result<Changed<T>> {
    let mut changed = || {
        let store = Store::open(path, pins)?;
        if count <= FEW {
            return store.change_once(&mut |change| work(change)?.context("a short list goes in one change"));
        }
        let bulk = store.locks.bulk()?;
        if count != usize::MAX {
            room_for(path, count)?;
        }
        run_slices(&store, &mut work).inspect_err(|_| {
            if let Err(error) = undo(&store, &bulk) {
                notice::send(format!(
                    "what was done of it could not be taken back yet, the next change will: {error:#}"
                ));
            }
        })
    };
    let value = changed().map_err(|error| explain(error, path))?;
    Ok(Changed { value, in_force: pins.are_attached() })
}

/// Fails when the disk has no room for so many rows, before the first is written.
fn room_for(path: &Path, count: usize) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = statvfs(directory).with_context(|| format!("asking {} for its room", directory.display()))?;
    let (free, needed) = (disk.blocks_available() * disk.fragment_size(), count as u64 * ROW_BYTES);
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "a list of {count} targets needs some {} KiB of it, and there are {} KiB",
        needed >> 10,
        free >> 10
    );
    Err(Unwritable(std::io::Error::new(ErrorKind::StorageFull, text)).into())
}

fn run_slices<T>(store: &Store<'_>, work: &mut dyn FnMut(&mut Change<'_>) -> Result<Option<T>>) -> Result<T> {
    take_back(store)?;
    let mut db = {
        let _turn = store.locks.change()?;
        let db = store.connect()?;
        db.execute("INSERT INTO bulk VALUES (0)", [])?;
        db
    };
    let mut progress = BulkProgress::default();
    loop {
        let _turn = store.locks.change()?;
        let value = store.transact(&mut db, Some(&mut progress), &mut |change| {
            let value = work(change)?;
            if value.is_some() {
                change.rows.db().execute_batch("DELETE FROM undo; DELETE FROM bulk;")?;
            }
            Ok(value)
        })?;
        if let Some(value) = value {
            drop(_turn);
            store.settle()?;
            return Ok(value);
        }
    }
}

/// Whether a long list is under way, or was when its process died.
pub(super) fn is_left(db: &Connection) -> Result<bool> {
    Ok(db.query_row("SELECT EXISTS (SELECT 1 FROM bulk)", [], |row| row.get(0))?)
}

/// Takes a long list back whose process died or that failed. The caller holds the lock of long lists.
pub(super) fn undo(store: &Store<'_>, _bulk: &Held) -> Result<()> {
    take_back(store)?;
    store.settle()
}

fn take_back(store: &Store<'_>) -> Result<()> {
    let mut after: Option<RuleKey> = None;
    let mut through = false;
    // On a full disk there may be room for a small change, which makes more.
    let mut most = usize::MAX;
    let mut turn = store.locks.change()?;
    let mut db = store.connect()?;
    if !is_left(&db)? {
        return Ok(());
    }
    // What it did to the maps in the change in which it died is not known.
    db.execute("UPDATE state SET guard = ''", [])?;
    loop {
        let mut progress = BulkProgress { version: 1, ..BulkProgress::default() };
        let (mut next, mut is_through) = (after.clone(), through);
        let done = store.transact(&mut db, Some(&mut progress), &mut |change| {
            let (slice, mut count) = (Slice::begin(), 0);
            while !is_through && count < most && !slice.is_over() {
                let page = change.rows.page(next.as_ref(), PAGE.min(most))?;
                is_through = page.is_empty();
                for row in page {
                    // Of one target all rows come in one page, or the rest of them comes again.
                    next = Some(key(&row.target));
                    for row in change.rows.of(&row.target)? {
                        if change.rows.is_of_bulk(&row)? {
                            change.take_away(&row)?;
                            count += 1;
                        }
                    }
                }
            }
            while is_through && count < most && !slice.is_over() {
                let page = change.rows.undo_page(PAGE.min(most))?;
                if page.is_empty() {
                    change.rows.db().execute_batch("DELETE FROM bulk;")?;
                    change.compare_all();
                    change.counts.removed = 1;
                    change.record_all(
                        "undo",
                        GUARD,
                        "a list that was not applied to its end".to_owned(),
                        "",
                    )?;
                    return Ok(true);
                }
                for row in page {
                    change.put_back(&row)?;
                    count += 1;
                }
            }
            Ok(false)
        });
        match done {
            Ok(true) => return Ok(()),
            Ok(false) => (after, through) = (next, is_through),
            Err(error) if is_full(&error) && most > 1 => most = most.min(PAGE) / 8,
            Err(error) => return Err(error),
        }
        drop(turn);
        turn = store.locks.change()?;
    }
}
