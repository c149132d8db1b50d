//! From tables to what they mean, with every contradiction found.

use std::time::Duration;

use super::check_values::Switches;
use super::source::{Problem, Sources};
use super::tables::{Block, Deny, GuardTable, Port, Tables};
use super::tree::{Locations, Read};
use super::trunks::TrunkValidation;
use super::value::Text;
use super::{Config, Limited};
use crate::ban_rule::{self, BanRequest, BanRule};
use crate::check::{CheckScope, Switch};
use crate::claim::UserAgent;
use crate::denial::{DeniedTraffic, Whom};
use crate::duration;
use crate::protect::other_protocol;
use crate::settings::SettingsRequest;

/// Collects mistakes and warnings.
pub(super) struct Validator<'j> {
    sources: &'j Sources,
    locations: &'j Locations,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Validator<'_> {
    fn problem(&self, key: &str, text: String) -> Problem {
        Problem { location: self.sources.location(self.locations.position(key)), key: key.to_owned(), text }
    }

    pub(super) fn refuse(&mut self, key: &str, text: impl Into<String>) {
        self.problems.push(self.problem(key, text.into()));
    }

    pub(super) fn warn(&mut self, key: &str, text: impl Into<String>) {
        self.warnings.push(self.problem(key, text.into()));
    }

    pub(super) fn location(&self, key: &str) -> String {
        self.sources.location(self.locations.position(key)).to_string()
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.locations.is_set(key)
    }

    pub(super) fn is_refused(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }
}

/// What the files mean, and warnings about it.
pub(super) fn validate(sources: &Sources, read: Read) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let mut validator =
        Validator { sources, locations: &read.locations, problems: read.problems, warnings: Vec::new() };
    let config = validator.config(read.tables);
    let Validator { mut problems, mut warnings, .. } = validator;
    warnings.sort_by_key(|problem| order(sources, problem));
    if problems.is_empty() {
        return Ok((config, warnings));
    }
    problems.sort_by_key(|problem| order(sources, problem));
    Err(problems)
}

/// In the order of the files, not of their paths.
fn order(sources: &Sources, problem: &Problem) -> (usize, usize, usize) {
    let location = &problem.location;
    let file = sources.paths().iter().position(|path| *path == location.path).unwrap_or_default();
    (file, location.line, location.column)
}

