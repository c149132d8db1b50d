//! Reconciles the maps with the store, and takes it back when the kernel refuses.

use anyhow::{Result, ensure};
use sipguard_common::abi::{Ban, Rule, rule_flags};

use super::desired::{Allowed, desired_of};
use super::policy;
use super::rows::StoreTables;
use crate::address::Source;
use crate::bans::Bans;
use crate::blocks::{Blocks, DesiredEntry};
use crate::clock::Clock;
use crate::pins::Pins;
use crate::policy::{Policy, PolicyMaps};
use crate::settings::EffectiveSettings;
use crate::target::Target;

/// Whose entries may have to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DirtySet {
    /// Of these.
    pub some: Vec<DirtyEntry>,
    /// Of all that lies within these: what was allowed or a trunk's there, or is now.
    pub within: Vec<Source>,
    /// Of everybody.
    pub all: bool,
}

/// One entry that may have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirtyEntry {
    /// Whose.
    pub target: Target,
    /// What it should say, where that is known without a look at the store: a long list saves a question for each target.
    pub known: Option<Option<DesiredEntry>>,
}

/// The maps that are derived from the store.
pub(super) struct Maps {
    pub rules: Blocks,
    pub policy: PolicyMaps,
    pub bans: Bans,
    pub pins: Pins,
    /// Which maps they are.
    pub identity: String,
}

impl Maps {
    /// Those of the guard that is attached or being attached, if any.
    ///
    /// # Errors
    /// When they are of another version, or can't be opened.
    pub(super) fn open(pins: &Pins) -> Result<Option<Maps>> {
        if !pins.exist() {
            return Ok(None);
        }
        let open = || {
            pins.check_abi()?;
            let identity = pins.identity()?;
            let maps = Maps {
                rules: Blocks::open(pins)?,
                policy: PolicyMaps::open(pins)?,
                bans: Bans::open(pins)?,
                pins: pins.clone(),
                identity,
            };
            // Some of them may be another guard's, which was attached in between.
            ensure!(pins.identity()? == maps.identity, "the guard was attached anew meanwhile: try again");
            Ok(maps)
        };
        match open() {
            // It was detached in between.
            Err(_) if !pins.exist() => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// The maps, with what is needed to undo.
pub(super) struct Apply<'b> {
    pub(super) maps: &'b mut Maps,
    pub(super) clock: Clock,
    /// The policy that was there before, when it changed.
    policy: Option<Policy>,
    /// The guard's settings that were there before, when they changed.
    settings: Option<EffectiveSettings>,
    /// What was there before; boxed because most often nothing was.
    done: Vec<(Target, Option<Box<Rule>>)>,
    /// Bans that were there before, or were not.
    pub(super) bans: Vec<(Target, Option<Ban>)>,
    /// How many more entries block than before.
    pub(super) more_blocks: i64,
}

impl<'b> Apply<'b> {
    pub(super) fn new(maps: &'b mut Maps, clock: Clock) -> Apply<'b> {
        Apply {
            maps,
            clock,
            policy: None,
            settings: None,
            done: Vec::new(),
            bans: Vec::new(),
            more_blocks: 0,
        }
    }

    /// Applies the difference.
    pub(super) fn apply(&mut self, dirty: &DirtySet, rows: &StoreTables<'_>) -> Result<()> {
        let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, self.clock.wall_ms());
        for DirtyEntry { target, known } in &dirty.some {
            let desired = match known {
                Some(known) => *known,
                None => desired_of(target, &rows.of(target)?, &allowed, &self.clock),
            };
            self.put(target, desired)?;
        }
        for net in &dirty.within {
            rows.each_within(net, &mut |target| {
                let desired = desired_of(&target, &rows.of(&target)?, &allowed, &self.clock);
                self.put_where_it_differs(&target, desired)
            })?;
        }
        Ok(())
    }

    /// Applies the policy, which is small, as a whole.
    pub(super) fn policy(&mut self, rows: &StoreTables<'_>) -> Result<()> {
        let _edit = self.maps.pins.edit()?;
        let (old, desired) = (self.maps.policy.read()?, policy::desired(rows)?);
        if old != desired {
            self.policy = Some(old);
            self.maps.policy.write(&desired)?;
        }
        Ok(())
    }

    /// Puts the guard's settings in force.
    pub(super) fn settings(&mut self, desired: &EffectiveSettings) -> Result<()> {
        let _edit = self.maps.pins.edit()?;
        let old = EffectiveSettings::read(&self.maps.pins)?;
        if old != *desired {
            self.settings = Some(old);
            desired.write(&self.maps.pins)?;
        }
        Ok(())
    }

    fn put(&mut self, target: &Target, desired: Option<DesiredEntry>) -> Result<()> {
        let old = self.maps.rules.put(target, desired, &self.clock)?;
        let blocks =
            |flags: Option<u16>| i64::from(flags.is_some_and(|flags| flags & rule_flags::BLOCK != 0));
        self.more_blocks += blocks(desired.map(|desired| desired.flags)) - blocks(old.map(|old| old.flags));
        self.done.push((*target, old.map(Box::new)));
        Ok(())
    }

    /// The same, of an entry that most often is as wanted already.
    pub(super) fn put_where_it_differs(
        &mut self,
        target: &Target,
        desired: Option<DesiredEntry>,
    ) -> Result<()> {
        let same = match (self.maps.rules.get(target)?, desired) {
            (Some(rule), Some(desired)) => desired.is(&rule),
            (None, None) => true,
            _ => false,
        };
        if same { Ok(()) } else { self.put(target, desired) }
    }

    /// Takes back what was done, the last first. Whether all of it could be.
    pub(super) fn undo(&mut self) -> bool {
        let mut all = true;
        while let Some((target, old)) = self.done.pop() {
            all &= self.maps.rules.set(&target, old.map(|old| *old)).is_ok();
        }
        while let Some((target, old)) = self.bans.pop() {
            all &= self.maps.bans.set(&target, old).is_ok();
        }
        if self.policy.is_none() && self.settings.is_none() {
            return all;
        }
        let edit = self.maps.pins.edit();
        if let Some(policy) = self.policy.take() {
            all &= self.maps.policy.write(&policy).is_ok();
        }
        if let Some(settings) = self.settings.take() {
            all &= settings.write(&self.maps.pins).is_ok();
        }
        all && edit.is_ok()
    }
}

/// The entries that block or allow, which a new store takes over.
pub(super) fn in_force(maps: &Blocks, clock: &Clock) -> Result<Vec<(Target, Rule)>> {
    let mut all = maps.everything()?;
    let decides = |rule: &Rule| rule.flags & (rule_flags::BLOCK | rule_flags::ALLOW) != 0;
    all.retain(|(_, rule)| decides(rule) && rule.is_active(clock.boot_ns));
    all.sort_by_key(|(source, _)| *source);
    Ok(all)
}
