//! What is attached, how, and why so.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use nix::errno::Errno;
use sipguard_common::Reason;
use sipguard_common::abi::{ACTION_DROP, CheckSwitches, Iface, MODE_MONITOR, Settings, Trunk};
use sipguard_common::framer::Limits;

use crate::ban_rule::BanRule;
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::check::{self, CheckScope, Switch};
use crate::clock::Clock;
use crate::connections::{ConnectionCounts, Connections};
use crate::container;
use crate::counters;
use crate::counting;
use crate::kernel::Offsets;
use crate::link;
use crate::maps::{self, Ports};
use crate::pins::Pins;
use crate::policy::PolicyMaps;
use crate::presence::{Presence, iface_name, is_elsewhere, own_slots, presence};
use crate::rate::LimitKind;
use crate::rule::RuleMode;
use crate::second_eye;
use crate::store;

/// One attached interface.
#[derive(Clone, Debug)]
pub struct InterfaceStatus {
    /// Its slot.
    pub slot: u32,
    /// Its name when it was attached.
    pub name: String,
    /// Its driver, or the kind of a virtual one; empty when it is gone.
    pub driver: String,
    /// `native`, `generic`, `gone` where nothing is filtered any more, `absent` where there is no such interface now, or `elsewhere` in another
    /// network namespace, where the kernel says that it is filtered and no more. [`InterfaceStatus::shown`] is for people.
    pub mode: &'static str,
    /// Why that mode.
    pub why: String,
    /// Kernel's number of the program.
    pub program_id: Option<u32>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Its connections, in [`read`].
    pub known: ConnectionCounts,
    /// Packets of guarded traffic that passed unjudged since it was attached, by reason, none left out but zeros; in [`read`].
    pub unjudged: Vec<(Reason, u64)>,
}

/// Why guarded traffic passes unjudged.
pub const UNJUDGED: [Reason; 3] = [Reason::NoConnection, Reason::MidStream, Reason::Internal];

impl InterfaceStatus {
    /// The mode in words that nobody takes for another: `unfiltered` for `gone`, `not there` for `absent`.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        match self.mode {
            GONE => "unfiltered",
            ABSENT => "not there",
            mode => mode,
        }
    }

    /// Whether nothing is filtered there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.mode == GONE
    }

    /// Whether there is no such interface now, so that nothing comes by it: a VPN that is down, a card that was taken out.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.mode == ABSENT
    }
}

const GONE: &str = "gone";
const ABSENT: &str = "absent";

/// Names of the interfaces on which nothing is filtered that should be: those that are gone, and where none is there at all, all of them.
#[must_use]
pub fn unfiltered(interfaces: &[InterfaceStatus]) -> Vec<&str> {
    let none_is_there = interfaces.iter().all(|one| one.is_gone() || one.is_absent());
    let is = |one: &&InterfaceStatus| one.is_gone() || none_is_there && one.is_absent();
    interfaces.iter().filter(is).map(|one| one.name.as_str()).collect()
}

/// What the guard could do on another kernel, and can't here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// Its word.
    pub what: &'static str,
    /// What follows of it.
    pub text: &'static str,
}

/// What the guard can't do on this kernel.
#[must_use]
pub fn weaknesses(pins: &Pins) -> Vec<Weakness> {
    let offsets = Offsets::of_running_kernel();
    let mut all = Vec::new();
    if offsets.tcp_rcv_nxt == 0 || offsets.tcp_received == 0 || offsets.request_rcv_nxt == 0 {
        all.push(Weakness {
            what: "sockets",
            text: "the kernel's BTF does not tell what a socket expects (/sys/kernel/btf/vmlinux), so connections are judged by what was seen of them alone",
        });
    }
    if !counting::is_on(pins) {
        all.push(Weakness {
            what: "open-connections",
            text: "the kernel does not count open connections, so a limit of them holds nobody back",
        });
    }
    let blind = |(slot, iface): &(u32, Iface)| {
        let on = presence(pins, *slot, iface).is_ok_and(|presence| presence != Presence::Gone);
        on && !second_eye::is_on(pins, *slot, iface)
    };
    if own_slots(pins).is_ok_and(|own| own.iter().any(blind)) {
        all.push(Weakness {
            what: "second-eye",
            text: "what the PBX sends is not seen on every interface (the kernel took no program on the way out, or it was taken off), so there TCP of a \
                   PBX in a container or behind a bridge passes unjudged, and forged segments are told from true ones by its sockets alone",
        });
    }
    all
}