impl Validator<'_> {
    fn config(&mut self, tables: Tables) -> Config {
        let Tables { guard, checks, limits, bans, block, deny, trunks, serve, crash, cores } = tables;
        let bans = bans.request();
        self.ports(&guard);
        self.bans(&bans);
        let agents = self.agents(&block);
        let denials = self.denials(&deny);
        let mut validated = TrunkValidation::default();
        let mut rates: Vec<_> =
            limits.said().map(|(kind, rate)| Limited { trunk: None, kind, rate }).collect();
        let mut at_once: Vec<_> = limits.said_at_once(None).collect();
        let of = |scope: CheckScope, Switches(all)| {
            all.into_iter().map(move |(reason, state)| Switch { scope: scope.clone(), reason, state })
        };
        let guard_checks = of(CheckScope::Everybody, checks.switches);
        let mut switches: Vec<_> = guard_checks.chain(of(CheckScope::Devices, checks.devices)).collect();
        for (Text(name), mut trunk) in trunks {
            switches.extend(of(CheckScope::Trunk(name.0.clone()), std::mem::take(&mut trunk.checks)));
            let whose = || Some(name.0.clone());
            rates.extend(trunk.limits.said().map(|(kind, rate)| Limited { trunk: whose(), kind, rate }));
            at_once.extend(trunk.limits.said_at_once(Some(&name.0)));
            validated.add(self, name.0, trunk);
        }
        validated.check(self, &denials);
        let numbers = |ports: Vec<Port>| ports.iter().map(|port| port.0 as u16).collect();
        Config {
            files: !self.sources.0.is_empty(),
            interfaces: guard.interfaces.unwrap_or_default().into_iter().map(|Text(name)| name.0).collect(),
            xdp: guard.xdp_mode,
            flows: guard.flows.map(|flows| flows.0),
            grace: guard.grace.map(|Text(span)| span.0),
            settings: SettingsRequest {
                mode: guard.mode,
                malformed: guard.on_malformed,
                ports: guard.ports.map(numbers),
                tls_ports: guard.tls_ports.map(numbers),
                profile: guard.profile,
                refuse_lf: guard.refuse_lf,
                single: checks.limits,
            },
            force_ports: guard.force_ports.unwrap_or_default(),
            rates,
            at_once,
            checks: switches,
            bans,
            agents,
            denials,
            trunks: validated.rows,
            serve: self.service(serve, crash, cores),
        }
    }

    fn ports(&mut self, guard: &GuardTable) {
        if guard.ports.as_ref().is_some_and(Vec::is_empty) {
            self.refuse(
                "guard.ports",
                "no port, so nothing would be guarded: name at least one, such as [5060]",
            );
        }
        for (key, ports) in [("ports", &guard.ports), ("tls-ports", &guard.tls_ports)] {
            for (at, port) in ports.iter().flatten().enumerate() {
                let known = other_protocol(port.0 as u16).filter(|_| guard.force_ports != Some(true));
                if let Some(name) = known {
                    let text = format!(
                        "{} is known as the port of {name}, whose connections would be reset: take it out, or write `force-ports = true` where it is SIP",
                        port.0
                    );
                    self.refuse(&format!("guard.{key}[{at}]"), text);
                }
            }
        }
        for (at, port) in guard.tls_ports.iter().flatten().enumerate() {
            if let Some(other) = guard.ports.iter().flatten().position(|other| other == port) {
                let location = self.location(&format!("guard.ports[{other}]"));
                let text =
                    format!("{} is a SIP port as well ({location}): a port is one or the other", port.0);
                self.refuse(&format!("guard.tls-ports[{at}]"), text);
            }
        }
    }

    fn bans(&mut self, bans: &BanRequest) {
        let BanRule { first, longest, .. } = bans.of(&ban_rule::DEFAULT);
        let is_broken = |key: &str, span: Option<Duration>| span.is_none() && self.is_set(key);
        if first <= longest || is_broken("bans.first", bans.first) || is_broken("bans.longest", bans.longest)
        {
            return;
        }
        let key = if bans.first.is_some() { "bans.first" } else { "bans.longest" };
        let span = duration::shown;
        let text = format!(
            "the first ban ({}) would be longer than the longest ({}): say both, `first` and `longest`",
            span(first),
            span(longest)
        );
        self.refuse(key, text);
    }

    fn agents(&mut self, block: &Block) -> Vec<UserAgent> {
        let mut all = Vec::new();
        for (at, Text(agent)) in block.user_agents.iter().flatten().enumerate() {
            if let Some(family) = agent.family() {
                let text = format!(
                    "`{}` would stop every user agent of the family {family}: write more of it (or `sipguard block --user-agent {} --force`)",
                    agent.text(),
                    agent.text()
                );
                self.refuse(&format!("block.user-agents[{at}]"), text);
            }
            if !all.contains(agent) {
                all.push(*agent);
            }
        }
        all
    }

    fn denials(&self, deny: &Deny) -> Vec<(Whom, DeniedTraffic)> {
        let mut all: Vec<(Whom, DeniedTraffic)> = Vec::new();
        for (whom, words) in [(Whom::Trunks, &deny.trunks), (Whom::Devices, &deny.devices)] {
            for what in words.iter().flatten().flat_map(|Text(denials)| &denials.0) {
                let same = |(other, one): &(Whom, DeniedTraffic)| {
                    *other == whom && one.to_string() == what.to_string()
                };
                if !all.iter().any(same) {
                    all.push((whom, *what));
                }
            }
        }
        all
    }
}
