//! One change from its lock to its end, in the order that `mod.rs` gives.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, TransactionBehavior, params};
use sipguard_common::abi::{
    DEVICE_ENTRIES, HOST_ENTRIES, IDENTITY_ENTRIES, PREFIX_ENTRIES, USER_AGENT_ENTRIES, rule_flags,
};

use super::apply::{Apply, DirtySet, Maps, in_force};
use super::bulk::{self, BulkProgress, Slice};
use super::compare::Compare;
use super::diagnosis::{explain, is_damage, is_unwritable};
use super::edit::Change;
use super::lock::{Held, Locks};
use super::policy;
use super::rows::{RuleRow, StoreTables};
use super::{RECOVERED, open};
use crate::address::Source;
use crate::clock::Clock;
use crate::counters;
use crate::error::{Failure, FailureKind};
use crate::notice;
use crate::pins::Pins;
use crate::rule::{RuleMode, RuleVerb};

/// Up to so many rows store and maps are compared within the change that asks for it; more take several changes.
const FEW_ROWS: i64 = 4096;

/// What a change gives back.
#[derive(Debug)]
pub struct Changed<T> {
    /// What its work gave.
    pub value: T,
    /// Whether it is in force; otherwise the next `attach` applies it.
    pub in_force: bool,
}

/// Changes rules, in the store and in force, or in neither.
///
/// # Errors
/// When the pins are of another version, the store can't be written, the kernel refuses, or `work` fails. Then nothing has changed.
pub(crate) fn change<T>(
    path: &Path,
    pins: &Pins,
    mut work: impl FnMut(&mut Change<'_>) -> Result<T>,
) -> Result<Changed<T>> {
    let mut changed = || {
        let store = Store::open(path, pins)?;
        store.change(&mut work)
    };
    let value = changed().map_err(|error| explain(error, path))?;
    Ok(Changed { value, in_force: pins.are_attached() })
}

/// Reconciles the maps with the store once `work` is done, for a first `attach`. A store that can't be written is read all the same,
/// without `work`.
pub(crate) fn restore(
    path: &Path,
    pins: &Pins,
    work: &mut dyn FnMut(&mut Change<'_>) -> Result<()>,
) -> Result<()> {
    let mut restored = || {
        let store = Store::open(path, pins)?;
        store.change(work)?;
        let _settle = store.locks.settle()?;
        store.compare()
    };
    match restored() {
        Err(error) if is_unwritable(&error) => {
            notice::send(format!("{:#}", explain(error, path)));
            let clock = Clock::now()?;
            let read = open::read(path, |rows| {
                let mut maps = Maps::open(pins)?.context("the maps are gone")?;
                let mut apply = Apply::new(&mut maps, clock);
                apply.policy(rows)?;
                Compare::new().go(&mut apply, rows, &|| false)
            });
            read.map(|_| ()).or_else(|error| if path.exists() { Err(error) } else { Ok(()) })
        }
        outcome => outcome.map_err(|error| explain(error, path)),
    }
    .context("restoring the rules")
}

/// Repairs what processes that died have left. A store that can't be written is left as it is, and said.
pub(crate) fn refresh(path: &Path, pins: &Pins) -> Result<()> {
    let done = || {
        let store = Store::open(path, pins)?;
        store.change(&mut |_| Ok(()))
    };
    match done().map_err(|error| (is_unwritable(&error), explain(error, path))) {
        Err((true, error)) => {
            notice::send(format!("{error:#}"));
            Ok(())
        }
        outcome => outcome.map_err(|(_, error)| error),
    }
}

/// How many blocks hold in the maps of a guard at a wall time in milliseconds, without a look at each. `None` when these maps are not the ones
/// that the store keeps count of.
pub(crate) fn blocks_in_force(path: &Path, pins: &Pins, now_ms: i64) -> Result<Option<usize>> {
    let guard = pins.identity()?;
    let counted = open::read(path, |rows| match rows.blocks_of(&guard)? {
        // Whoever died in the middle had no time to count.
        Some((_, false)) if !Locks::are_held(path) => Ok(None),
        Some((blocks, _)) => Ok(Some(blocks - rows.ended_blocks(now_ms)?)),
        None => Ok(None),
    })?;
    Ok(counted.flatten().and_then(|blocks| usize::try_from(blocks).ok()))
}

/// A store that is to be changed, with the maps that follow it.
pub(super) struct Store<'p> {
    pub path: &'p Path,
    pins: &'p Pins,
    pub locks: Locks,
}

impl<'p> Store<'p> {
    /// Of a file, which is made where there is none.
    pub(super) fn open(path: &'p Path, pins: &'p Pins) -> Result<Store<'p>> {
        if pins.exist() {
            pins.check_abi()?;
        }
        open::make(path)?;
        Ok(Store { path, pins, locks: Locks::of(path)? })
    }

    /// One change, in its turn. `work` is done again where the file proves to be damaged.
    fn change<T>(&self, work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>) -> Result<T> {
        match self.change_once(work) {
            Err(error) if is_damage(&error) => self.change_once(work),
            outcome => outcome,
        }
    }

    /// One change, in its turn. A file that proves to be damaged meanwhile is set aside, and said.
    pub(super) fn change_once<T>(&self, work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let (turn, mut db) = self.turn()?;
        let value = self.transact(&mut db, None, work).inspect_err(|error| {
            if is_damage(error)
                && let Err(error) = self.set_aside(error)
            {
                notice::send(format!("setting the damaged store aside: {error:#}"));
            }
        })?;
        drop((turn, db));
        self.settle()?;
        Ok(value)
    }

    /// The turn and the file, once what a process has left that died is undone.
    pub(super) fn turn(&self) -> Result<(Held, Connection)> {
        let turn = self.locks.change()?;
        let db = self.connect()?;
        match self.locks.try_bulk()? {
            Some(bulk) if bulk::is_left(&db)? => {
                drop((turn, db));
                bulk::undo(self, &bulk)?;
                let turn = self.locks.change()?;
                Ok((turn, self.connect()?))
            }
            _ => Ok((turn, db)),
        }
    }

    /// The file, opened; a damaged one is set aside, and said.
    pub(super) fn connect(&self) -> Result<Connection> {
        match open::for_change(self.path) {
            Err(error) if is_damage(&error) => {
                self.set_aside(&error)?;
                open::for_change(self.path)
            }
            opened => opened,
        }
    }

    fn set_aside(&self, error: &anyhow::Error) -> Result<()> {
        let aside = open::set_aside(self.path)?;
        notice::send(format!(
            "the store {} is damaged ({error:#}) and was set aside as {}; a new one begins, with the rules that the kernel has",
            self.path.display(),
            aside.display()
        ));
        Ok(())
    }

    /// Rows, and what follows of them in the maps, in one transaction. The caller has the turn. With `progress` it is a part of a long list.
    pub(super) fn transact<T>(
        &self,
        db: &mut Connection,
        mut progress: Option<&mut BulkProgress>,
        work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>,
    ) -> Result<T> {
        let clock = Clock::now()?;
        let mut maps = Maps::open(self.pins)?;
        let mut state = ChangeState::read(db)?;
        if let Some(maps) = &maps {
            if state.version == 0 {
                take_over(db, maps, &clock)?;
                (state.version, state.applied) = (1, 1);
            }
            if state.version != state.applied {
                state.note_death();
            }
            if progress.is_none() {
                // The mark of a change under way: it must be on the disk before the first entry of a map changes. A long list has one of its own.
                db.execute(
                    "UPDATE state SET version = ?1, applied = ?2, dirty = ?3",
                    [state.version + 1, state.version, state.dirty],
                )?;
            }
        }
        let version = state.version + 1;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut apply = maps.as_mut().map(|maps| Apply::new(maps, clock));
        let mut inner = || {
            let mut change = Change::new(StoreTables::new(&tx), clock, version, progress.as_deref())?;
            let ended = change.rows.ended(clock.wall_ms())?;
            change.remove(&ended)?;
            let fresh = apply.as_ref().map(|apply| apply.maps.policy.is_new()).transpose()?.unwrap_or(false);
            if let Some(apply) = apply
                .as_ref()
                .filter(|_| !fresh && progress.as_ref().is_none_or(|progress| progress.is_first()))
            {
                change.keep_bans(&apply.maps.bans.list(clock.boot_ns)?)?;
            }
            let value = work(&mut change)?;
            change.flush()?;
            if let Some(apply) = &mut apply {
                state.reconcile(&mut change, apply, fresh)?;
            } else {
                fits(&change)?;
                // Maps may be there all the same, as for who has no bpffs: they follow with the next change that finds them.
                state.dirty = i64::from(!state.guard.is_empty());
            }
            tx.execute(
                "UPDATE state SET version = ?1, applied = ?1, dirty = ?2, guard = ?3, blocks = ?4",
                params![version, state.dirty, state.guard, state.blocks],
            )?;
            let end = progress.is_some().then(|| change.progress());
            Ok((value, end))
        };
        let outcome = inner().and_then(|value| {
            tx.execute_batch("COMMIT")?;
            Ok(value)
        });
        match outcome {
            Ok((value, end)) => {
                if let (Some(progress), Some(end)) = (progress.as_deref_mut(), end) {
                    *progress = end;
                }
                Ok(value)
            }
            Err(error) => {
                let undone = apply.is_none_or(|mut apply| apply.undo());
                drop(tx);
                if undone && progress.is_none() {
                    // Not needed, but it spares the next change the comparison of everything.
                    let _spared = db.execute("UPDATE state SET applied = version", []);
                }
                Err(error)
            }
        }
    }

    /// Compares all of the store with all of the maps, where somebody asked for it or died.
    pub(super) fn settle(&self) -> Result<()> {
        if !self.is_dirty()? {
            return Ok(());
        }
        // Somebody may be at it already, who then does this as well; whoever dies there leaves it to us.
        let _settle = self.locks.settle().context("it is stored, and not all of it is in force yet")?;
        if self.is_dirty()? { self.compare() } else { Ok(()) }
    }

    fn is_dirty(&self) -> Result<bool> {
        let _turn = self.locks.change()?;
        Ok(ChangeState::read(&self.connect()?)?.dirty != 0)
    }

    /// Compares all of the store with all of the maps. The caller has the right to.
    fn compare(&self) -> Result<()> {
        loop {
            let mut dirty = None;
            let mut compare = Compare::new();
            // Opening it takes as long as a slice.
            let (mut turn, mut db) = self.turn()?;
            loop {
                let Some(mut maps) = Maps::open(self.pins)? else { return Ok(()) };
                let clock = Clock::now()?;
                let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut state = ChangeState::read(&tx)?;
                if state.version != state.applied {
                    state.note_death();
                    state.applied = state.version;
                }
                let first = *dirty.get_or_insert(state.dirty);
                state.count(&maps)?;
                let mut apply = Apply::new(&mut maps, clock);
                let slice = Slice::begin();
                let done = compare.go(&mut apply, &StoreTables::new(&tx), &|| slice.is_over()).inspect_err(
                    |_| {
                        apply.undo();
                    },
                )?;
                if done && state.dirty == first {
                    state.dirty = 0;
                }
                tx.execute(
                    "UPDATE state SET applied = ?1, dirty = ?2, guard = ?3, blocks = ?4",
                    params![state.applied, state.dirty, state.guard, state.blocks + apply.more_blocks],
                )?;
                tx.commit()?;
                match (done, state.dirty) {
                    (true, 0) => return Ok(()),
                    // Another one died meanwhile.
                    (true, _) => break,
                    (false, _) => {
                        drop(turn);
                        turn = self.locks.change()?;
                    }
                }
            }
        }
    }
}

