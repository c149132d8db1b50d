//! `status`.

use std::collections::BTreeSet;

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_common::framer::{LIMITS, Limits, checks};
use sipguard_core::ban_rule::BanRule;
use sipguard_core::check::{CheckScope, Switch};
use sipguard_core::duration;
use sipguard_core::fill::TableFill;
use sipguard_core::ops::status::{GuardStatus, InterfaceStatus, MonitoredLimit};
use sipguard_core::settings;
use sipguard_core::view::{StatusView, schema};
use sipguard_observe::events::line;
use sipguard_observe::ops::glance::{Glance, SAMPLE};
use sipguard_observe::view::AddressView;

use super::{Format, object};
use crate::table::table;

/// What is seen at a glance is for people: it takes half a second.
pub fn status(format: Format, report: &GuardStatus, glance: Option<&Glance>) -> Result<()> {
    object(format, schema::STATUS, &StatusView::from(report), || {
        let glance = glance.map(|glance| seen(report, glance)).unwrap_or_default();
        format!("{}\n{glance}\n{}", report.verdict(), text(report))
    })
}

/// What an operator wants to know first.
fn seen(report: &GuardStatus, glance: &Glance) -> String {
    let (stopped, counted) = glance.per_second;
    let mut all = format!("{stopped:.1}/s stopped, for whatever reason");
    if counted > 0.0 || report.mode == "monitor" {
        all += &format!("; {counted:.1}/s would be");
    }
    all += &format!(" (last {} s)", SAMPLE.as_secs_f64());
    let offending = format!("{:.1}/s malformed or over a limit (last 10 s)", glance.offending);
    let mut lines = vec![("now", all), ("", offending)];
    if let Some(top) = &glance.top {
        lines.extend(offender(&AddressView::of_row(top)));
    } else {
        let none = "none: of what was judged nothing was malformed, nor over a limit";
        lines.push(("offender", none.to_owned()));
    }
    if glance.at_block > 0 {
        let packets = super::plural(usize::try_from(glance.at_block).unwrap_or(usize::MAX), "packet");
        lines.push((
            "",
            format!("{packets} since the attach met a block or a ban, and were looked at no further"),
        ));
    }
    let [bans, blocks] =
        [(report.bans, "ban"), (report.blocks, "block")].map(|(count, one)| super::plural(count, one));
    lines.push(("bans", format!("{bans}, {blocks}; {}", banned(report))));
    let trunks: Vec<String> =
        report.trunks.iter().map(|(name, mode)| mode_of(name, mode, report.mode)).collect();
    lines.push(("trunks", if trunks.is_empty() { "none".to_owned() } else { trunks.join(", ") }));
    let last = glance.last.as_ref().map(|event| line(&event.packet, event.rule.as_deref()));
    lines.push(("last event", last.unwrap_or_else(|| "none".to_owned())));
    let full = |table: &TableFill| format!("{} {} of {}", table.name, table.entries, table.capacity);
    let full: Vec<String> = glance.nearly_full.iter().map(full).collect();
    lines.push((
        "tables",
        if full.is_empty() {
            "none nearly full".to_owned()
        } else {
            format!("NEARLY FULL: {}", full.join(", "))
        },
    ));
    let serve = if glance.serve.is_up { "up" } else { "not up (the filter does not need it)" };
    lines.push(("serve", format!("{serve}, at {}", glance.serve.listen)));
    lines.push(("version", env!("CARGO_PKG_VERSION").to_owned()));
    lines.into_iter().map(|(label, said)| format!("{label:<10}  {said}\n")).collect()
}

/// Who sends the most of what is malformed, and how to block it.
fn offender(top: &AddressView) -> Vec<(&'static str, String)> {
    let reason = top.reasons.first().map_or("", |reason| reason.reason.as_str());
    let ports = if top.ports_seen == 0 {
        String::new()
    } else {
        format!(" by {}", super::plural(top.ports_seen, "port"))
    };
    let rate = top.packets_per_second;
    let packets = super::plural(usize::try_from(top.packets).unwrap_or(usize::MAX), "packet");
    let line = format!("{}: {packets}{ports}, {rate:.1}/s (last 10 s), {reason}", top.src_ip);
    let said = [("From: ", &top.from), ("User-Agent: ", &top.user_agent)];
    let said = said.into_iter().filter_map(|(name, said)| Some(("", format!("{name}{}", said.as_ref()?))));
    let block = super::counters::to_block(top).into_iter().map(|said| ("", said));
    [("offender", line)].into_iter().chain(said).chain(block).collect()
}

