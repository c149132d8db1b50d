//! `explain`: what a reason means, what holds now, and how to let pass what it refuses.

use anyhow::Result;
use serde::Serialize;
use sipguard_common::{Class, Reason, When};
use sipguard_core::check::{self, CheckScope, CheckState};
use sipguard_core::modes::MonitoredBy;
use sipguard_core::ops::explain::Explained;
use sipguard_core::ops::limit::{Kind, default};
use sipguard_core::view::{CheckStateView, LimitView, schema};

use super::limit::whole;
use super::{Format, not_attached, object, only_counted};

/// A reason, with its check or its limit.
#[derive(Serialize)]
struct ReasonDocument<'e> {
    reason: &'static str,
    /// What it says.
    text: &'static str,
    /// Where the rule is written; empty for a rule of the guard's own.
    spec: &'static str,
    /// Published faults that it stops; may be empty.
    advisories: &'static str,
    /// Who is known to send it, or something near to it, without harm; may be empty.
    harmless_senders: &'static str,
    /// `default` or `strict`: the profile in which it is made.
    profile: &'static str,
    /// Whether it is of a check that can be switched.
    is_check: bool,
    /// Whether that can be off.
    can_be_off: bool,
    /// For devices and for each trunk; none where there is no check to be switched, or where they are not told.
    states: Vec<StateNow>,
    /// The limits of the kind whose reason it is; none where it is no limit's, or there is none.
    limits: Vec<&'e LimitView>,
    /// Why what holds now is not told; null where it is.
    untold: &'e Option<String>,
}

/// The state of a check for somebody.
#[derive(Serialize)]
struct StateNow {
    #[serde(flatten)]
    state: CheckStateView,
    /// `guard` or `trunk`: whose mode is `monitor`; null where it is nobody's.
    monitored_by: Option<&'static str>,
}

pub fn explain(format: Format, explained: &Explained) -> Result<()> {
    let Explained { reason, states, limits, modes, in_force, untold, .. } = explained;
    not_attached(format, *in_force, "this takes effect");
    let now = |(scope, state): &(CheckScope, CheckState)| StateNow {
        state: CheckStateView::new(reason.name(), scope, *state),
        monitored_by: modes.monitored_by(scope).map(MonitoredBy::name),
    };
    let document = ReasonDocument {
        reason: reason.name(),
        text: reason.text(),
        spec: reason.spec(),
        advisories: reason.advisories(),
        harmless_senders: reason.harmless_senders(),
        profile: if reason.when() == When::Strict { "strict" } else { "default" },
        is_check: reason.is_check(),
        can_be_off: reason.is_check() && !reason.loses_framing(),
        states: states.iter().map(now).collect(),
        limits: limits.iter().filter_map(|(_, limit)| limit.as_ref()).collect(),
        untold,
    };
    object(format, schema::REASON, &document, || text(explained))
}

fn text(explained: &Explained) -> String {
    let reason = explained.reason;
    let mut text = format!("{}: {}\n", reason.name(), reason.text());
    for (what, value) in [
        ("written in", reason.spec()),
        ("stops", reason.advisories()),
        ("sent without harm by", reason.harmless_senders()),
    ] {
        if !value.is_empty() {
            text += &format!("  {what}: {value}\n");
        }
    }
    if reason.is_check() {
        return text + &of_check(explained);
    }
    text + &match Kind::of_reason(reason) {
        Some(kind) => of_limit(explained, kind),
        None => remedies(reason).iter().map(|(what, command)| line(what, command)).collect(),
    }
}

fn line(what: &str, command: &str) -> String {
    format!("  {what}: sipguard {command}\n")
}

fn untold(explained: &Explained) -> String {
    explained.untold.as_ref().map(|why| format!("  now: not told: {why}\n")).unwrap_or_default()
}

/// What holds of a check, and how it is switched.
fn of_check(explained: &Explained) -> String {
    let Explained { reason, set, states, modes, .. } = explained;
    let name = reason.name();
    let mut text = String::new();
    if reason.when() == When::Strict {
        text += "  made in the profile strict alone\n";
    }
    for (scope, state) in states {
        let whose = modes.monitored_by(scope).filter(|_| *state == CheckState::Refuse);
        text +=
            &format!("  now: {} for {scope}{}\n", state.name(), only_counted(whose.map(MonitoredBy::name)));
    }
    text += &untold(explained);
    let passes = if reason.loses_framing() {
        text += "  behind it the end of the message is uncertain: it can't be off, and with monitor the rest of the connection passes\n  \
                 unjudged until a message begins\n";
        CheckState::Monitor
    } else {
        CheckState::Off
    };
    // What is so already is not offered.
    let is_of_everybody = check::state(set, &CheckScope::Everybody, *reason) == passes;
    let mut trunks = states.iter().filter(|(scope, _)| matches!(scope, CheckScope::Trunk(_))).peekable();
    let is_of_trunks =
        if trunks.peek().is_some() { trunks.all(|(_, state)| *state == passes) } else { is_of_everybody };
    for (whom, scope, is_so) in [
        ("everybody", CheckScope::Everybody, is_of_everybody),
        ("devices", CheckScope::Devices, check::state(set, &CheckScope::Devices, *reason) == passes),
        ("a trunk", CheckScope::Trunk("NAME".to_owned()), is_of_trunks),
    ] {
        if !is_so {
            let command = format!("checks set {name} {}{}", passes.name(), scope.options());
            text += &line(&format!("let it pass from {whom}"), &command);
        }
    }
    if set.is_empty() {
        return text + &line("take that back", &format!("checks clear {name} [--devices|--trunk NAME]"));
    }
    for switch in set {
        let (scope, options) = (&switch.scope, switch.scope.options());
        text +=
            &line(&format!("take back what is set for {scope}"), &format!("checks clear {name}{options}"));
    }
    text
}