/// The row of `state`.
struct ChangeState {
    version: i64,
    /// `version`, or less while a change is under way.
    applied: i64,
    dirty: i64,
    guard: String,
    blocks: i64,
}

impl ChangeState {
    fn read(db: &Connection) -> Result<ChangeState> {
        Ok(db.query_row("SELECT version, applied, dirty, guard, blocks FROM state", [], |row| {
            Ok(ChangeState {
                version: row.get(0)?,
                applied: row.get(1)?,
                dirty: row.get(2)?,
                guard: row.get(3)?,
                blocks: row.get(4)?,
            })
        })?)
    }

    /// Whoever had the turn before died between the maps and the commit: neither what they say nor how many entries block is known.
    fn note_death(&mut self) {
        self.dirty += 1;
        self.guard.clear();
    }

    /// Makes sure that `blocks` is of these maps.
    fn count(&mut self, maps: &Maps) -> Result<()> {
        let guard = maps.identity.clone();
        if self.guard != guard {
            self.blocks = i64::try_from(maps.rules.entries_that_block()?)?;
            self.guard = guard;
        }
        Ok(())
    }

    /// Reconciles the maps with a change.
    fn reconcile(&mut self, change: &mut Change<'_>, apply: &mut Apply<'_>, fresh: bool) -> Result<()> {
        self.count(apply.maps)?;
        apply.lift(&change.lifted)?;
        if fresh {
            apply.ban(&change.rows)?;
        }
        // Before the kernel knows the trunk, so that nothing of it is counted yet.
        for number in &change.new_trunks {
            counters::clear_trunk(&apply.maps.pins, *number)?;
        }
        apply.policy(&change.rows)?;
        let rows = &change.rows;
        let many = |net: &Source| rows.are_more_within(net, FEW_ROWS);
        if change.dirty.all && !rows.are_more_than(FEW_ROWS)? {
            Compare::new().go(apply, rows, &|| false)?;
        } else if change.dirty.all
            || change
                .dirty
                .within
                .iter()
                .map(many)
                .try_fold(false, |any, many| many.map(|many| any | many))?
        {
            // Too many for one change: the comparison takes as many as it needs.
            apply.apply(&DirtySet { within: Vec::new(), ..change.dirty.clone() }, rows)?;
            self.dirty += 1;
        } else {
            apply.apply(&change.dirty, rows)?;
        }
        if let Some(desired) = &change.settings {
            apply.settings(desired)?;
        }
        self.blocks += apply.more_blocks;
        Ok(())
    }
}

