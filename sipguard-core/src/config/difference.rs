//! What has to change so that the configuration holds. Pure.

use std::fmt;

use sipguard_common::Reason;
use sipguard_common::abi::RATE_KINDS;
use sipguard_common::framer::LIMITS;

use super::Config;
use super::bans;
use super::limits::limit_name;
use super::tree::path;
use super::trunk_plan::TrunkPlan;
use crate::ban_rule::{self, BanRule};
use crate::check::{CheckScope, Switch};
use crate::claim::UserAgent;
use crate::denial::{DeniedTraffic, Whom};
use crate::rate::{AtOnce, AtOnceMost, RateLimit};
use crate::rule::RuleMode;
use crate::settings::{self, EffectiveSettings, Malformed, Mode, Profile, SettingsRequest};
use crate::store::{AtOnceLimit, ConfiguredNames, Denial, Limit, RuleRow};
use crate::target::Target;
use crate::trunk::TrunkRow;

/// What a user agent of the configuration is.
const BLOCKED: &str = "blocked";

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// With the reload, or when nothing is attached with the next `attach`.
    Reload,
    /// Only when the guard is detached and attached again.
    NewAttach,
}

/// One setting that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifference {
    /// Its key in the file.
    pub key: String,
    /// What it is, for people.
    pub old: String,
    /// What it becomes.
    pub new: String,
    /// When.
    pub effect: Effect,
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// What store and maps have.
#[derive(Clone, Debug, Default)]
pub(super) struct CurrentState {
    /// The settings in force; `None` while nothing is attached.
    pub settings: Option<EffectiveSettings>,
    /// The trunks of the store.
    pub trunks: Vec<TrunkRow>,
    /// The limits of the store.
    pub limits: Vec<Limit>,
    /// The limits of what there is at once, of the store.
    pub at_once: Vec<AtOnceLimit>,
    /// The switches of checks of the store.
    pub checks: Vec<Switch>,
    /// When a sender is banned; `None` where there is no store.
    pub bans: Option<BanRule>,
    /// The blocks of user agents that the configuration has made.
    pub agents: Vec<RuleRow>,
    /// The denials of the store.
    pub denials: Vec<Denial>,
    /// What the configuration named the last time.
    pub named: ConfiguredNames,
}

/// What is to be done to the store.
#[derive(Clone, Debug)]
pub enum PlannedOperation {
    /// Make a trunk be so.
    Trunk(TrunkRow),
    /// Remove a trunk.
    RemoveTrunk(String),
    /// Set a limit, of a trunk or of each source.
    Limit(Option<String>, usize, RateLimit),
    /// Take a limit away.
    ClearLimit(Option<String>, usize),
    /// Set a limit of what there is at once, of a trunk or of each source.
    AtOnce(Option<String>, AtOnce, AtOnceMost),
    /// Take such a limit away.
    ClearAtOnce(Option<String>, AtOnce),
    /// Set the switch of a check.
    Check(Switch),
    /// Take the switch of a check away.
    ClearCheck(CheckScope, Reason),
    /// Say when a sender is banned.
    Bans(BanRule),
    /// Block a user agent.
    Block(UserAgent),
    /// Lift the configuration's block of a user agent.
    Unblock(UserAgent),
    /// Deny.
    Deny(Whom, DeniedTraffic),
    /// Permit.
    Permit(Whom, DeniedTraffic),
}

/// What has to change.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// For people.
    pub lines: Vec<SettingDifference>,
    /// In the store, in an order in which it can be done.
    pub operations: Vec<PlannedOperation>,
    /// In the guard's settings: what they become.
    pub settings: Option<EffectiveSettings>,
    /// How many of the lines are settings.
    pub settings_changed: usize,
}

/// What the configuration names, so that it can go when it is named no more.
#[must_use]
pub(super) fn named(config: &Config) -> ConfiguredNames {
    let Config { settings: request, rates, at_once, checks, bans, agents, denials, trunks, .. } = config;
    let said = [
        ("mode", request.mode.is_some()),
        ("on-malformed", request.malformed.is_some()),
        ("ports", request.ports.is_some()),
        ("tls-ports", request.tls_ports.is_some()),
        ("profile", request.profile.is_some()),
        ("refuse-lf", request.refuse_lf.is_some()),
    ];
    let settings = said.into_iter().filter(|(_, said)| *said).map(|(key, _)| key.to_owned());
    let single = request.single.iter().map(|(index, _)| LIMITS[*index].name.to_owned());
    let limits = rates.iter().map(|one| limit_name(one.trunk.as_deref(), RATE_KINDS[one.kind]));
    let at_once = at_once.iter().map(|one| limit_name(one.trunk.as_deref(), one.kind.name()));
    let checks = checks.iter().map(switch_name);
    let agents = agents.iter().map(|agent| agent.text().to_owned());
    let denials = denials.iter().map(|(whom, what)| denial_name(*whom, what));
    let of = |kind: &'static str| move |name: String| (kind.to_owned(), name);
    let trunks = trunks.iter().map(|trunk| trunk.name.clone());
    (settings.map(of("setting")))
        .chain(single.map(of("check")))
        .chain(limits.chain(at_once).map(of("limit")))
        .chain(checks.map(of("switch")))
        .chain(bans::keys(bans).map(of("bans")))
        .chain(agents.map(of("user-agent")))
        .chain(denials.map(of("denial")))
        .chain(trunks.map(of("trunk")))
        .collect()
}

