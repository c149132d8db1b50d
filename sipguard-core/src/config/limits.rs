//! What has to change so that the limits of the configuration hold. Pure.

use sipguard_common::abi::RATE_KINDS;

use super::difference::{CurrentState, Difference, PlannedOperation};
use super::tree::path;
use super::{Config, Limited, LimitedAtOnce};
use crate::rate::{self, AtOnce, AtOnceMost, RateLimit};
use crate::rule::RuleMode;
use crate::store::{AtOnceLimit, DEFAULT_LIMITS, Limit};

impl Difference {
    pub(super) fn limits(
        &mut self,
        config: &Config,
        has: &CurrentState,
        gone: &dyn Fn(&str, String) -> bool,
    ) {
        let rate_of = |limit: &Limit| Some(limit.limit);
        for limit in &has.limits {
            let trunk = limit.trunk.as_deref();
            let default = default_rate(trunk, limit.kind);
            if gone("limit", limit_name(trunk, RATE_KINDS[limit.kind])) && rate_of(limit) != default {
                self.limit(limit.trunk.as_ref(), limit.kind, rate_of(limit), default);
            }
        }
        for Limited { trunk, kind, rate: desired } in &config.rates {
            let same = |limit: &&Limit| (&limit.trunk, limit.kind) == (trunk, *kind);
            let old = has.limits.iter().find(same).and_then(rate_of);
            if old == *desired {
                continue;
            }
            self.limit(trunk.as_ref(), *kind, old, *desired);
        }
        // The file took a default away.
        for (kind, rate) in DEFAULT_LIMITS {
            let is_none = !has.limits.iter().any(|limit| limit.trunk.is_none() && limit.kind == kind);
            if is_none && gone("limit", limit_name(None, RATE_KINDS[kind])) {
                self.limit(None, kind, None, Some(rate));
            }
        }
    }

    fn limit(&mut self, trunk: Option<&String>, kind: usize, old: Option<RateLimit>, new: Option<RateLimit>) {
        self.line(limit_key(trunk.map(String::as_str), RATE_KINDS[kind]), rate::text(old), rate::text(new));
        self.operations.push(match new {
            Some(rate) => PlannedOperation::Limit(trunk.cloned(), kind, rate),
            None => PlannedOperation::ClearLimit(trunk.cloned(), kind),
        });
    }

    pub(super) fn at_once(
        &mut self,
        config: &Config,
        has: &CurrentState,
        gone: &dyn Fn(&str, String) -> bool,
    ) {
        let mut desired = config.at_once.clone();
        let enforced = |most: u32| AtOnceMost { most, mode: RuleMode::Enforce };
        let default =
            |trunk: &Option<String>, kind: AtOnce| kind.default().filter(|_| trunk.is_none()).map(enforced);
        for AtOnceLimit { trunk, kind, .. } in &has.at_once {
            if gone("limit", limit_name(trunk.as_deref(), kind.name())) {
                let most = default(trunk, *kind);
                desired.push(LimitedAtOnce { trunk: trunk.clone(), kind: *kind, most });
            }
        }
        // The file took a default away.
        for kind in AtOnce::ALL {
            let is_none = !has.at_once.iter().any(|limit| limit.trunk.is_none() && limit.kind == kind);
            let most = default(&None, kind);
            if is_none && most.is_some() && gone("limit", limit_name(None, kind.name())) {
                desired.push(LimitedAtOnce { trunk: None, kind, most });
            }
        }
        for LimitedAtOnce { trunk, kind, most } in desired {
            let old = has.at_once.iter().find(|limit| (&limit.trunk, limit.kind) == (&trunk, kind));
            let old = old.map(|limit| limit.limit);
            if old == most {
                continue;
            }
            let key = limit_key(trunk.as_deref(), kind.name());
            self.line(key, rate::text(old), rate::text(most));
            self.operations.push(match most {
                Some(most) => PlannedOperation::AtOnce(trunk, kind, most),
                None => PlannedOperation::ClearAtOnce(trunk, kind),
            });
        }
    }
}

/// The limit that a new store has: of each source alone.
fn default_rate(trunk: Option<&str>, kind: usize) -> Option<RateLimit> {
    let found = DEFAULT_LIMITS.iter().find(|(of, _)| trunk.is_none() && *of == kind);
    found.map(|(_, rate)| *rate)
}

/// The name of a limit among those that the file names.
pub(super) fn limit_name(trunk: Option<&str>, kind: &str) -> String {
    trunk.map_or(kind.to_owned(), |trunk| format!("{trunk}/{kind}"))
}

fn limit_key(trunk: Option<&str>, kind: &str) -> String {
    let table = trunk.map_or("limits".to_owned(), |trunk| format!("{}.limits", path("trunks", trunk)));
    path(&table, kind)
}

#[cfg(test)]
mod tests {
    use super::super::difference::difference;
    use super::*;
    use crate::config::{ConfigSource, Sources, parse};

    #[test]
    fn the_mode_of_a_limit_is_a_difference() {
        let has = CurrentState {
            limits: vec![Limit {
                trunk: None,
                kind: 0,
                limit: RateLimit { per_second: 5, burst: 10, mode: RuleMode::Enforce },
                author: String::new(),
                created_ms: 0,
            }],
            at_once: vec![AtOnceLimit {
                trunk: Some("carrier".to_owned()),
                kind: AtOnce::Open,
                limit: AtOnceMost { most: 7, mode: RuleMode::Monitor },
                author: String::new(),
                created_ms: 0,
            }],
            ..CurrentState::default()
        };
        let carrier = "[trunks.carrier]\npeers = ['192.0.2.1']\n[trunks.carrier.limits]\n";
        let limits = |text: &str| {
            let source = ConfigSource { path: "x".into(), text: text.to_owned() };
            let found = difference(&parse(&Sources(vec![source])).unwrap().0, &has);
            let limits = found.lines.iter().filter(|line| line.key.contains("limits."));
            limits.map(|line| format!("{} {} -> {}", line.key, line.old, line.new)).collect::<Vec<_>>()
        };
        assert_eq!(
            limits(&format!("[limits]\npackets = '5/s monitor'\n{carrier}open = 7")),
            [
                "limits.packets 5/s burst 10 -> 5/s burst 10 monitor",
                "trunks.carrier.limits.open 7 at once monitor -> 7 at once"
            ]
        );
        let same = format!("[limits]\npackets = '5/s burst 10'\n{carrier}open = '7 monitor'");
        assert_eq!(limits(&same), [""; 0]);
    }
}
