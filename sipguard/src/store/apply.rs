//! Brings the maps from what they have to what the store wants, and back when the kernel refuses.

use anyhow::Result;
use sipguard_common::abi::{Ban, Rule, rule_flags};

use super::rows::Rows;
use super::want::{Allowed, wanted_of};
use super::{policy, want};
use crate::bans::Bans;
use crate::blocks::{Blocks, Wanted};
use crate::clock::Clock;
use crate::pins::Pins;
use crate::policy::{Policy, PolicyMaps};
use crate::settings::Chosen;
use crate::target::Target;

/// Whose entries may have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These.
    Some(Vec<Touch>),
    /// All: the store and the maps are compared as a whole.
    All,
}

/// One entry that may have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Whose.
    pub target: Target,
    /// What it should say, where that is known without a look at the store: a long list saves a question for each target.
    pub known: Option<Option<Wanted>>,
}

impl Touched {
    /// One more.
    pub fn add(&mut self, target: Target, known: Option<Option<Wanted>>) {
        if let Touched::Some(touches) = self {
            touches.push(Touch { target, known });
        }
    }
}

/// The maps that are derived from the store.
pub struct Maps {
    pub rules: Blocks,
    pub policy: PolicyMaps,
    pub bans: Bans,
    pins: Pins,
}

impl Maps {
    pub fn open(pins: &Pins) -> Result<Maps> {
        Ok(Maps {
            rules: Blocks::open(pins)?,
            policy: PolicyMaps::open(pins)?,
            bans: Bans::open(pins)?,
            pins: pins.clone(),
        })
    }
}

/// The maps, with what is needed to undo.
pub struct Apply<'b> {
    pub(super) maps: &'b mut Maps,
    pub(super) clock: Clock,
    /// The policy that was there before, when it changed.
    policy: Option<Policy>,
    /// The guard's settings that were there before, when they changed.
    settings: Option<Chosen>,
    /// What was there before; boxed because most often nothing was.
    done: Vec<(Target, Option<Box<Rule>>)>,
    /// Bans that were there before, or were not.
    pub(super) bans: Vec<(Target, Option<Ban>)>,
}

impl<'b> Apply<'b> {
    pub fn new(maps: &'b mut Maps, clock: Clock) -> Apply<'b> {
        Apply { maps, clock, policy: None, settings: None, done: Vec::new(), bans: Vec::new() }
    }

    /// Applies the difference. `step` hears of each target.
    pub fn bring(&mut self, touched: &Touched, rows: &Rows<'_>, step: &(dyn Fn() + Sync)) -> Result<()> {
        self.policy(rows)?;
        let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, self.clock.wall_ms());
        match touched {
            Touched::All => self.all(rows, &allowed, step),
            Touched::Some(touches) => {
                for Touch { target, known } in touches {
                    step();
                    let wanted = match known {
                        Some(known) => *known,
                        None => wanted_of(target, &rows.of(target)?, &allowed, &self.clock),
                    };
                    self.put(target, wanted)?;
                }
                Ok(())
            }
        }
    }

    fn policy(&mut self, rows: &Rows<'_>) -> Result<()> {
        let (old, wanted) = (self.maps.policy.read()?, policy::wanted(rows)?);
        if old != wanted {
            self.policy = Some(old);
            self.maps.policy.write(&wanted)?;
        }
        Ok(())
    }

    /// Puts the guard's settings in force.
    pub fn settings(&mut self, wanted: &Chosen) -> Result<()> {
        let old = Chosen::read(&self.maps.pins)?;
        if old != *wanted {
            self.settings = Some(old);
            wanted.write(&self.maps.pins)?;
        }
        Ok(())
    }

    fn all(&mut self, rows: &Rows<'_>, allowed: &Allowed, step: &(dyn Fn() + Sync)) -> Result<()> {
        let mut want = want::all(&rows.all()?, allowed, &self.clock);
        // What goes makes room for what comes.
        for (source, rule) in self.maps.rules.everything()? {
            match want.get(&source) {
                Some(wanted) if wanted.is(&rule) => drop(want.remove(&source)),
                Some(_) => {}
                None => self.put(&source, None)?,
            }
        }
        for (source, wanted) in want {
            step();
            self.put(&source, Some(wanted))?;
        }
        Ok(())
    }

    pub(super) fn put(&mut self, target: &Target, wanted: Option<Wanted>) -> Result<()> {
        let old = self.maps.rules.put(target, wanted, &self.clock)?;
        self.done.push((*target, old.map(Box::new)));
        Ok(())
    }

    /// Takes back what was done, the last first. Whether all of it could be.
    pub fn undo(&mut self) -> bool {
        let mut all = true;
        while let Some((target, old)) = self.done.pop() {
            all &= self.maps.rules.set(&target, old.map(|old| *old)).is_ok();
        }
        while let Some((target, old)) = self.bans.pop() {
            all &= self.maps.bans.set(&target, old).is_ok();
        }
        if let Some(policy) = self.policy.take() {
            all &= self.maps.policy.write(&policy).is_ok();
        }
        if let Some(settings) = self.settings.take() {
            all &= settings.write(&self.maps.pins).is_ok();
        }
        all
    }
}

/// The entries that block or allow, which a new store takes over.
pub fn in_force(maps: &Blocks, clock: &Clock) -> Result<Vec<(Target, Rule)>> {
    let mut all = maps.everything()?;
    let decides = |rule: &Rule| rule.flags & (rule_flags::BLOCK | rule_flags::ALLOW) != 0;
    all.retain(|(_, rule)| decides(rule) && rule.holds(clock.boot_ns));
    all.sort_by_key(|(source, _)| *source);
    Ok(all)
}
