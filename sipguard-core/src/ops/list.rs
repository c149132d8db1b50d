//! `list`: the rules that hold, in force or stored for the next `attach`.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use sipguard_common::abi::{Ban, Rule, rule_flags};

use super::Context;
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::clock::Clock;
pub use crate::lookup::ListedRule;
use crate::lookup::found;
use crate::rule::RuleVerb;
use crate::store::{self, Allowed, StoreTables, decides};
use crate::target::Target;

/// Rules that are handed on together: of a long list no more are held at once.
const CHUNK: usize = 1000;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks or allowances.
    Rule(RuleVerb),
    /// Bans, which the guard made by itself.
    Ban,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Rule(verb) => verb.name(),
            Kind::Ban => "ban",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Only these; `None` is all.
    pub kind: Option<Kind>,
    /// Only what this origin set.
    pub origin: Option<String>,
    /// Only what ends within this time.
    pub ends_within: Option<Duration>,
    /// So many rules at the most; `None` is all.
    pub most: Option<usize>,
}

/// A list that is about to be read.
pub struct Listing<'l> {
    host: &'l Context,
    request: &'l Request,
    kernel: Option<Kernel>,
    ends_by_ms: Option<i64>,
    /// The moment.
    pub clock: Clock,
}

/// What the kernel has.
struct Kernel {
    blocks: Blocks,
    bans: Vec<(Target, Ban)>,
}

/// Begins a list.
///
/// # Errors
/// When a map can't be read.
pub fn begin<'l>(host: &'l Context, request: &'l Request) -> Result<Listing<'l>> {
    let clock = Clock::now()?;
    let kernel = if host.is_attached() {
        host.pins.check()?;
        let bans = Bans::open(&host.pins)?.list(clock.boot_ns)?;
        Some(Kernel { blocks: Blocks::open(&host.pins)?, bans })
    } else {
        None
    };
    let ends_by_ms = request.ends_within.map(|span| clock.wall_ms() + span.as_millis() as i64);
    Ok(Listing { host, request, kernel, ends_by_ms, clock })
}

