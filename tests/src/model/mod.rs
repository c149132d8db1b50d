//! Random attackers against the loaded programs, and a model of a PBX in a container that says what its applications read: no socket, no
//! interface.
//!
//! A sequence is a handful of connections and some dozens of steps, all of them chance of its seed. What comes in goes through the XDP
//! program, what the model sends through the one of traffic control. Properties:
//!
//! - an application on a guarded connection reads no malformed byte, unless the guard was made to forget the connection;
//! - no segment of a legal peer becomes a reset, and all that it says arrives after some retransmissions, unchanged;
//! - what a forger sends changes nothing of what the guard knows of a connection;
//! - the guard changes a segment to a reset of it, or not at all.

mod attack;
mod connection;
mod guard;
mod pbx;
mod phone;
mod script;
mod segment;
mod world;

use anyhow::Result;

pub use guard::Guard;
use world::World;

use crate::chance::Chance;

/// Steps of the longest sequence.
const MOST_STEPS: u32 = 44;

/// A sequence: its seed, and which of its steps are played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// What all of it follows from.
    pub seed: u64,
    /// The steps, each of which is the same whatever the others are.
    pub steps: Vec<u32>,
}

/// What a sequence showed.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is wrong.
    pub fault: String,
    /// The sequence, as short as it became.
    pub sequence: Sequence,
    /// What happened, a line each.
    pub events: Vec<String>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}, steps {:?}: {}", self.sequence.seed, self.sequence.steps, self.fault)?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

impl Sequence {
    /// The whole sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let steps = 8 + chance(seed, 0).below(MOST_STEPS - 8);
        Sequence { seed, steps: (1..=steps).collect() }
    }

    /// Plays it.
    ///
    /// # Errors
    /// When the programs can't be run.
    pub fn play(&self, guard: &mut Guard) -> Result<Option<Found>> {
        let Some(fault) = World::play(guard, self, None)? else { return Ok(None) };
        let mut shortest = self.clone();
        let mut at = shortest.steps.len();
        while at > 0 {
            at -= 1;
            let mut shorter = shortest.clone();
            shorter.steps.remove(at);
            if World::play(guard, &shorter, None)?.is_some() {
                shortest = shorter;
                at = at.min(shortest.steps.len());
            }
        }
        let mut events = Vec::new();
        let fault = World::play(guard, &shortest, Some(&mut events))?.unwrap_or(fault);
        Ok(Some(Found { fault, sequence: shortest, events }))
    }
}

/// The chance of a step.
fn chance(seed: u64, step: u32) -> Chance {
    let mut chance = Chance::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ u64::from(step) << 40 | 1);
    for _ in 0..3 {
        chance.below(2);
    }
    chance
}