/// The difference.
#[must_use]
pub(super) fn difference(config: &Config, has: &CurrentState) -> Difference {
    let mut found = Difference::default();
    if !config.files {
        return found;
    }
    let named = named(config);
    let gone = |kind: &str, name: String| {
        let entry = (kind.to_owned(), name);
        has.named.contains(&entry) && !named.contains(&entry)
    };
    found.settings(config, has, &gone);
    found.limits(config, has, &gone);
    found.at_once(config, has, &gone);
    found.checks(config, has, &gone);
    found.bans(config, has, &gone);
    found.agents(config, has, &gone);
    found.denials(config, has, &gone);
    found.trunks(config, has, &gone);
    found
}

impl Difference {
    pub(super) fn line(&mut self, key: String, old: String, new: String) {
        self.lines.push(SettingDifference { key, old, new, effect: Effect::Reload });
    }

    fn settings(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let Some(old) = &has.settings else { return };
        let request = without_gone(&config.settings, old, gone);
        let new = request.of(old);
        for ((table, key, old), (.., new)) in old.by_key().into_iter().zip(new.by_key()) {
            if old != new {
                self.line(path(table, key), old, new);
            }
        }
        self.settings_changed = self.lines.len();
        self.settings = (new != *old).then_some(new);
    }

    fn checks(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let none =
            |scope: &CheckScope| if *scope == CheckScope::Everybody { "refuse" } else { "as everybody" };
        for old in has.checks.iter().filter(|old| gone("switch", switch_name(old))) {
            self.line(switch_key(old), old.state.name().to_owned(), none(&old.scope).to_owned());
            self.operations.push(PlannedOperation::ClearCheck(old.scope.clone(), old.reason));
        }
        for new in &config.checks {
            let old = has.checks.iter().find(|old| (&old.scope, old.reason) == (&new.scope, new.reason));
            let old = old.map_or(none(&new.scope), |old| old.state.name());
            if old != new.state.name() {
                self.line(switch_key(new), old.to_owned(), new.state.name().to_owned());
                self.operations.push(PlannedOperation::Check(new.clone()));
            }
        }
    }

    fn bans(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let old = has.bans.unwrap_or(ban_rule::DEFAULT);
        let new = bans::desired(&config.bans, &old, gone);
        for ((key, old), (_, new)) in old.by_key().into_iter().zip(new.by_key()) {
            // Of nobody it need not be said after how many streams.
            if old != new && new != "none" {
                self.line(path("bans", key), old, new);
            }
        }
        if old != new {
            self.operations.push(PlannedOperation::Bans(new));
        }
    }

    fn agents(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let key = |agent: &UserAgent| format!("block.user-agents \"{}\"", agent.text());
        let has = || {
            has.agents.iter().filter_map(|row| match row.target {
                Target::UserAgent(agent) => Some((agent, row)),
                Target::Source(_) | Target::Device(_) | Target::Identity(_) => None,
            })
        };
        for (agent, row) in has().filter(|(agent, _)| gone("user-agent", agent.text().to_owned())) {
            self.line(key(&agent), blocked(row).to_owned(), "none".to_owned());
            self.operations.push(PlannedOperation::Unblock(agent));
        }
        for agent in &config.agents {
            let old = has().find(|(old, _)| old == agent).map_or("none", |(_, row)| blocked(row));
            if old != BLOCKED {
                self.line(key(agent), old.to_owned(), BLOCKED.to_owned());
                self.operations.push(PlannedOperation::Block(*agent));
            }
        }
    }

    fn denials(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let key = |whom: Whom, what: &DeniedTraffic| format!("deny.{} {what}", whom.name());
        for Denial { whom, what, .. } in &has.denials {
            if gone("denial", denial_name(*whom, what)) {
                self.line(key(*whom, what), "denied".to_owned(), "permitted".to_owned());
                self.operations.push(PlannedOperation::Permit(*whom, *what));
            }
        }
        for (whom, what) in &config.denials {
            let same = |denial: &Denial| denial_name(denial.whom, &denial.what) == denial_name(*whom, what);
            if !has.denials.iter().any(same) {
                self.line(key(*whom, what), "permitted".to_owned(), "denied".to_owned());
                self.operations.push(PlannedOperation::Deny(*whom, *what));
            }
        }
    }

