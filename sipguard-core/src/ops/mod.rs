//! What can be done to a guard and asked of it: one file an operation.
//!
//! An operation takes a [`Context`] and a request, and gives an outcome. Requests and outcomes are typed: whoever asks has parsed what was typed, and
//! prints what comes of it. The command line, `top`, `serve` and the crash recorder work through here and know neither the store nor the maps.

pub mod area;
pub mod attach;
pub mod bans;
pub mod change;
pub mod checks;
pub mod config;
pub mod counters;
pub mod denial;
pub mod detach;
pub mod explain;
pub mod export;
pub mod feed;
pub mod import;
pub mod limit;
pub mod list;
pub mod log;
pub mod lookup;
pub mod mode;
pub mod overview;
mod ports;
pub mod reload;
pub mod rule;
pub mod status;
pub mod trail;
pub mod trunk;
pub mod upgrade;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use self::change::RuleChange;
use crate::container::{self, ContainerName};
use crate::pins::Pins;
pub use crate::rule::RuleVerb;
use crate::store::{self, Change, Changed, StoreTables};
pub use crate::store::{Counts, DEFAULT_FILE as DEFAULT_STORE, OPERATOR, parse_origin, parse_reason};

/// The guard that is worked on: the directory of its pins, and the file of its rules.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the kernel's side is pinned.
    pub pins: Pins,
    /// The file of the rules.
    pub store: PathBuf,
}

impl Context {
    /// Of a directory of pins and a file of rules, neither of which needs to exist.
    #[must_use]
    pub fn new(pins: impl Into<PathBuf>, store: impl Into<PathBuf>) -> Context {
        Context { pins: Pins::new(pins), store: store.into() }
    }

    /// Of a container: with pins and rules of its own beside those of the host, and in its network namespace as far as that is needed.
    ///
    /// # Errors
    /// As [`container::choose`].
    pub fn of_container(
        pins: &Path,
        store: &Path,
        container: &ContainerName,
        need: container::Need,
    ) -> Result<Context> {
        let (pins, store) = container.places(pins, store);
        let host = Context::new(pins, store);
        container::choose(container, need, host.pins.exist() || host.store.exists())?;
        Ok(host)
    }

    /// Of pins that are known.
    #[must_use]
    pub fn of(pins: &Pins, store: &Path) -> Context {
        Context { pins: pins.clone(), store: store.to_owned() }
    }

    /// Whether the guard is attached: otherwise rules take effect with the next `attach`.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.pins.are_attached()
    }

    /// One change of the store and of what is in force, or of neither.
    fn change<T>(&self, work: impl FnMut(&mut Change<'_>) -> Result<T>) -> Result<Changed<T>> {
        store::change(&self.store, &self.pins, work)
    }

    /// A change of `count` targets, in as many parts as it takes.
    fn bulk<T>(
        &self,
        count: usize,
        work: impl FnMut(&mut Change<'_>) -> Result<Option<T>>,
    ) -> Result<Changed<T>> {
        store::bulk(&self.store, &self.pins, count, work)
    }

    /// What the store has; `None` where there is no store.
    fn read<T>(&self, work: impl FnOnce(&StoreTables<'_>) -> Result<T>) -> Result<Option<T>> {
        store::read(&self.store, work)
    }
}