/// A limit that only counts what is over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitoredLimit {
    /// The trunk that it is of, or `None` for each source that is no trunk's.
    pub trunk: Option<String>,
    /// Of what.
    pub kind: LimitKind,
}

/// The whole guard.
#[derive(Clone, Debug)]
pub struct GuardStatus {
    /// Its interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// `enforce` or `monitor`.
    pub mode: &'static str,
    /// Since when, where the log knows; in [`read`].
    pub mode_since: Option<Timestamp>,
    /// What happens to a malformed stream: `reset` or `drop`.
    pub action: &'static str,
    /// Guarded ports.
    pub ports: Ports,
    /// Limits and checks.
    pub limits: Limits,
    /// The checks that do not refuse: whose messages, which, and what becomes of them.
    pub checks: Vec<Switch>,
    /// The limits that only count what is over them.
    pub monitored_limits: Vec<MonitoredLimit>,
    /// Blocks that hold.
    pub blocks: usize,
    /// Bans that hold.
    pub bans: usize,
    /// When somebody is banned.
    pub ban_rule: BanRule,
    /// When the guard will have been attached as long as the ban of an address needs; `None` where it has.
    pub addresses_banned_from: Option<Timestamp>,
    /// The trunks with their modes, `inherit`, `enforce` or `monitor`; in [`read`].
    pub trunks: Vec<(String, &'static str)>,
    /// Connections that are followed.
    pub connections: Connections,
    /// What it can't do on this kernel.
    pub weaknesses: Vec<Weakness>,
    /// Trunks of balancers, whose connections begin with a PROXY header; in [`read`].
    pub balancers: Vec<String>,
}

impl GuardStatus {
    /// The answer in one line: whether anything is stopped, since when, and on what.
    #[must_use]
    pub fn verdict(&self) -> String {
        let filtered = self.interfaces.iter().filter(|one| !one.is_gone() && !one.is_absent());
        let filtered: Vec<&InterfaceStatus> = filtered.collect();
        let named = |is: fn(&InterfaceStatus) -> bool| {
            let found = self.interfaces.iter().filter(|one| is(one)).map(|one| one.name.as_str());
            found.collect::<Vec<_>>().join(" ")
        };
        let mut line = if filtered.is_empty() {
            format!("NOT FILTERING anything{}", container::within())
        } else {
            let attached = filtered.iter().filter_map(|one| one.since).min();
            let since = match (self.mode_since, attached) {
                (Some(since), _) => format!(" since {since}"),
                (None, Some(attached)) => format!(", attached since {attached},"),
                (None, None) => String::new(),
            };
            let on: Vec<String> = filtered.iter().map(|one| format!("{} ({})", one.name, one.mode)).collect();
            let of = container::of();
            let (word, what) = match self.mode {
                "monitor" => ("MONITOR", ", stopping nothing"),
                _ => ("ENFORCING", ""),
            };
            format!("{word}{since} on {}{of}{what}", on.join(", "))
        };
        for (word, names) in [
            ("UNFILTERED", named(InterfaceStatus::is_gone)),
            ("not there", named(InterfaceStatus::is_absent)),
        ] {
            if !names.is_empty() {
                line += &format!("; {word}: {names}");
            }
        }
        line
    }
}

/// Reads the state of the guard.
pub fn read(pins: &Pins, store: &Path) -> Result<GuardStatus> {
    let counted = counters::read(pins, false)?;
    let status = with_sizes(pins, store, blocks(pins, store)?, Connections::read(pins)?, &counted)?;
    // The status is told without a store too.
    let all = store::all_trunks(store).unwrap_or_default();
    let trunks = all.iter().map(|trunk| (trunk.name.clone(), trunk.policy.mode.name())).collect();
    let balancers = all.into_iter().filter(|trunk| trunk.policy.proxy_protocol).map(|trunk| trunk.name);
    let balancers = balancers.collect();
    let mode_since = store::read(store, |rows| rows.mode_since(status.mode)).ok().flatten().flatten();
    let mode_since = mode_since.and_then(|ms| Timestamp::from_second((ms + 500).div_euclid(1000)).ok());
    Ok(GuardStatus { balancers, trunks, mode_since, ..status })
}

/// The same, of what takes long to count and was counted already.
pub fn with_sizes(
    pins: &Pins,
    store: &Path,
    blocks: usize,
    connections: Connections,
    counted: &[counters::CounterRow],
) -> Result<GuardStatus> {
    let clock = Clock::now()?;
    let settings = maps::settings(pins)?;
    let (checks, monitored_limits) = not_enforced(pins, store)?;
    let known = |one: InterfaceStatus| InterfaceStatus {
        known: connections.known[one.slot as usize],
        unjudged: counted
            .iter()
            .filter(|row| row.interface == one.name && UNJUDGED.contains(&row.reason))
            .map(|row| (row.reason, row.packets))
            .collect(),
        ..one
    };
    Ok(GuardStatus {
        interfaces: interfaces(pins, &clock)?.into_iter().map(known).collect(),
        mode: mode(&settings),
        mode_since: None,
        action: if settings.action == ACTION_DROP { "drop" } else { "reset" },
        ports: maps::ports(pins)?,
        limits: settings.limits,
        checks,
        monitored_limits,
        blocks,
        bans: Bans::open(pins)?.list(clock.boot_ns)?.len(),
        ban_rule: BanRule::of(&settings.bans),
        addresses_banned_from: Some(settings.bans.addresses_from_ns)
            .filter(|from| *from > clock.boot_ns)
            .and_then(|from| clock.wall(from)),
        trunks: Vec::new(),
        connections,
        weaknesses: weaknesses(pins),
        balancers: Vec::new(),
    })
}

/// The checks that do not refuse, and the limits that only count, as the kernel has them; a trunk that the store does not know is called by its
/// index.
fn not_enforced(pins: &Pins, store: &Path) -> Result<(Vec<Switch>, Vec<MonitoredLimit>)> {
    let policy = PolicyMaps::open(pins)?.read()?;
    let mut all = vec![(None, policy.checks, policy.monitored_limits)];
    let any = |trunk: &Trunk| trunk.checks.is_any() || trunk.monitored_limits != 0;
    if policy.trunks.iter().any(any) {
        let names = store::all_trunks(store).unwrap_or_default();
        for (number, trunk) in policy.trunks.iter().enumerate().filter(|(_, trunk)| any(trunk)) {
            let known = names.iter().find(|row| usize::from(row.number) == number);
            let name = known.map_or_else(|| number.to_string(), |row| row.name.clone());
            all.push((Some(name), trunk.checks, trunk.monitored_limits));
        }
    }
    let (mut checks, mut limits) = (Vec::new(), Vec::new());
    for (trunk, switches, monitored) in all {
        let scope = trunk.clone().map_or(CheckScope::Devices, CheckScope::Trunk);
        let switch = |(reason, state)| Switch { scope: scope.clone(), reason, state };
        checks.extend(check::not_refusing(&switches).map(switch));
        let counts = |kind: &LimitKind| kind.mode_in(monitored) == RuleMode::Monitor;
        limits.extend(
            LimitKind::all().filter(counts).map(|kind| MonitoredLimit { trunk: trunk.clone(), kind }),
        );
    }
    Ok((checks, limits))
}

/// The checks of a trunk, as the kernel has them.
pub(crate) fn checks_of_trunk(pins: &Pins, store: &Path, name: &str) -> Result<CheckSwitches> {
    let row = store::all_trunks(store)?.into_iter().find(|row| row.name == name);
    let trunks = PolicyMaps::open(pins)?.read()?.trunks;
    let entry = row.and_then(|row| trunks.get(usize::from(row.number)).copied());
    Ok(entry.map_or(CheckSwitches::NONE, |trunk| trunk.checks))
}

/// The attached interfaces.
pub fn interfaces(pins: &Pins, clock: &Clock) -> Result<Vec<InterfaceStatus>> {
    own_slots(pins)?.iter().map(|(slot, iface)| interface(pins, *slot, iface, clock)).collect()
}

/// How many blocks hold. The store keeps count of the maps that it changes; of others each entry is looked at, which takes half a second for a
/// million.
pub fn blocks(pins: &Pins, store: &Path) -> Result<usize> {
    let clock = Clock::now()?;
    match store::blocks_in_force(store, pins, clock.wall_ms()) {
        Ok(Some(blocks)) => Ok(blocks),
        Ok(None) | Err(_) => Blocks::open(pins)?.count(&clock),
    }
}

/// Word of the mode.
#[must_use]
pub fn mode(settings: &Settings) -> &'static str {
    if settings.mode == MODE_MONITOR { "monitor" } else { "enforce" }
}