impl Listing<'_> {
    /// Whether a guard is attached: otherwise the rules take effect with the next `attach`.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.kernel.is_some()
    }

    /// Hands the rules on, chunk by chunk, each in the order of its targets. How many more there are than were asked for.
    ///
    /// # Errors
    /// When the store or a map can't be read, and what `take` fails with.
    pub fn each(&self, take: &mut dyn FnMut(Vec<ListedRule>) -> Result<()>) -> Result<usize> {
        let most = self.request.most;
        let mut chunk = Vec::new();
        let mut hand_on = |chunk: &mut Vec<ListedRule>| {
            let mut chunk = std::mem::take(chunk);
            chunk.sort_by_key(|one| one.row.target);
            take(chunk)
        };
        let more = self.all(&mut |one| {
            chunk.push(one);
            if chunk.len() == CHUNK && most != Some(CHUNK) { hand_on(&mut chunk) } else { Ok(()) }
        })?;
        hand_on(&mut chunk)?;
        Ok(more)
    }

    /// Hands on what is asked for: bans, the rules of the store that hold, and those of the kernel that the store does not know.
    fn all(&self, take: &mut dyn FnMut(ListedRule) -> Result<()>) -> Result<usize> {
        let (left, more) = (Cell::new(self.request.most.unwrap_or(usize::MAX)), Cell::new(0));
        let mut hand_on = |one: ListedRule| match left.get().checked_sub(1) {
            None => {
                more.set(more.get() + 1);
                Ok(())
            }
            Some(fewer) => {
                left.set(fewer);
                take(one)
            }
        };
        self.bans(&mut hand_on)?;
        let rest = self.stored(&left, &mut hand_on)?;
        // Only what the store keeps no count of can be unknown to it.
        if let Some(kernel) = &self.kernel
            && (rest.is_none() || self.counted()?.is_none())
        {
            self.unknown(kernel, &mut hand_on)?;
        }
        Ok(more.get() + rest.unwrap_or(0))
    }

    fn counted(&self) -> Result<Option<usize>> {
        store::blocks_in_force(&self.host.store, &self.host.pins, self.clock.wall_ms())
    }

    fn bans(&self, take: &mut dyn FnMut(ListedRule) -> Result<()>) -> Result<()> {
        let bans = match &self.kernel {
            Some(kernel) => kernel.bans.clone(),
            None => self.host.read(|rows| rows.bans(&self.clock))?.unwrap_or_default(),
        };
        for (target, ban) in bans.iter().filter(|(_, ban)| ban.is_active(self.clock.boot_ns)) {
            let one = ListedRule::of_ban(*target, ban, &self.clock, self.in_force());
            if self.is_asked(&one) {
                take(one)?;
            }
        }
        Ok(())
    }

    /// The rules of the store, as many as `left`; how many more there are, or `None` without a store.
    fn stored(
        &self,
        left: &Cell<usize>,
        take: &mut dyn FnMut(ListedRule) -> Result<()>,
    ) -> Result<Option<usize>> {
        let now_ms = self.clock.wall_ms();
        self.host.read(|rows: &StoreTables<'_>| {
            let Some(wanted) = self.wanted_rows() else { return Ok(0) };
            let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, now_ms);
            rows.each(&wanted, left.get(), &mut |row| {
                let group = rows.of(&row.target)?;
                let decides = decides(&group, &allowed, now_ms) == Some(&row);
                let entry = self.entry(&row.target)?.filter(|_| decides);
                take(ListedRule { row, decides, entry, is_ban: false })
            })
        })
    }

    /// The rules of the kernel that the store does not know.
    fn unknown(&self, kernel: &Kernel, take: &mut dyn FnMut(ListedRule) -> Result<()>) -> Result<()> {
        let mut strange = Vec::new();
        kernel.blocks.each_target(&mut |target| strange.push(target))?;
        // Opened once for all of them.
        let unknown = self.host.read(|rows| {
            let mut unknown = Vec::new();
            for target in &strange {
                if rows.of(target)?.is_empty() {
                    unknown.push(*target);
                }
            }
            Ok(unknown)
        })?;
        let decides = |rule: &Rule| rule.flags & (rule_flags::BLOCK | rule_flags::ALLOW) != 0;
        for target in unknown.unwrap_or(strange) {
            if let Some(rule) = self.entry(&target)?.filter(decides) {
                let row = found(target, &rule, &self.clock);
                let one = ListedRule { row, decides: true, entry: Some(rule), is_ban: false };
                if self.is_asked(&one) {
                    take(one)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&self, target: &Target) -> Result<Option<Rule>> {
        let Some(kernel) = &self.kernel else { return Ok(None) };
        let entry = kernel.blocks.get(target)?;
        Ok(entry.filter(|rule| rule.flags != 0 && rule.is_active(self.clock.boot_ns)))
    }

    fn is_asked(&self, one: &ListedRule) -> bool {
        self.request.kind.is_none_or(|kind| one.name() == kind.name())
            && self.request.origin.as_ref().is_none_or(|origin| one.row.origin == *origin)
            && self.ends_by_ms.is_none_or(|by| one.row.expires_ms.is_some_and(|end| end <= by))
    }

    /// The same for the rows of the store; `None` when none can be meant.
    fn wanted_rows(&self) -> Option<store::RuleQuery<'_>> {
        let verb = match self.request.kind {
            Some(Kind::Ban) => return None,
            Some(Kind::Rule(verb)) => Some(verb),
            None => None,
        };
        let (origin, now_ms) = (self.request.origin.as_deref(), self.clock.wall_ms());
        Some(store::RuleQuery { verb, origin, now_ms, ends_by_ms: self.ends_by_ms })
    }
}