    /// Trunks that go make room first, and a trunk exists before its limits do; what a trunk that goes had is gone with it.
    fn trunks(&mut self, config: &Config, has: &CurrentState, gone: &dyn Fn(&str, String) -> bool) {
        let mut plan = TrunkPlan::default();
        plan.remove(has, gone);
        plan.rename(&config.trunks, &has.trunks);
        plan.set(&config.trunks, &has.trunks);
        let TrunkPlan { lines, first, last } = plan;
        self.lines.splice(0..0, lines);
        self.operations.splice(0..0, first.into_iter().chain(last));
    }
}

/// The request, with the default for what was named and is no more.
fn without_gone(
    request: &SettingsRequest,
    old: &EffectiveSettings,
    gone: &dyn Fn(&str, String) -> bool,
) -> SettingsRequest {
    let setting = |key: &str| gone("setting", key.to_owned());
    let default = EffectiveSettings::default();
    let mut request = request.clone();
    if setting("mode") {
        request.mode = Some(Mode::Enforce);
    }
    if setting("on-malformed") {
        request.malformed = Some(Malformed::Reset);
    }
    if setting("ports") {
        request.ports = Some(default.ports.sip.iter().copied().collect());
    }
    if setting("tls-ports") {
        request.tls_ports = Some(default.ports.tls.iter().copied().collect());
    }
    if setting("profile") {
        request.profile = Some(Profile::Default);
    }
    if setting("refuse-lf") {
        request.refuse_lf = Some(false);
    }
    let in_force =
        if settings::profile(&old.limits) == "strict" { Profile::Strict } else { Profile::Default };
    let profile = request.profile.unwrap_or(in_force).limits();
    for (index, limit) in LIMITS.iter().enumerate() {
        if gone("check", limit.name.to_owned()) {
            request.single.push((index, limit.get(&profile)));
        }
    }
    request
}

/// What a block of a user agent does, for people.
fn blocked(row: &RuleRow) -> &'static str {
    match (row.mode, row.expires_ms) {
        (RuleMode::Monitor, _) => "counted only",
        (RuleMode::Enforce, Some(_)) => "blocked for a time",
        (RuleMode::Enforce, None) => BLOCKED,
    }
}

fn switch_name(switch: &Switch) -> String {
    format!("{}/{}", switch.scope.key(), switch.reason.name())
}

fn switch_key(switch: &Switch) -> String {
    let table = match &switch.scope {
        CheckScope::Everybody => "checks".to_owned(),
        CheckScope::Devices => "checks.devices".to_owned(),
        CheckScope::Trunk(name) => format!("{}.checks", path("trunks", name)),
    };
    path(&table, switch.reason.name())
}

fn denial_name(whom: Whom, what: &DeniedTraffic) -> String {
    format!("{} {what}", whom.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, parse};

    fn config(text: &str) -> Config {
        let source = crate::config::ConfigSource { path: "x".into(), text: text.to_owned() };
        parse(&Sources(vec![source])).unwrap().0
    }

    fn lines(config: &Config, has: &CurrentState) -> Vec<String> {
        let found = difference(config, has);
        found.lines.iter().map(|line| format!("{} {} -> {}", line.key, line.old, line.new)).collect()
    }

    #[test]
    fn what_is_named_is_brought_and_what_was_named_goes() {
        let text = "[guard]\nmode = 'monitor'\n[checks]\nline-bytes = 99\n[limits]\npackets = '5/s'\n[deny]\ntrunks = ['tls']";
        let full = config(text);
        let mut has =
            CurrentState { settings: Some(EffectiveSettings::default()), ..CurrentState::default() };
        let forth = [
            "guard.mode enforce -> monitor",
            "checks.line-bytes 4096 -> 99",
            "limits.packets none -> 5/s burst 10",
            "deny.trunks tls permitted -> denied",
        ];
        assert_eq!(lines(&full, &has), forth);
        has.settings = difference(&full, &has).settings;
        has.limits = vec![Limit {
            trunk: None,
            kind: 0,
            limit: RateLimit { per_second: 5, burst: 10, mode: RuleMode::Enforce },
            author: String::new(),
            created_ms: 0,
        }];
        let (whom, what) = full.denials[0];
        has.denials =
            vec![Denial { whom, what, reason: String::new(), author: String::new(), created_ms: 0 }];
        assert_eq!(lines(&full, &has), [""; 0]);
        // Without a mark it was a command's, and stays.
        assert_eq!(lines(&config(""), &has), [""; 0]);
        has.named = named(&full);
        let back = [
            "guard.mode monitor -> enforce",
            "checks.line-bytes 99 -> 4096",
            "limits.packets 5/s burst 10 -> none",
            "deny.trunks tls denied -> permitted",
        ];
        assert_eq!(lines(&config(""), &has), back);
        // No file says nothing, and takes nothing back.
        assert_eq!(lines(&Config::default(), &has), [""; 0]);
    }
}
