//! What a replay comes to: whether anything legal would be stopped, whose, why, and what would let it pass.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use sipguard_common::{Class, Reason, When};
use sipguard_core::address::{Mapped, unmapped};
use sipguard_core::check::CheckScope;
use sipguard_core::escape::escaped;

use super::capture::STANDARD_INPUT;
use super::explain::Explanation;
use super::report::STOPS;
use super::tally::Tally;
use crate::view::{AnswerView, FaultView};

/// Faults that are told.
const MOST: usize = 50;

/// A capture in which nothing could be judged.
pub(crate) const NOTHING_JUDGED: &str = "nothing-judged";

/// What would be stopped of an address, for a reason.
struct Fault {
    packets: u64,
    first: u64,
    trunk: u8,
    /// The ports, at least one.
    ports: Vec<u16>,
}

/// The answer. `ports` are the guarded ones, `trunk` gives the name of one by its index.
#[must_use]
pub(crate) fn answer(
    file: &Path,
    tally: &Tally,
    ports: &str,
    trunk: &dyn Fn(u8) -> Option<String>,
) -> AnswerView {
    let faults = faults(tally);
    let (verdict, text) = verdict(tally, &faults, ports);
    let shown = faults.iter().take(MOST).map(|((address, reason), fault)| {
        let located = located(&tally.explained, *address, *reason);
        FaultView {
            src_ip: unmapped(*address).to_string(),
            trunk: trunk(fault.trunk),
            reason: reason.name(),
            packets: fault.packets,
            well_formed: tally.well_formed.get(address).copied().unwrap_or(0),
            first_packet: fault.first,
            packet: located.map(|one| one.packet),
            offset: located.and_then(|one| one.offset),
            line: located.map(|one| escaped(&one.line)),
            text: located.map(Explanation::shown),
        }
    });
    AnswerView {
        verdict,
        text,
        faults: shown.collect(),
        blocks: blocks(tally, &faults),
        commands: commands(file, &faults, trunk),
    }
}

/// The explanation of the first packet of which the line is known.
fn located(explained: &[Explanation], address: Mapped, reason: Reason) -> Option<&Explanation> {
    explained.iter().find(|one| one.from == address && one.reason == reason && one.offset.is_some())
}

/// What is stopped, by address and reason, the most packets first.
fn faults(tally: &Tally) -> Vec<((Mapped, Reason), Fault)> {
    let mut all: BTreeMap<(Mapped, u8), Fault> = BTreeMap::new();
    let stopped = tally.sources.iter().filter(|((.., action), _)| STOPS.contains(action));
    for ((address, port, number, _), stopped) in stopped {
        let fault = all.entry((*address, *number)).or_insert_with(|| Fault {
            packets: 0,
            first: stopped.first,
            trunk: stopped.trunk,
            ports: Vec::new(),
        });
        fault.packets += stopped.packets;
        fault.first = fault.first.min(stopped.first);
        fault.ports.push(*port);
    }
    let named = |((address, number), fault)| Some(((address, Reason::from_number(number)?), fault));
    let mut all: Vec<_> = all.into_iter().filter_map(named).collect();
    all.sort_by_key(|(_, fault)| (Reverse(fault.packets), fault.first));
    all
}

/// Whether a packet with this reason was for a guarded port and is judged: not what passes because nothing is known of it.
fn is_judged(reason: Reason) -> bool {
    let nothing = [
        Reason::NotIp,
        Reason::NotGuarded,
        Reason::TcpControl,
        Reason::MidStream,
        Reason::NoConnection,
        Reason::Internal,
    ];
    !nothing.contains(&reason)
}

/// Whether a rule asks for it: a block or a denial.
fn is_of_rule(reason: Reason) -> bool {
    reason.is_of_sender()
        || matches!(
            reason,
            Reason::BlockedPrefix | Reason::BlockedIdentity | Reason::BlockedUserAgent | Reason::MethodDenied
        )
}

/// Whether what is stopped for it may be legal: it is larger or slower than a limit, the profile strict alone refuses it, or who sends it does
/// so without harm.
fn may_be_legal(reason: Reason) -> bool {
    is_of_a_limit(reason) || !reason.harmless_senders().is_empty()
}

/// Whether what is stopped for it is well-formed but larger or slower than a limit, or refused by the profile strict alone.
fn is_of_a_limit(reason: Reason) -> bool {
    reason.is_too_large() || reason == Reason::SlowMessage || reason.when() == When::Strict
}

