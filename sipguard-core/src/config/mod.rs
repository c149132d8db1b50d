//! The configuration file: what changes by the year. Blocks and allowances of addresses change by the minute and are matters of commands.
//!
//! 1. `files.rs` finds the files and reads them, `source.rs` knows which place of which file a position is;
//! 2. `tree.rs` puts their keys together and makes `tables.rs` of them, whose values `value.rs`, `text_values.rs`, `check_values.rs` and
//!    `service_values.rs` read;
//! 3. `validate.rs`, `trunks.rs` and `service.rs` find what contradicts itself, and give a [`Config`];
//! 4. `difference.rs` (with `limits.rs`, `bans.rs`, and `trunk_plan.rs` for the trunks) compares that with what the store and the maps have;
//! 5. `apply.rs` makes it so, within one change of the store.
//!
//! All but the first and the last are pure. `last_good.rs` keeps the files that were applied, for a start with a mistake in them. `example.rs` and `show.rs` tell an operator what may be said, and what is.
//! A new table takes: a field in `tables.rs`, its meaning in [`Config`], and its steps in
//! `difference.rs`. Schema, example, `config show` and docs/reference/configuration.md follow by themselves.

mod apply;
mod bans;
mod check_values;
mod difference;
mod example;
mod files;
pub mod last_good;
mod limits;
mod order;
mod service;
mod service_values;
mod show;
mod source;
mod tables;
mod text_values;
mod tree;
mod trunk_plan;
mod trunks;
mod validate;
mod value;

use std::path::Path;
use std::time::Duration;

pub use apply::{apply, compare};
pub use difference::{Effect, SettingDifference};
pub use example::{example, markdown, schema};
pub use files::DEFAULT_FILE;
pub use last_good::LastGood;
pub use service::ServeRequest;
pub use show::Shown;
pub use source::{ConfigSource, Location, Problem, Sources};

use crate::ban_rule::BanRequest;
use crate::check::Switch;
use crate::claim::UserAgent;
use crate::denial::{DeniedTraffic, Whom};
use crate::rate::{AtOnce, AtOnceMost, RateLimit};
use crate::settings::{SettingsRequest, XdpChoice};
use crate::trunk::TrunkRow;

/// What the files mean. What they do not say is `None`, or not in the list.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Whether there is a file. Without one nothing is said, and nothing is taken back.
    pub files: bool,
    /// What `attach` without names attaches to.
    pub interfaces: Vec<String>,
    /// XDP mode of what is attached.
    pub xdp: Option<XdpChoice>,
    /// Most connections that are followed.
    pub flows: Option<u32>,
    /// How long the middle of a message on a connection older than the guard passes.
    pub grace: Option<Duration>,
    /// Mode, ports, limits and checks.
    pub settings: SettingsRequest,
    /// Whether ports are guarded as well that something else has.
    pub force_ports: bool,
    /// Limits, of sources and of trunks.
    pub rates: Vec<Limited>,
    /// Limits of what there is at once.
    pub at_once: Vec<LimitedAtOnce>,
    /// What becomes of faults, by check and sender.
    pub checks: Vec<Switch>,
    /// When a sender is banned.
    pub bans: BanRequest,
    /// User agents that are blocked, each once.
    pub agents: Vec<UserAgent>,
    /// What may not be sent.
    pub denials: Vec<(Whom, DeniedTraffic)>,
    /// The trunks; their numbers are 0.
    pub trunks: Vec<TrunkRow>,
    /// For `sipguard serve`, which reads it by itself.
    pub serve: ServeRequest,
}

/// A limit that the files name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Whose: a trunk's, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Position in [`sipguard_common::abi::RATE_KINDS`].
    pub kind: usize,
    /// How many a second and how many at once, or `None` for no limit.
    pub rate: Option<RateLimit>,
}

/// A limit of what there is at once that the files name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedAtOnce {
    /// Whose: a trunk's, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Of what.
    pub kind: AtOnce,
    /// How many at once, or `None` for no limit.
    pub most: Option<AtOnceMost>,
}

/// A configuration that is valid.
#[derive(Debug)]
pub struct LoadedConfig {
    /// What it means.
    pub config: Config,
    /// The files, in the order in which they were read.
    pub sources: Sources,
    /// Warnings, a sentence each.
    pub warnings: Vec<String>,
    /// Every setting that is in effect.
    pub shown: Vec<Shown>,
}

/// A configuration that is not.
#[derive(Debug)]
pub struct Invalid {
    /// What is wrong, a sentence each.
    pub sentences: Vec<String>,
    /// The same with places, where it is about the content of a file.
    pub problems: Vec<Problem>,
}

/// Reads and validates a file, or the default one, with `conf.d` beside it. The default file need not be there.
pub fn load(named: Option<&Path>) -> Result<LoadedConfig, Invalid> {
    let unreadable = |text| Invalid { sentences: vec![text], problems: Vec::new() };
    let files::FoundFiles { sources, warnings } = files::find(named).map_err(unreadable)?;
    validate(sources, warnings)
}

/// Validates files; `warnings` are of reading them.
fn validate(sources: Sources, mut warnings: Vec<String>) -> Result<LoadedConfig, Invalid> {
    let (config, more, shown) = parse(&sources).map_err(|problems| Invalid {
        sentences: problems.iter().map(ToString::to_string).collect(),
        problems,
    })?;
    warnings.extend(more.iter().map(ToString::to_string));
    Ok(LoadedConfig { config, sources, warnings, shown })
}

/// Validates texts: what they mean, warnings, and every setting that is in effect.
pub fn parse(sources: &Sources) -> Result<(Config, Vec<Problem>, Vec<Shown>), Vec<Problem>> {
    let read = tree::read(sources);
    let shown = show::show(sources, &read.values, &read.locations);
    validate::validate(sources, read).map(|(config, more)| (config, more, shown))
}