fn interface(pins: &Pins, slot: u32, iface: &Iface, clock: &Clock) -> Result<InterfaceStatus> {
    let presence = presence(pins, slot, iface)?;
    let found = if is_elsewhere(iface) { None } else { link::by_index(iface.ifindex)? };
    let xdp = found.as_ref().and_then(|found| found.xdp);
    let (mode, why) = match (presence, &found, xdp) {
        (Presence::Elsewhere, ..) => ("elsewhere", "in another network namespace".to_owned()),
        (Presence::Gone, ..) if is_elsewhere(iface) => {
            (GONE, "its network namespace, or the interface in it, is no more".to_owned())
        }
        (Presence::Gone, None, _) if link::by_name(&iface_name(iface))?.is_some() => {
            (GONE, "the interface was made anew".to_owned())
        }
        (Presence::Gone, None, _) => (ABSENT, "there is no such interface now".to_owned()),
        (Presence::Gone, Some(_), Some(xdp)) => {
            (GONE, format!("another program is on it (id {})", xdp.program_id))
        }
        (_, _, None) => (GONE, "the program was taken off from outside".to_owned()),
        (_, _, Some(xdp)) if xdp.native => ("native", "the driver runs XDP".to_owned()),
        _ if iface.generic_wanted != 0 => ("generic", "asked for".to_owned()),
        (_, found, Some(_)) => {
            let driver = found.as_ref().map_or("unknown", |found| found.driver.as_str());
            ("generic", format!("driver {driver} can't: {}", errno(iface.native_errno)))
        }
    };
    Ok(InterfaceStatus {
        slot,
        name: iface_name(iface),
        driver: found.map(|found| found.driver).unwrap_or_default(),
        mode,
        why,
        program_id: xdp.map(|xdp| xdp.program_id),
        since: clock.wall(iface.attached_ns),
        known: ConnectionCounts::default(),
        unjudged: Vec::new(),
    })
}

/// `ENOTSUPP` is the kernel's own, unknown to libc.
fn errno(code: u32) -> String {
    const ENOTSUPP: u32 = 524;
    if code == ENOTSUPP {
        "not supported".to_owned()
    } else {
        Errno::from_raw(code as i32).desc().to_lowercase()
    }
}
