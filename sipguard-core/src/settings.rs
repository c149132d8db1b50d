//! What an operator chooses for the guard as a whole: mode, ports, limits and checks. Pure, but for reading and writing the maps.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;
use sipguard_common::abi::{ACTION_DROP, ACTION_RESET, MODE_ENFORCE, MODE_MONITOR, Settings};
use sipguard_common::framer::{HashKeys, LIMITS, Limits, checks};

use crate::maps::{self, MapDir, Ports};
use crate::pins::Pins;

/// SIP port that is guarded when nothing else is said (RFC 3261 section 19.1.2).
pub(crate) const DEFAULT_PORT: u16 = 5060;
/// TLS port that is guarded when nothing else is said (RFC 3261 section 19.1.2).
pub(crate) const DEFAULT_TLS_PORT: u16 = 5061;
/// Connections that are followed when nothing else is said.
pub const DEFAULT_FLOWS: u32 = 1 << 16;
/// How long the middle of a message on a connection older than the guard passes when nothing else is said.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// XDP mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum XdpChoice {
    /// Native where the driver can, generic elsewhere
    #[default]
    Auto,
    /// In the driver only
    Native,
    /// In the kernel's stack, with every driver
    Generic,
}

impl XdpChoice {
    /// `None` is native first, and generic where the driver can't.
    #[must_use]
    pub const fn native(self) -> Option<bool> {
        match self {
            XdpChoice::Auto => None,
            XdpChoice::Native => Some(true),
            XdpChoice::Generic => Some(false),
        }
    }
}

/// What happens to what should be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Drop it
    Enforce,
    /// Count it and let it pass
    Monitor,
}

impl Mode {
    /// [`MODE_ENFORCE`] or [`MODE_MONITOR`].
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Mode::Enforce => MODE_ENFORCE,
            Mode::Monitor => MODE_MONITOR,
        }
    }
}

/// What happens to a malformed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Malformed {
    /// Reset its connection: the PBX's socket closes cleanly
    Reset,
    /// Drop its segments
    Drop,
}

impl Malformed {
    /// [`ACTION_RESET`] or [`ACTION_DROP`].
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Malformed::Reset => ACTION_RESET,
            Malformed::Drop => ACTION_DROP,
        }
    }
}

/// Set of limits and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Framing, sizes, characters, counts and numbers
    Default,
    /// Grammar as well, and less patience; a sloppy device may be refused
    Strict,
}

impl Profile {
    /// Its limits and checks.
    #[must_use]
    pub fn limits(self) -> Limits {
        match self {
            Profile::Default => Limits::default(),
            Profile::Strict => Limits::strict(),
        }
    }
}

/// What an operator wants of the settings. What is not wanted stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsRequest {
    /// The mode.
    pub mode: Option<Mode>,
    /// What happens to a malformed stream.
    pub malformed: Option<Malformed>,
    /// Guarded SIP ports.
    pub ports: Option<Vec<u16>>,
    /// Guarded TLS ports.
    pub tls_ports: Option<Vec<u16>>,
    /// All limits and checks of a profile.
    pub profile: Option<Profile>,
    /// Whether lines that end with LF alone are refused.
    pub refuse_lf: Option<bool>,
    /// Single limits: position in [`LIMITS`] and value.
    pub single: Vec<(usize, u32)>,
}

/// A setting: table and key of the configuration file, and its value for people.
type Setting = (&'static str, &'static str, String);

/// What is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// [`MODE_ENFORCE`] or [`MODE_MONITOR`].
    pub mode: u32,
    /// [`ACTION_RESET`] or [`ACTION_DROP`].
    pub action: u32,
    /// Limits and checks of the framer.
    pub limits: Limits,
    /// Guarded ports.
    pub ports: Ports,
}

impl Default for EffectiveSettings {
    /// What holds when nothing else is said.
    fn default() -> EffectiveSettings {
        EffectiveSettings {
            mode: MODE_ENFORCE,
            action: ACTION_RESET,
            limits: Limits::default(),
            ports: Ports { sip: [DEFAULT_PORT].into(), tls: [DEFAULT_TLS_PORT].into() },
        }
    }
}

impl EffectiveSettings {
    /// What is in force.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn read(pins: &Pins) -> Result<EffectiveSettings> {
        let Settings { mode, action, limits, .. } = maps::settings(pins)?;
        Ok(EffectiveSettings { mode, action, limits, ports: maps::ports(pins)? })
    }

    /// Makes settings say it; the ports are in a map of their own.
    pub fn put(&self, settings: &mut Settings) {
        (settings.mode, settings.action, settings.limits) = (self.mode, self.action, self.limits);
    }

    /// Puts it in force.
    ///
    /// # Errors
    /// When a map can't be written.
    pub fn write(&self, dir: &dyn MapDir) -> Result<()> {
        let mut settings = maps::settings(dir)?;
        self.put(&mut settings);
        maps::set_settings(dir, settings)?;
        if maps::ports(dir)? == self.ports { Ok(()) } else { maps::set_ports(dir, &self.ports) }
    }

    /// Each setting by table and key, as the configuration file has them, with its value for people.
    #[must_use]
    pub(crate) fn by_key(&self) -> Vec<Setting> {
        let refuse_lf = self.limits.has(checks::REFUSE_LF);
        let mut all = vec![
            ("guard", "mode", if self.mode == MODE_MONITOR { "monitor" } else { "enforce" }.to_owned()),
            ("guard", "ports", list(&self.ports.sip)),
            ("guard", "tls-ports", list(&self.ports.tls)),
            ("guard", "profile", profile(&self.limits).to_owned()),
            ("guard", "refuse-lf", refuse_lf.to_string()),
            ("guard", "on-malformed", if self.action == ACTION_DROP { "drop" } else { "reset" }.to_owned()),
        ];
        all.extend(LIMITS.iter().map(|limit| ("checks", limit.name, limit.get(&self.limits).to_string())));
        all
    }
}