/// Fills a new store with what the kernel has: rules that are older than it, or than the damage of its predecessor.
fn take_over(db: &mut Connection, maps: &Maps, clock: &Clock) -> Result<()> {
    let found = in_force(&maps.rules, clock)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut change = Change::new(StoreTables::new(&tx), *clock, 1, None)?;
    for (target, rule) in &found {
        let allows = rule.flags & rule_flags::ALLOW != 0;
        let monitor = rule.flags & rule_flags::MONITOR != 0;
        change.rows.write(&RuleRow {
            target: *target,
            origin: RECOVERED.to_owned(),
            verb: if allows { RuleVerb::Allow } else { RuleVerb::Block },
            mode: if monitor { RuleMode::Monitor } else { RuleMode::Enforce },
            reason: "found in the kernel".to_owned(),
            author: change.author.clone(),
            created_ms: clock.wall_ms(),
            expires_ms: clock.wall_of(rule.expires_ns),
            version: 1,
        })?;
        change.counts.added += 1;
    }
    if !maps.policy.is_new()? {
        policy::take_over(&mut change, &maps.policy.read()?, &maps.rules.everything()?)?;
    }
    let mut targets: Vec<String> = found.iter().map(|(target, _)| target.to_string()).collect();
    targets.extend(change.rows.denials()?.iter().map(|denial| format!("deny {}", denial.what)));
    change.record("recover", RECOVERED, &targets, "found in the kernel")?;
    change.flush()?;
    tx.execute("UPDATE state SET version = 1, applied = 1", [])?;
    Ok(tx.commit()?)
}

/// Without a kernel to refuse it, the store keeps to the room of the maps by itself.
fn fits(change: &Change<'_>) -> Result<()> {
    for (kind, room) in [
        ("host", HOST_ENTRIES),
        ("prefix", PREFIX_ENTRIES),
        ("device", DEVICE_ENTRIES),
        ("identity", IDENTITY_ENTRIES),
        ("user-agent", USER_AGENT_ENTRIES),
    ] {
        let count = change.rows.targets(kind)?;
        if count > i64::from(room) {
            return Err(Failure::with(
                FailureKind::Failed,
                format!(
                    "there would be {count} rules of the kind `{kind}`, the kernel's map has room for {room}; nothing was changed"
                ),
            ));
        }
    }
    Ok(())
}
