//! `sipguard reload`: the configuration file is read anew, and store and guard follow it, or stay as they are.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use serde_json::json;
use sipguard_common::abi::names;

use super::config::{ConfigArgs, keep};
use crate::config::{self, Config, DEFAULT_FILE, Effect, LoadedConfig, SettingDifference};
use crate::error::{Failure, Status};
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::presence::{iface_name, own_slots};
use crate::protect::occupied;
use crate::settings::{EffectiveSettings, XdpChoice, list};
use crate::store::{self, change};
use crate::{counting, link};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    let LoadedConfig { config, sources, .. } =
        args.config.read("nothing was changed: what is in force stays")?;
    if !config.force_ports {
        refuse_ports(pins, &config)?;
    }
    let mut lines = if args.dry_run { look(pins, path, &config)? } else { apply(pins, path, &config)? };
    if !args.dry_run {
        keep(path, &sources);
    }
    let in_force = pins.are_attached();
    if in_force {
        lines.extend(new_attach(pins, &config)?);
    }
    report(format, &config, &lines, in_force, args.dry_run)
}

/// What `check` can't know: which ports SSH has here.
fn refuse_ports(pins: &Pins, config: &Config) -> Result<()> {
    let in_force = if pins.are_attached() {
        pins.check().and_then(|()| EffectiveSettings::read(pins)).map(Some)?
    } else {
        None
    };
    match occupied(&config.settings.new_ports(in_force.as_ref())) {
        None => Ok(()),
        Some(why) => Err(Failure::with(
            Status::Failed,
            format!("{why}: nothing was changed; `force-ports = true` in [guard] guards it all the same"),
        )),
    }
}

/// What would change.
fn look(pins: &Pins, path: &Path, config: &Config) -> Result<Vec<SettingDifference>> {
    let mut settings = None;
    if pins.are_attached() {
        pins.check()?;
        settings = Some(EffectiveSettings::read(pins)?);
    }
    let found = store::read(path, |rows| config::compare(Some(rows), config, settings.clone()))?;
    Ok(match found {
        Some(found) => found,
        None => config::compare(None, config, settings)?,
    }
    .lines)
}

/// Changes it, all or nothing.
fn apply(pins: &Pins, path: &Path, config: &Config) -> Result<Vec<SettingDifference>> {
    if !config.files {
        return Ok(Vec::new());
    }
    let done = change(path, pins, |change| {
        let settings = pins.are_attached().then(|| EffectiveSettings::read(pins)).transpose()?;
        Ok(config::apply(change, config, settings)?.lines)
    })?;
    if done.in_force
        && config.open.iter().any(|(_, most)| most.is_some())
        && let Err(why) = counting::is_on_or_fail(pins)
    {
        eprintln!("sipguard: the limit of open connections holds nobody back: {why:#}");
    }
    Ok(done.value)
}

/// What the file says and only a new attach can change.
fn new_attach(pins: &Pins, config: &Config) -> Result<Vec<SettingDifference>> {
    pins.check()?;
    let mut lines = Vec::new();
    let mut line = |key: &str, old: String, new: String| {
        lines.push(SettingDifference { key: key.to_owned(), old, new, effect: Effect::NewAttach });
    };
    let attached = own_slots(pins)?;
    let mut names: Vec<String> = attached.iter().map(|(_, iface)| iface_name(iface)).collect();
    let mut desired = config.interfaces.clone();
    names.sort();
    desired.sort();
    desired.dedup();
    if !desired.is_empty() && names != desired {
        line("guard.interfaces", list(&names), list(&desired));
    }
    for (_, iface) in &attached {
        let native = link::by_index(iface.ifindex)?.and_then(|found| found.xdp).map(|xdp| xdp.native);
        let differs =
            config.xdp.and_then(XdpChoice::native).zip(native).filter(|(desired, is)| desired != is);
        if let Some((desired, is)) = differs {
            let word =
                |native: bool| format!("{} {}", iface_name(iface), if native { "native" } else { "generic" });
            line("guard.xdp-mode", word(is), word(desired));
        }
    }
    let map = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    if let Some(flows) = config.flows.filter(|flows| *flows != map.max_entries()) {
        line("guard.flows", map.max_entries().to_string(), flows.to_string());
    }
    Ok(lines)
}

fn report(
    format: Format,
    config: &Config,
    lines: &[SettingDifference],
    in_force: bool,
    dry_run: bool,
) -> Result<()> {
    let count = lines.iter().filter(|line| line.effect == Effect::Reload).count();
    let effect = |line: &SettingDifference| match (line.effect, in_force) {
        (Effect::NewAttach, _) => "new attach",
        (Effect::Reload, true) => "now",
        (Effect::Reload, false) => "next attach",
    };
    let value = |line: &SettingDifference| json!({ "key": line.key, "old": line.old, "new": line.new, "takes_effect": effect(line) });
    let value = json!({
        "rows": lines.iter().map(value).collect::<Vec<_>>(), "changed": count > 0 && !dry_run, "dry_run": dry_run,
        "in_force": in_force,
    });
    object(format, "sipguard.reload/1", value, || {
        if !config.files {
            return format!("there is no {DEFAULT_FILE}: nothing to do\n");
        }
        let mut text = String::new();
        for line in lines {
            let note = match line.effect {
                Effect::Reload => "",
                Effect::NewAttach => " (takes a new attach: `sipguard detach`, then `sipguard attach`)",
            };
            text += &format!("{line}{note}\n");
        }
        text + &match (count, dry_run) {
            (0, _) => "nothing changes, all is as the configuration says\n".to_owned(),
            (count, true) => {
                format!("{} would change, nothing was changed\n", super::plural(count, "setting"))
            }
            (count, false) if in_force => format!("changed {}\n", super::plural(count, "setting")),
            (count, false) => {
                format!(
                    "changed {}; not attached: takes effect with the next `sipguard attach`\n",
                    super::plural(count, "setting")
                )
            }
        }
    })
}