/// What holds of a limit, and how it is set.
fn of_limit(explained: &Explained, kind: Kind) -> String {
    let Explained { limits, modes, .. } = explained;
    let mut text = String::new();
    for (scope, limit) in limits {
        let now = limit.as_ref().map_or("none".to_owned(), whole);
        let whose = modes.monitored_by(scope).filter(|_| limit.is_some()).map(MonitoredBy::name);
        let own = limit.as_ref().is_some_and(|limit| limit.mode == "monitor");
        let counts = if own { "; only counted: set with --monitor".to_owned() } else { only_counted(whose) };
        text += &format!("  now: {now} for {scope}{counts}\n");
    }
    text += &untold(explained);
    let set = |trunk: bool| {
        let found = limits.iter().filter(|(scope, _)| (*scope != CheckScope::Devices) == trunk);
        found.filter_map(|(_, limit)| limit.as_ref()).map(whole).next()
    };
    // A number that holds, or would, so that the command can be pasted.
    let devices = set(false).or_else(|| default(None, kind).map(|most| most.to_string()));
    let number = |text: Option<String>| {
        text.map_or("LIMIT".to_owned(), |text| text.trim_end_matches(" at once").to_owned())
    };
    let (of, own) = (format!("--of {}", kind.name()), "--trunk NAME");
    let (devices, trunk) = (number(devices), number(set(true)));
    for (what, command) in [
        ("only count it", format!("limit set {of} {devices} --monitor")),
        ("stop it", format!("limit set {of} {devices}")),
        ("let it pass", format!("limit clear {of}")),
        ("set the default again", format!("limit reset {of}")),
        ("only count it of a trunk", format!("limit set {own} {of} {trunk} --monitor")),
        ("stop it of a trunk", format!("limit set {own} {of} {trunk}")),
        ("let it pass of a trunk", format!("limit clear {own} {of}")),
    ] {
        text += &line(what, &command);
    }
    text
}

/// How what neither a check of messages nor a limit stops is let pass: what to type, behind what it does.
fn remedies(reason: Reason) -> &'static [(&'static str, &'static str)] {
    match reason {
        Reason::BlockedHost => &[
            ("see who is blocked", "list block"),
            ("let it pass", "unblock ADDR"),
            ("only count it", "block ADDR --monitor"),
        ],
        Reason::BlockedPrefix => &[
            ("see what is blocked", "list block"),
            ("let it pass", "unblock CIDR"),
            ("let one address of it pass", "allow ADDR"),
            ("only count it", "block CIDR --monitor"),
        ],
        Reason::BlockedDevice => &[
            ("see who is blocked", "list block"),
            ("let it pass", "unblock ADDR:PORT"),
            ("only count it", "block ADDR:PORT --monitor"),
        ],
        Reason::BlockedIdentity => &[
            ("see who is blocked", "list block"),
            ("let it pass", "unblock sip:USER@HOST"),
            ("only count it", "block sip:USER@HOST --monitor"),
        ],
        Reason::BlockedUserAgent => &[
            ("see what is blocked", "list block"),
            ("let it pass", "unblock --user-agent TEXT"),
            ("only count it", "block --user-agent TEXT --monitor"),
        ],
        Reason::BannedDevice => &[
            ("see who is banned", "list ban"),
            ("let it pass", "unblock ADDR:PORT"),
            ("ban later", "bans set --after COUNT --within DURATION"),
            ("ban nobody", "bans off"),
        ],
        Reason::BannedAddress => &[
            ("see who is banned", "list ban"),
            ("let it pass", "unblock ADDR"),
            ("never ban it", "allow ADDR"),
            ("ban nobody", "bans off"),
        ],
        Reason::TransportDenied => &[
            ("see what is denied", "deny"),
            ("let it pass from devices", "permit TRANSPORT --from devices"),
            ("let it pass from all trunks", "permit TRANSPORT --from trunks"),
            ("let it pass from a trunk that may not use it", "trunk set NAME --transport all"),
        ],
        Reason::MethodDenied => &[
            ("see what is denied", "deny"),
            ("let it pass from devices", "permit METHOD --from devices"),
            ("let it pass from all trunks", "permit METHOD --from trunks"),
            ("let it pass from a trunk that may not send it", "trunk set NAME --method all"),
        ],
        Reason::EarlyAnswer => {
            &[("let it pass of one server", "trunk add NAME --peer ADDRESS --mode monitor")]
        }
        _ if reason.class() == Class::Pass => &[],
        _ => &[(
            "no check of messages, and no limit: it has no switch of its own; only count all that is stopped",
            "mode monitor",
        )],
    }
}
