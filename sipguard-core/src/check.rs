//! The switch of a check: whether its faults are refused, only counted, or not looked for; and whose switch it is. Pure.

use std::fmt;

use sipguard_common::Reason;
use sipguard_common::abi::CheckSwitches;

use crate::named::named;
use crate::near;

/// What becomes of the faults of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// They are refused.
    Refuse,
    /// They pass and are counted.
    Monitor,
    /// They are not looked for.
    Off,
}

named!(CheckState { Refuse = "refuse", Monitor = "monitor", Off = "off" });

/// Whose messages a switch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckScope {
    /// Everybody's for whom there is no switch of their own.
    Everybody,
    /// Those of whoever is no trunk.
    Devices,
    /// Those of a trunk, by its name.
    Trunk(String),
}

const DEVICES: &str = "devices";

impl CheckScope {
    /// Its name in the store: empty for the guard, `devices`, which no trunk is called, or the trunk's.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            CheckScope::Everybody => "",
            CheckScope::Devices => DEVICES,
            CheckScope::Trunk(name) => name,
        }
    }

    /// The scope of such a name.
    #[must_use]
    pub fn of(key: &str) -> CheckScope {
        match key {
            "" => CheckScope::Everybody,
            DEVICES => CheckScope::Devices,
            name => CheckScope::Trunk(name.to_owned()),
        }
    }

    /// Whom a limit is for: a trunk, or devices, of which each source has it.
    #[must_use]
    pub fn of_limit(trunk: Option<&str>) -> CheckScope {
        trunk.map_or(CheckScope::Devices, |name| CheckScope::Trunk(name.to_owned()))
    }

    /// Its word without the name of a trunk: `everybody`, `devices` or `trunk`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            CheckScope::Everybody => "everybody",
            CheckScope::Devices => DEVICES,
            CheckScope::Trunk(_) => "trunk",
        }
    }

    /// The options of a command that name it, with a blank before.
    #[must_use]
    pub fn options(&self) -> String {
        match self {
            CheckScope::Everybody => String::new(),
            CheckScope::Devices => " --devices".to_owned(),
            CheckScope::Trunk(name) => format!(" --trunk {name}"),
        }
    }
}

impl fmt::Display for CheckScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckScope::Everybody | CheckScope::Devices => f.write_str(self.word()),
            CheckScope::Trunk(name) => write!(f, "{} {name}", self.word()),
        }
    }
}

/// Every check, in the order of their numbers.
pub fn checks() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| reason.is_check())
}

/// Reads the name of a check.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(text: &str) -> Result<Reason, String> {
    if let Some(reason) = checks().find(|reason| reason.name() == text) {
        return Ok(reason);
    }
    let names: Vec<&str> = checks().map(Reason::name).collect();
    let is_reason = Reason::ALL.iter().any(|reason| reason.name() == text);
    let what = if is_reason { "is no check of messages" } else { "is no check" };
    let hint = near::hint(text, names.iter().copied());
    Err(format!("`{text}` {what}{hint}: write one of {}", names.join(", ")))
}

/// Reads the name of a check that somebody typed, in upper or lower case.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_typed(text: &str) -> Result<Reason, String> {
    parse(&text.to_ascii_lowercase())
}

/// What people write for `refuse`.
const REFUSES: [&str; 3] = ["enforce", "drop", "reject"];

/// Reads the name of a state.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_state(text: &str) -> Result<CheckState, String> {
    CheckState::of(text).ok_or_else(|| {
        let meant = if REFUSES.contains(&text) { CheckState::Refuse.name() } else { text };
        let hint = near::hint(meant, CheckState::ALL.iter().map(|state| state.name()));
        format!("`{text}`{hint} is none of {}", CheckState::names())
    })
}

/// Whether a check can be in a state.
///
/// # Errors
/// Why it can't, and what can be done instead.
pub(crate) fn is_possible(reason: Reason, state: CheckState) -> Result<(), String> {
    if state != CheckState::Off || !reason.loses_framing() {
        return Ok(());
    }
    let name = reason.name();
    Err(format!(
        "`{name}` can't be off: behind such a fault it is uncertain where the message ends, and nothing more of the connection can be \
         judged; `monitor` lets it pass and counts it"
    ))
}

/// A switch that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Whose.
    pub scope: CheckScope,
    /// Of which check.
    pub reason: Reason,
    /// Its state.
    pub state: CheckState,
}

