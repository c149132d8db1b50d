//! One change from its lock to its end, in the order that `mod.rs` gives.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, TransactionBehavior};
use sipguard_common::abi::rule_flags;

use super::apply::{Apply, Maps, Touched, in_force};
use super::policy;
use super::rows::{Mode, Row, Rows, Verb};
use super::say::Change;
use super::trouble::{explain, is_damage, is_unwritable};
use super::{RECOVERED, open};
use crate::clock::Clock;
use crate::error::{Failure, Status};
use crate::pins::Pins;

/// Room of the kernel's maps, which a store that nothing is attached to keeps to as well.
const HOSTS: i64 = 1 << 20;
const PREFIXES: i64 = 1 << 18;
const DEVICES: i64 = 1 << 16;
const IDENTITIES: i64 = 1 << 16;
const USER_AGENTS: i64 = 1 << 12;

/// What a change gives back.
pub struct Changed<T> {
    /// What its work gave.
    pub value: T,
    /// Whether it is in force; otherwise the next `attach` brings it.
    pub in_force: bool,
}

/// Whether the guard is attached; a link is what makes it so.
#[must_use]
pub fn is_attached(pins: &Pins) -> bool {
    pins.exist() && !pins.slots().is_empty()
}

/// Changes rules, in the store and in force, or in neither. `step` hears of each target that is brought to the kernel.
///
/// # Errors
/// When the pins are of another version, the store can't be written, the kernel refuses, or `work` fails. Then nothing has changed.
pub fn change<T>(
    path: &Path,
    pins: &Pins,
    step: &(dyn Fn() + Sync),
    mut work: impl FnMut(&mut Change<'_>) -> Result<T>,
) -> Result<Changed<T>> {
    // Without pins and without a place for them there is nobody to keep out, except other writers of the file.
    let _lock = pins.dir().parent().is_some_and(Path::exists).then(|| pins.lock(true)).transpose()?;
    let in_force = is_attached(pins);
    let mut maps = None;
    if in_force {
        pins.check()?;
        maps = Some(Maps::open(pins)?);
    }
    let value = with_store(path, maps.as_mut(), Touched::Some(Vec::new()), step, &mut work);
    let value = value.map_err(|error| explain(error, path))?;
    Ok(Changed { value, in_force })
}

/// Brings the maps to what the store wants once `work` is done, for `attach`, which holds the lock. A store that can't be written is read
/// all the same, without `work`.
///
/// # Errors
/// When the store can't be read or the kernel refuses.
pub fn restore(path: &Path, pins: &Pins, work: &mut dyn FnMut(&mut Change<'_>) -> Result<()>) -> Result<()> {
    let mut maps = Maps::open(pins)?;
    match with_store(path, Some(&mut maps), Touched::All, &|| {}, work) {
        Err(error) if is_unwritable(&error) => {
            eprintln!("sipguard: {:#}", explain(error, path));
            let clock = Clock::now()?;
            let read =
                open::read(path, |rows| Apply::new(&mut maps, clock).bring(&Touched::All, rows, &|| {}));
            read.map(|_| ()).or_else(|error| if path.exists() { Err(error) } else { Ok(()) })
        }
        outcome => outcome.map_err(|error| explain(error, path)),
    }
    .context("restoring the rules")
}

fn with_store<T>(
    path: &Path,
    mut maps: Option<&mut Maps>,
    touched: Touched,
    step: &(dyn Fn() + Sync),
    work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>,
) -> Result<T> {
    let mut attempt = || {
        let mut db = open::for_change(path)?;
        transact(&mut db, maps.as_deref_mut(), touched.clone(), step, work)
    };
    let mut outcome = attempt();
    if let Err(error) = &outcome
        && is_damage(error)
    {
        let aside = open::set_aside(path)?;
        eprintln!(
            "sipguard: the store {} is damaged ({error:#}) and was set aside as {}; a new one begins, with the rules that the kernel has",
            path.display(),
            aside.display()
        );
        outcome = attempt();
    }
    outcome
}

fn transact<T>(
    db: &mut Connection,
    maps: Option<&mut Maps>,
    mut touched: Touched,
    step: &(dyn Fn() + Sync),
    work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>,
) -> Result<T> {
    let clock = Clock::now()?;
    let (mut version, applied) = state(db)?;
    let fresh = maps.as_ref().map(|maps| maps.policy.is_new()).transpose()?.unwrap_or(false);
    if let Some(maps) = &maps {
        if version == 0 {
            take_over(db, maps, &clock)?;
            version = 1;
        } else if version != applied {
            touched = Touched::All;
        }
        // The mark of a change under way: it must be on the disk before the first entry of a map changes.
        db.execute("UPDATE state SET version = ?1", [version + 1])?;
    }
    version += 1;
    let clean = touched != Touched::All;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut apply = maps.map(|maps| Apply::new(maps, clock));
    let mut inner = || {
        let mut change = Change::new(Rows::new(&tx), clock, version, touched.clone())?;
        let ended = change.rows.ended(clock.wall_ms())?;
        change.remove(&ended)?;
        match &apply {
            Some(apply) if !fresh => change.keep_bans(&apply.maps.bans.list(clock.boot_ns)?)?,
            _ => {}
        }
        let value = match &mut apply {
            Some(apply) => apply.beside(&mut change, step, work)?,
            None => work(&mut change)?,
        };
        match &mut apply {
            Some(apply) => {
                apply.lift(&change.lifted)?;
                if fresh {
                    apply.ban(&change.rows)?;
                }
                apply.bring(&change.touched, &change.rows, step)?;
                if let Some(wanted) = &change.settings {
                    apply.settings(wanted)?;
                }
            }
            None => fits(&change)?,
        }
        tx.execute("UPDATE state SET version = ?1, applied = ?1", [version])?;
        Ok(value)
    };
    let outcome = inner().and_then(|value| {
        tx.execute_batch("COMMIT")?;
        Ok(value)
    });
    if outcome.is_err() {
        let undone = apply.is_none_or(|mut apply| apply.undo());
        drop(tx);
        if undone && clean {
            // Not needed, but it spares the next change the comparison of everything.
            let _spared = db.execute("UPDATE state SET applied = version", []);
        }
    }
    outcome
}

fn state(db: &Connection) -> Result<(i64, i64)> {
    Ok(db.query_row("SELECT version, applied FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Fills a new store with what the kernel has: rules that are older than it, or than the damage of its predecessor.
fn take_over(db: &mut Connection, maps: &Maps, clock: &Clock) -> Result<()> {
    let found = in_force(&maps.rules, clock)?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut change = Change::new(Rows::new(&tx), *clock, 1, Touched::All)?;
    for (target, rule) in &found {
        let allows = rule.flags & rule_flags::ALLOW != 0;
        let monitor = rule.flags & rule_flags::MONITOR != 0;
        change.rows.write(&Row {
            target: *target,
            origin: RECOVERED.to_owned(),
            verb: if allows { Verb::Allow } else { Verb::Block },
            mode: if monitor { Mode::Monitor } else { Mode::Enforce },
            reason: "found in the kernel".to_owned(),
            author: change.author.clone(),
            created_ms: clock.wall_ms(),
            expires_ms: clock.wall_of(rule.expires_ns),
            word: 1,
        })?;
        change.counts.added += 1;
    }
    if !maps.policy.is_new()? {
        policy::take_over(&mut change, &maps.policy.read()?, &maps.rules.everything()?)?;
    }
    let mut targets: Vec<String> = found.iter().map(|(target, _)| target.to_string()).collect();
    targets.extend(change.rows.denials()?.iter().map(|denial| format!("deny {}", denial.what)));
    change.record("recover", RECOVERED, &targets, "found in the kernel")?;
    tx.execute("UPDATE state SET version = 1, applied = 1", [])?;
    Ok(tx.commit()?)
}

/// Without a kernel to refuse it, the store keeps to the room of the maps by itself.
fn fits(change: &Change<'_>) -> Result<()> {
    for (kind, room) in [
        ("host", HOSTS),
        ("prefix", PREFIXES),
        ("device", DEVICES),
        ("identity", IDENTITIES),
        ("user-agent", USER_AGENTS),
    ] {
        let count = change.rows.targets(kind)?;
        if count > room {
            return Err(Failure::with(
                Status::Failed,
                format!(
                    "there would be {count} rules of the kind `{kind}`, the kernel's map has room for {room}; nothing was changed"
                ),
            ));
        }
    }
    Ok(())
}
