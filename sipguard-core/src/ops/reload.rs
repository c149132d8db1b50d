//! `reload`: store and guard follow the configuration file, or stay as they are.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use sipguard_common::abi::names;

use super::{Context, ports};
use crate::config::{self, Config, LoadedConfig};
pub use crate::config::{Effect, SettingDifference};
use crate::notice::Notice;
use crate::presence::{iface_name, own_slots};
use crate::rate::AtOnce;
use crate::settings::{EffectiveSettings, XdpChoice, list};
use crate::{counting, link};

/// What is asked of `reload`.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The configuration file; `None` is the default one.
    pub config: Option<PathBuf>,
    /// Only says what would change.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether there is a configuration file at all.
    pub files: bool,
    /// What changed or would change, and what takes a new attach.
    pub lines: Vec<SettingDifference>,
    /// Whether a guard is attached.
    pub in_force: bool,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
}

/// Applies the configuration, all or nothing.
///
/// # Errors
/// When it is invalid, a port is occupied, or the store or the kernel refuses.
pub fn run(host: &Context, request: &Request) -> Result<Outcome> {
    let nothing = "nothing was changed: what is in force stays";
    let LoadedConfig { config, sources, .. } = super::config::read(request.config.as_deref(), nothing)?;
    if !config.force_ports {
        // What `check` can't know: which ports SSH has here.
        let remedy = "nothing was changed; `force-ports = true` in [guard] guards it all the same";
        ports::refuse_occupied(ports::in_force(host)?.as_ref(), &config.settings, remedy)?;
    }
    let mut notices = Vec::new();
    let mut lines =
        if request.dry_run { dry_run(host, &config)? } else { apply(host, &config, &mut notices)? };
    if !request.dry_run {
        notices.extend(super::config::keep(host, &sources));
    }
    let in_force = host.is_attached();
    if in_force {
        lines.extend(new_attach(host, &config)?);
    }
    Ok(Outcome { files: config.files, lines, in_force, notices })
}

/// What would change.
fn dry_run(host: &Context, config: &Config) -> Result<Vec<SettingDifference>> {
    let settings = ports::in_force(host)?;
    let found = host.read(|rows| config::compare(Some(rows), config, settings.clone()))?;
    Ok(match found {
        Some(found) => found,
        None => config::compare(None, config, settings)?,
    }
    .lines)
}

/// Changes it, all or nothing.
fn apply(host: &Context, config: &Config, notices: &mut Vec<Notice>) -> Result<Vec<SettingDifference>> {
    if !config.files {
        return Ok(Vec::new());
    }
    let done = host.change(|change| {
        let settings = host.is_attached().then(|| EffectiveSettings::read(&host.pins)).transpose()?;
        Ok(config::apply(change, config, settings)?.lines)
    })?;
    if done.in_force
        && config.at_once.iter().any(|one| one.kind == AtOnce::Open && one.most.is_some())
        && let Err(why) = counting::is_on_or_fail(&host.pins)
    {
        notices.push(Notice(format!("the limit of open connections holds nobody back: {why:#}")));
    }
    Ok(done.value)
}

/// What the file says and only a new attach can change.
fn new_attach(host: &Context, config: &Config) -> Result<Vec<SettingDifference>> {
    let pins = &host.pins;
    pins.check()?;
    let mut lines = Vec::new();
    let mut line = |key: &str, old: String, new: String| {
        lines.push(SettingDifference { key: key.to_owned(), old, new, effect: Effect::NewAttach });
    };
    let attached = own_slots(pins)?;
    let mut names: Vec<String> = attached.iter().map(|(_, iface)| iface_name(iface)).collect();
    let mut wanted = config.interfaces.clone();
    names.sort();
    wanted.sort();
    wanted.dedup();
    if !wanted.is_empty() && names != wanted {
        line("guard.interfaces", list(&names), list(&wanted));
    }
    for (_, iface) in &attached {
        let native = link::by_index(iface.ifindex)?.and_then(|found| found.xdp).map(|xdp| xdp.native);
        let differs = config.xdp.and_then(XdpChoice::native).zip(native).filter(|(wanted, is)| wanted != is);
        if let Some((wanted, is)) = differs {
            let word =
                |native: bool| format!("{} {}", iface_name(iface), if native { "native" } else { "generic" });
            line("guard.xdp-mode", word(is), word(wanted));
        }
    }
    let map = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    if let Some(flows) = config.flows.filter(|flows| *flows != map.max_entries()) {
        line("guard.flows", map.max_entries().to_string(), flows.to_string());
    }
    Ok(lines)
}