/// The state of a check for somebody: by a switch of their own, else by the guard's, else it refuses.
#[must_use]
pub fn state(switches: &[Switch], scope: &CheckScope, reason: Reason) -> CheckState {
    let of = |scope: &CheckScope| {
        let found = switches.iter().find(|switch| switch.scope == *scope && switch.reason == reason);
        found.map(|switch| switch.state)
    };
    of(scope).or_else(|| of(&CheckScope::Everybody)).unwrap_or(CheckState::Refuse)
}

/// The kernel's form of all checks for somebody.
#[must_use]
pub fn entry(switches: &[Switch], scope: &CheckScope) -> CheckSwitches {
    let mut entry = CheckSwitches::NONE;
    for reason in checks() {
        match state(switches, scope, reason) {
            CheckState::Refuse => {}
            CheckState::Monitor => entry.monitored |= reason.check_bit(),
            CheckState::Off => entry.off |= reason.check_bit(),
        }
    }
    entry
}

/// The state of a check in the kernel's form.
#[must_use]
pub(crate) fn state_in(entry: &CheckSwitches, reason: Reason) -> CheckState {
    let bit = reason.check_bit();
    match (entry.off & bit, entry.monitored & bit) {
        (0, 0) => CheckState::Refuse,
        (0, _) => CheckState::Monitor,
        _ => CheckState::Off,
    }
}

/// The checks of the kernel's form that do not refuse, with their states.
pub(crate) fn not_refusing(entry: &CheckSwitches) -> impl Iterator<Item = (Reason, CheckState)> {
    checks().map(|reason| (reason, state_in(entry, reason))).filter(|(_, state)| *state != CheckState::Refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(scope: &CheckScope, reason: Reason, state: CheckState) -> Switch {
        Switch { scope: scope.clone(), reason, state }
    }

    #[test]
    fn each_check_in_each_state_for_whom_it_is_set() {
        let trunk = CheckScope::Trunk("carrier".to_owned());
        let other = CheckScope::Trunk("other".to_owned());
        for reason in checks() {
            for state in [CheckState::Monitor, CheckState::Off] {
                if is_possible(reason, state).is_err() {
                    assert!(reason.loses_framing() && state == CheckState::Off);
                    continue;
                }
                let bits = |state| match state {
                    CheckState::Monitor => CheckSwitches { off: 0, monitored: reason.check_bit() },
                    CheckState::Off => CheckSwitches { off: reason.check_bit(), monitored: 0 },
                    CheckState::Refuse => CheckSwitches::NONE,
                };
                for (scope, devices, carrier, others) in [
                    (CheckScope::Everybody, state, state, state),
                    (CheckScope::Devices, state, CheckState::Refuse, CheckState::Refuse),
                    (trunk.clone(), CheckState::Refuse, state, CheckState::Refuse),
                ] {
                    let set = [switch(&scope, reason, state)];
                    for (whose, state) in
                        [(&CheckScope::Devices, devices), (&trunk, carrier), (&other, others)]
                    {
                        assert_eq!(entry(&set, whose), bits(state), "{} of {scope:?}", reason.name());
                        assert_eq!(state_in(&bits(state), reason), state);
                    }
                }
                // A switch of one's own comes before the guard's.
                let both = [
                    switch(&CheckScope::Everybody, reason, state),
                    switch(&trunk, reason, CheckState::Refuse),
                ];
                assert_eq!(entry(&both, &trunk), CheckSwitches::NONE);
                assert_eq!(entry(&both, &other), bits(state));
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("bare-lf"), Ok(Reason::BareLf));
        assert!(parse("bare-fl").unwrap_err().starts_with(
            "`bare-fl` is no check (did you mean bare-lf?): write one of slow-message, bad-start-line,"
        ));
        assert!(
            parse("blocked-host")
                .unwrap_err()
                .starts_with("`blocked-host` is no check of messages: write one of ")
        );
        assert_eq!(parse_state("on").unwrap_err(), "`on` is none of refuse, monitor, off");
        for (text, meant) in [("enforce", "refuse"), ("monitr", "monitor"), ("of", "off")] {
            let told = format!("`{text}` (did you mean {meant}?) is none of refuse, monitor, off");
            assert_eq!(parse_state(text).unwrap_err(), told);
        }
        assert_eq!(
            [parse_typed("Bare-LF"), parse_typed("bare-lf")],
            [Ok(Reason::BareLf), Ok(Reason::BareLf)]
        );
        assert!(parse("Bare-LF").is_err() && parse_typed("BARE-FL").unwrap_err().contains("mean bare-lf?"));
    }
}