/// When somebody is banned, in a few words.
fn banned(report: &GuardStatus) -> String {
    let BanRule { after, address_after, within, quiet, .. } = &report.ban_rule;
    if *after == 0 {
        return "nobody is banned by the guard itself".to_owned();
    }
    let (within, quiet) = (duration::shown(*within), duration::shown(*quiet));
    let address = match report.addresses_banned_from {
        Some(from) => format!("no address before {from}"),
        None => format!("an address after {address_after} where nothing good came for {quiet}"),
    };
    format!("a port is banned after {after} malformed streams within {within}, {address}")
}

fn mode_of(name: &str, mode: &str, guard: &str) -> String {
    if mode == "inherit" { format!("{name} {guard} (inherited)") } else { format!("{name} {mode}") }
}

fn list(ports: &BTreeSet<u16>) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

/// Those limits that are not of the profile.
fn own_limits(report: &GuardStatus) -> String {
    let profile =
        if settings::profile(&report.limits) == "strict" { Limits::strict() } else { Limits::default() };
    let own = LIMITS.iter().filter(|limit| limit.get(&report.limits) != limit.get(&profile));
    let mut text: String =
        own.map(|limit| format!(", {} {}", limit.name, limit.get(&report.limits))).collect();
    if report.limits.has(checks::REFUSE_LF) {
        text += ", LF alone is refused";
    }
    text
}

/// Whose connections begin with a PROXY header.
fn balancers(report: &GuardStatus) -> String {
    if report.balancers.is_empty() {
        return String::new();
    }
    format!("PROXY header of the trunks: {}\n", report.balancers.join(" "))
}

fn text(report: &GuardStatus) -> String {
    let connections = &report.connections;
    let live = connections.live();
    let head = format!(
        "mode {}, malformed streams: {}, guarded ports: {}, TLS ports: {}, blocks: {}, connections: {live}, flow table: {} of {}\n\
         checks: {}{}\n{}\n",
        report.mode,
        report.action,
        list(&report.ports.sip),
        list(&report.ports.tls),
        report.blocks,
        connections.flows,
        connections.flows_max,
        settings::profile(&report.limits),
        own_limits(report),
        balancers(report),
    );
    let switched = report.checks.iter().map(switched).chain(report.monitored_limits.iter().map(monitored));
    let switched: String = switched.collect();
    let head = if switched.is_empty() { head } else { head.trim_end().to_owned() + "\n" + &switched + "\n" };
    let rows = report.interfaces.iter().map(|one| {
        let since = one.since.map(|since| since.to_string()).unwrap_or_default();
        let [followed, lost] = [one.known.followed, one.known.lost].map(|count| count.to_string());
        vec![
            one.name.clone(),
            one.driver.clone(),
            one.shown().to_owned(),
            followed,
            lost,
            one.why.clone(),
            since,
        ]
    });
    let weaknesses: String = report.weaknesses.iter().map(|one| format!("weaker: {}\n", one.text)).collect();
    let gap = if weaknesses.is_empty() { "" } else { "\n" };
    let notes: String = report.interfaces.iter().map(unjudged).collect();
    let gap_before_notes = if notes.is_empty() { "" } else { "\n" };
    head + &weaknesses
        + gap
        + &table(&["INTERFACE", "DRIVER", "XDP", "FOLLOWED", "LOST", "WHY", "SINCE"], rows)
        + gap_before_notes
        + &notes
}

/// A check that does not refuse.
fn switched(switch: &Switch) -> String {
    format!("check {}: {} for {}\n", switch.reason.name(), switch.state.name(), switch.scope)
}

/// A limit that only counts.
fn monitored(limit: &MonitoredLimit) -> String {
    let MonitoredLimit { trunk, kind } = limit;
    let whom = CheckScope::of_limit(trunk.as_deref());
    format!("limit {}: monitor for {whom}\n", kind.name())
}

/// What is to be known of a number, lest it is taken for a leak.
fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::NoConnection => {
            " (of no connection that the kernel has, as after a reset: it refuses them, and no PBX reads them)"
        }
        Reason::MidStream => " (connections older than the guard, until their next message)",
        _ => "",
    }
}

/// What passes unjudged, and why.
fn unjudged(one: &InterfaceStatus) -> String {
    let name = &one.name;
    let mut text = String::new();
    if one.known.lost > 0 {
        text += &format!(
            "{name}: {} unjudged until the next message begins on them: they are older than the guard, or it forgot them\n",
            super::plural(one.known.lost, "connection")
        );
    }
    if one.known.other > 0 {
        text += &format!(
            "{name}: {} not judged, which the PBX dialled and which speaks no SIP\n",
            super::plural(one.known.other, "connection")
        );
    }
    let packet =
        |(reason, packets): &(Reason, u64)| format!("{} {packets}{}", reason.name(), meaning(*reason));
    let packets: Vec<String> = one.unjudged.iter().map(packet).collect();
    if !packets.is_empty() {
        text +=
            &format!("{name}: packets that passed unjudged since it was attached: {}\n", packets.join(", "));
    }
    text
}