/// What changes: each setting with what it was and is. Of a guard that was not attached it was `none`, and only the checks are
/// told that are not the default.
#[must_use]
pub fn changes(before: Option<&EffectiveSettings>, after: &EffectiveSettings) -> Vec<String> {
    let defaults = EffectiveSettings::default().by_key();
    let old = before.map_or_else(|| defaults.clone(), EffectiveSettings::by_key);
    let differs = |(old, new): &(&Setting, &Setting)| old != new || before.is_none() && new.0 == "guard";
    let told = |((_, _, old), (table, key, new)): (&Setting, &Setting)| {
        format!("{table}.{key}: {} -> {new}", before.map_or("none", |_| old.as_str()))
    };
    old.iter().zip(&after.by_key()).filter(differs).map(told).collect()
}

/// Things with commas between, or `none`.
pub fn list<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

impl SettingsRequest {
    /// What is wanted here, or else there.
    #[must_use]
    pub fn or(&self, other: &SettingsRequest) -> SettingsRequest {
        SettingsRequest {
            mode: self.mode.or(other.mode),
            malformed: self.malformed.or(other.malformed),
            ports: self.ports.clone().or_else(|| other.ports.clone()),
            tls_ports: self.tls_ports.clone().or_else(|| other.tls_ports.clone()),
            profile: self.profile.or(other.profile),
            refuse_lf: self.refuse_lf.or(other.refuse_lf),
            // The last one of a limit holds.
            single: [other.single.as_slice(), &self.single].concat(),
        }
    }

    /// What comes of it where something is in force.
    #[must_use]
    pub fn of(&self, in_force: &EffectiveSettings) -> EffectiveSettings {
        let mut ports = in_force.ports.clone();
        if let Some(sip) = &self.ports {
            ports.sip = sip.iter().copied().collect();
        }
        if let Some(tls) = &self.tls_ports {
            ports.tls = tls.iter().copied().collect();
        }
        // A port that the operator calls SIP is no TLS port by default.
        ports.tls.retain(|port| !ports.sip.contains(port));
        EffectiveSettings {
            mode: self.mode.map_or(in_force.mode, Mode::number),
            action: self.malformed.map_or(in_force.action, Malformed::number),
            limits: self.limits(in_force.limits),
            ports,
        }
    }

    /// The ports that come to those in force; `None` is that nothing is guarded yet.
    #[must_use]
    pub(crate) fn new_ports(&self, in_force: Option<&EffectiveSettings>) -> BTreeSet<u16> {
        let all = |ports: &Ports| -> BTreeSet<u16> { &ports.sip | &ports.tls };
        let old = in_force.map(|effective| all(&effective.ports)).unwrap_or_default();
        let desired =
            in_force.map_or_else(|| self.of(&EffectiveSettings::default()), |effective| self.of(effective));
        &all(&desired.ports) - &old
    }

    fn limits(&self, in_force: Limits) -> Limits {
        let mut limits = self.profile.map_or(in_force, Profile::limits);
        let refuse_lf = self.refuse_lf.unwrap_or(in_force.has(checks::REFUSE_LF));
        limits.checks = limits.checks & !checks::REFUSE_LF | if refuse_lf { checks::REFUSE_LF } else { 0 };
        for (index, value) in &self.single {
            LIMITS[*index].set(&mut limits, *value);
        }
        limits
    }
}

/// Word of the checks: `default` or `strict` when they are those of a profile, else `own`.
#[must_use]
pub fn profile(limits: &Limits) -> &'static str {
    match limits.checks & !checks::REFUSE_LF {
        checks::DEFAULT => "default",
        checks::STRICT => "strict",
        _ => "own",
    }
}

/// Keys that nobody knows.
///
/// # Errors
/// When `/dev/urandom` can't be read.
pub fn secret() -> Result<HashKeys> {
    let mut keys = HashKeys::default();
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(bytemuck::bytes_of_mut(&mut keys)))
        .context("reading /dev/urandom")?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_say_what_was_and_what_is() {
        let (before, mut after) = (EffectiveSettings::default(), EffectiveSettings::default());
        assert_eq!(changes(Some(&before), &after), Vec::<String>::new());
        let first = changes(None, &after);
        assert_eq!(first[..2], ["guard.mode: none -> enforce", "guard.ports: none -> 5060"]);
        assert_eq!(first.len(), 6, "no check that is the default: {first:?}");
        after.mode = MODE_MONITOR;
        after.ports.sip.insert(5080);
        LIMITS[0].set(&mut after.limits, LIMITS[0].range.0);
        let name = LIMITS[0].name;
        let (old, new) = (LIMITS[0].get(&before.limits), LIMITS[0].get(&after.limits));
        assert_eq!(
            changes(Some(&before), &after)
                .into_iter()
                .filter(|one| !one.contains("profile"))
                .collect::<Vec<_>>(),
            [
                "guard.mode: enforce -> monitor".to_owned(),
                "guard.ports: 5060 -> 5060, 5080".to_owned(),
                format!("checks.{name}: {old} -> {new}"),
            ]
        );
        assert_eq!(changes(None, &after).last(), Some(&format!("checks.{name}: none -> {new}")));
    }
}