fn verdict(tally: &Tally, faults: &[((Mapped, Reason), Fault)], ports: &str) -> (&'static str, String) {
    let reasons = || {
        tally
            .reasons
            .iter()
            .filter_map(|((number, _), packets)| Some((Reason::from_number(*number)?, *packets)))
    };
    let judged: u64 = reasons().filter(|(reason, _)| is_judged(*reason)).map(|(_, packets)| packets).sum();
    let stopped = tally.with(&STOPS);
    if judged == 0 {
        let unknown =
            tally.of(Reason::NoConnection) + tally.of(Reason::MidStream) + tally.cut + tally.lacking;
        let why = if unknown > 0 {
            format!(
                "of what is for a guarded port ({ports}) nothing could be judged: {unknown} packets lack what came before, or a part"
            )
        } else {
            format!("no packet came in for a guarded port ({ports})")
        };
        return (NOTHING_JUDGED, format!("nothing can be said: {why}"));
    }
    if stopped == 0 {
        return ("nothing-stopped", format!("nothing would be stopped of {}", packets(judged)));
    }
    let mut addresses: Vec<Mapped> = faults.iter().map(|((address, _), _)| *address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // What is over the most that are remembered is counted without its address.
    let least = if tally.of_others == 0 { "" } else { "at least " };
    let whose = format!(
        "{} of {judged} would be stopped, of {least}{}",
        packets(stopped),
        counted(addresses.len(), "address", "addresses")
    );
    if faults.iter().all(|((_, reason), _)| is_of_rule(*reason)) && tally.of_others == 0 {
        return ("rules-alone", format!("nothing but what rules say: {whose}"));
    }
    let used = addresses.iter().filter(|address| tally.well_formed.contains_key(*address)).count();
    // What TCP sends again, and what no application would read, is nobody's message.
    let of_messages = |reason: Reason| reason.class() == Class::Malformed || reason == Reason::SlowMessage;
    let legal = faults.iter().any(|((address, reason), _)| {
        may_be_legal(*reason) || of_messages(*reason) && tally.well_formed.contains_key(address)
    });
    if !legal && tally.of_others == 0 {
        return ("malformed-alone", format!("nothing legal that one can see: {whose}"));
    }
    let also = match used {
        0 => "; none of them also sent anything well-formed".to_owned(),
        1 => "; 1 of them also sent what is well-formed, and is in use".to_owned(),
        used => format!("; {used} of them also sent what is well-formed, and are in use"),
    };
    ("perhaps-legal", format!("perhaps something legal: {whose}{also}"))
}

fn packets(count: u64) -> String {
    if count == 1 { "1 packet".to_owned() } else { format!("{count} packets") }
}

fn counted(count: usize, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// What would stop who sends nothing but what is malformed, the one with the most packets first. Who is over a limit alone, or is a trunk's, is not named,
/// nor who sent a single packet, which anybody can forge.
fn blocks(tally: &Tally, faults: &[((Mapped, Reason), Fault)]) -> Vec<String> {
    let mut all: Vec<(Mapped, u64, Vec<u16>)> = Vec::new();
    for ((address, reason), fault) in faults {
        let of_address = || faults.iter().filter(|((other, _), _)| other == address);
        let is_offender = reason.class() == Class::Malformed
            && fault.trunk == 0
            && !tally.well_formed.contains_key(address)
            && of_address().all(|((_, reason), _)| !is_of_a_limit(*reason) && !is_of_rule(*reason));
        if !is_offender || all.iter().any(|(known, ..)| known == address) {
            continue;
        }
        let packets = of_address().map(|(_, fault)| fault.packets).sum();
        let mut ports: Vec<u16> = of_address().flat_map(|(_, fault)| fault.ports.clone()).collect();
        ports.sort_unstable();
        ports.dedup();
        all.push((*address, packets, ports));
    }
    all.retain(|(_, packets, _)| *packets > 1);
    all.sort_by_key(|(_, packets, _)| Reverse(*packets));
    let command = |(address, _, ports): (Mapped, u64, Vec<u16>)| match (unmapped(address), &ports[..]) {
        (address, [port]) => format!("sipguard block {}", std::net::SocketAddr::new(address, *port)),
        (address, _) => format!("sipguard block {address}"),
    };
    all.into_iter().take(MOST).map(command).collect()
}

/// What would let it pass, each command once, and how to see what is left.
fn commands(
    file: &Path,
    faults: &[((Mapped, Reason), Fault)],
    trunk: &dyn Fn(u8) -> Option<String>,
) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for ((address, reason), fault) in faults {
        let (name, address) = (reason.name(), unmapped(*address));
        let scope = trunk(fault.trunk).map_or(CheckScope::Devices, CheckScope::Trunk);
        let command = match reason {
            Reason::BlockedHost => format!("unblock {address}"),
            Reason::BlockedPrefix => format!("allow {address}"),
            Reason::BlockedDevice => {
                let device = |port: &u16| std::net::SocketAddr::new(address, *port).to_string();
                format!("unblock {}", fault.ports.iter().map(device).collect::<Vec<_>>().join(" "))
            }
            Reason::MethodDenied if scope != CheckScope::Devices => {
                format!("trunk set {} --method all", trunk(fault.trunk).unwrap_or_default())
            }
            Reason::TransportDenied if scope != CheckScope::Devices => {
                format!("trunk set {} --transport all", trunk(fault.trunk).unwrap_or_default())
            }
            _ if reason.is_check() && reason.loses_framing() => {
                format!("checks set {name} monitor{}", scope.options())
            }
            _ if reason.is_check() => format!("checks set {name} off{}", scope.options()),
            // What that is, and whether there is a way.
            _ => format!("explain {name}"),
        };
        let command = format!("sipguard {command}");
        if !all.contains(&command) {
            all.push(command);
        }
    }
    all.truncate(MOST);
    if !all.is_empty() && file.as_os_str() != STANDARD_INPUT {
        all.push(format!("sipguard replay {} --with-store", quoted(&file.to_string_lossy())));
    }
    all
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+=:@,".contains(one);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use sipguard_core::address::mapped;
    use sipguard_core::counters::Action;

    use super::*;
    use crate::tally::Stopped;

    /// A tally of packets that were stopped: last byte of the address, reason, packets; and of how many were well-formed.
    fn tally(stopped: &[(u8, Reason, u64)], well_formed: &[(u8, u64)]) -> Tally {
        let mut tally = Tally::default();
        let address = |last: u8| mapped(std::net::IpAddr::from([192, 0, 2, last]));
        for (last, reason, packets) in stopped {
            *tally.reasons.entry((reason.number(), Action::Drop)).or_default() += packets;
            let one =
                Stopped { packets: *packets, first: 7, sample: Vec::new(), trunk: u8::from(*last == 200) };
            tally.sources.insert((address(*last), 5060, reason.number(), Action::Drop), one);
        }
        for (last, packets) in well_formed {
            *tally.reasons.entry((Reason::Valid.number(), Action::Pass)).or_default() += packets;
            tally.well_formed.insert(address(*last), *packets);
        }
        tally
    }

    fn of(tally: &Tally) -> AnswerView {
        answer(Path::new("a capture"), tally, "5060", &|index| (index == 1).then(|| "carrier".to_owned()))
    }

    #[test]
    fn what_is_legal_is_told_apart() {
        for (stopped, well_formed, verdict) in [
            (&[][..], &[][..], "nothing-judged"),
            (&[], &[(7, 3)], "nothing-stopped"),
            (&[(7, Reason::BlockedHost, 3), (8, Reason::MethodDenied, 1)], &[(7, 1)], "rules-alone"),
            (&[(7, Reason::BareCr, 3), (8, Reason::BlockedHost, 1)], &[(9, 1)], "malformed-alone"),
            (&[(7, Reason::BareCr, 3)], &[(7, 1)], "perhaps-legal"),
            (&[(7, Reason::LineTooLong, 3)], &[], "perhaps-legal"),
            (&[(7, Reason::TruncatedBody, 3)], &[], "perhaps-legal"),
            (&[(7, Reason::BadTcpFlags, 3)], &[(7, 1)], "malformed-alone"),
        ] {
            let found = of(&tally(stopped, well_formed));
            assert_eq!(found.verdict, verdict, "{stopped:?}: {}", found.text);
        }
        let mut only_unknown = Tally::default();
        only_unknown.reasons.insert((Reason::NoConnection.number(), Action::Pass), 4);
        only_unknown.reasons.insert((Reason::TcpControl.number(), Action::Pass), 9);
        let found = of(&only_unknown);
        assert_eq!(found.verdict, NOTHING_JUDGED);
        assert!(found.text.contains("4 packets lack"), "{}", found.text);
    }

    #[test]
    fn each_command_lets_pass_no_more_than_it_must() {
        let found = of(&tally(
            &[
                (7, Reason::BareCr, 9),
                (200, Reason::BadNumber, 8),
                (8, Reason::BadNumber, 7),
                (9, Reason::BadNumber, 6),
                (10, Reason::BlockedHost, 5),
                (11, Reason::BlockedDevice, 4),
                (12, Reason::BadIpHeader, 3),
            ],
            &[],
        ));
        assert_eq!(
            found.commands,
            [
                "sipguard checks set bare-cr monitor --devices",
                "sipguard checks set bad-number off --trunk carrier",
                "sipguard checks set bad-number off --devices",
                "sipguard unblock 192.0.2.10",
                "sipguard unblock 192.0.2.11:5060",
                "sipguard explain bad-ip-header",
                "sipguard replay 'a capture' --with-store",
            ]
        );
        assert_eq!(found.faults[0].src_ip, "192.0.2.7");
        assert_eq!(
            found.text,
            "perhaps something legal: 42 packets of 42 would be stopped, of 7 addresses; none of them also sent anything well-formed"
        );
        assert_eq!(of(&tally(&[], &[(7, 1)])).commands, [""; 0]);
    }

    #[test]
    fn who_sends_nothing_else_is_to_be_blocked() {
        let found = of(&tally(
            &[
                (7, Reason::ControlByte, 9),
                (8, Reason::ControlByte, 20),
                (9, Reason::ControlByte, 1),
                (200, Reason::ControlByte, 8),
                (10, Reason::LineTooLong, 7),
                (11, Reason::ControlByte, 6),
            ],
            &[(11, 1)],
        ));
        // One of a trunk, one packet, what may be legal, and who sends good messages too are not.
        assert_eq!(found.blocks, ["sipguard block 192.0.2.8:5060", "sipguard block 192.0.2.7:5060"]);
        assert!(found.commands[0].starts_with("sipguard checks set control-byte"), "{:?}", found.commands);
    }
}
