//! The layout of every map, as text: by it an upgrade tells the maps that it may keep from those that it must begin anew, and
//! `abi/layout-VERSION.txt` has the text of each [`ABI_VERSION`], so that a layout cannot change without a new version.

use core::fmt;
use core::mem::{align_of, offset_of, size_of, size_of_val};

use super::*;
use crate::framer::{HashKeys, Limits, MATCH_KEY_BYTES, Stream, checks, methods};

/// Raised when a reason gets another number, for then counters mean something else. A reason that is appended changes nothing.
pub const REASON_NUMBERS: u32 = 1;

/// What the layout of a map depends on: a struct, or constants that belong together.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    write: fn(&mut dyn fmt::Write) -> fmt::Result,
}

/// A map's name, the revision of what it means, and what its layout depends on.
struct MapLayout(&'static str, u32, &'static [Part]);

/// Writes what the layout of a map depends on, but for the type, sizes and entries that the object declares. A map of no such name
/// writes nothing.
///
/// # Errors
/// Those of `out`.
pub fn write_map_layout(name: &str, out: &mut dyn fmt::Write) -> fmt::Result {
    for MapLayout(_, revision, parts) in LAYOUTS.iter().filter(|layout| layout.0 == name) {
        writeln!(out, "{name} revision {revision}")?;
        for Part { name, write } in *parts {
            writeln!(out, "{name}")?;
            write(out)?;
        }
    }
    Ok(())
}

/// A struct's text: name, size and alignment in bytes, then each field with its offset and size. A struct with a field that is not
/// listed does not compile.
macro_rules! structs {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(impl $name {
            const LAYOUT: Part = Part {
                name: stringify!($name),
                write: |out| {
                    writeln!(out, "{} size {} align {}", stringify!($name), size_of::<Self>(), align_of::<Self>())?;
                    let Self { $($field),* } = <Self as bytemuck::Zeroable>::zeroed();
                    $(writeln!(
                        out,
                        "  {} at {} size {}",
                        stringify!($field),
                        offset_of!(Self, $field),
                        size_of_val(&$field)
                    )?;)*
                    Ok(())
                },
            };
        })*
        #[cfg(test)]
        const STRUCTS: &[Part] = &[$($name::LAYOUT),*];
    };
}

/// Constants that belong together.
macro_rules! constants {
    ($($part:ident: $($constant:expr),* $(,)?;)*) => {
        $(const $part: Part = Part {
            name: stringify!($part),
            write: |out| {
                $(writeln!(out, "{} = {}", stringify!($constant), $constant)?;)*
                Ok(())
            },
        };)*
        #[cfg(test)]
        const CONSTANTS: &[Part] = &[$($part),*];
    };
}

structs! {
    FlowKey { remote, local, remote_port, local_port }
    SegmentRecord { seq, len, hashed, before, behind, hash }
    SpilledRecord { record, first_ns, first, pad }
    SpillKey { flow, seq }
    Flow {
        lock, pending_handshake, current_handshake, acked, sent, egress_known, ended, state, flags, next, first, una, timestamp, reason,
        conflicts, segment_at, slot, segments, stream, first_ns, message_ns, message_segments, unfinished, client_port, client, pad,
    }
    Handshake { peer_next, pbx_next, kind, held }
    FragmentKey { remote, local, id }
    Datagram { stream, until_ns, busy, next, end, state, reason, ports, pad }
    DeviceKey { address, port, pad }
    Rule { expires_ns, packets, bytes, bits, flags, trunk, pad }
    CheckSwitches { off, monitored }
    Trunk {
        limits, denied, own_limits, mode, open, proxy_protocol, unfinished, monitored_limits, pad, rates, checks,
    }
    Rate { interval_ns, tolerance_ns }
    RateBucket { tag, trust, tat_ns, last_well_formed, banned, remote, tallies, totals }
    CountedConnection { remote, netns, trunk, slot }
    Unfinished { tag, remote, trunk, pad, spans }
    BanPolicy { after, address_after, within_ns, first_ns, longest_ns, quiet_ns, addresses_from_ns }
    Ban { until_ns, since_ns, first_ns, packets, bytes, streams, times, reason, pad }
    Counter { packets, bytes }
    OffenderKey { address, port, reason, pad }
    Offender { packets, first_ns, last_ns, tally, passed, sample_len, slot, sample_at, fault_at, sample }
    Iface { name, ifindex, native_errno, attached_ns, generic_wanted, clsact, netns }
    Settings {
        mode, action, grace_until_ns, limits, hash_keys, denied, rules, trust_after, rates, trust_factor, open, unfinished,
        monitored_limits, bans, checks,
    }
    Limits {
        line_bytes, other_line_bytes, section_bytes, header_lines, same_name, body_bytes, message_ms, message_segments, checks, denied,
        matched_headers, pad,
    }
    PacketRecord {
        number, time_ns, count, frame_len, captured, slot, reason, outcome, trunk, pad, client, client_port, rest, bytes,
    }
    ObserveSettings { capture_until_ns, source, mask, port, verdicts, records, pad }
    EventLimiter { tag, next_ns, count }
    EventBucket { tat_ns, lost }
}

constants! {
    RULES: rule_flags::BLOCK, rule_flags::ALLOW, rule_flags::MONITOR, MATCH_KEY_BYTES;
    SWITCHES: MODE_ENFORCE, MODE_MONITOR, ACTION_RESET, ACTION_DROP, CLASS_DEVICES, CLASS_TRUNKS, PORT_ENTRIES,
        rules_in_use::DEVICES, rules_in_use::RATES, rules_in_use::OPEN, rules_in_use::IDENTITIES,
        rules_in_use::USER_AGENTS, rules_in_use::UNFINISHED, checks::DEFAULT, checks::STRICT, methods::OTHER, methods::ALL;
    TRUNK: TRUNK_ENTRIES, TRUNK_INHERITS, TRUNK_ENFORCES, TRUNK_MONITORS, TCP, TLS, UDP;
    RATES: BUCKET_ENTRIES, TRUNK_BUCKET_ENTRIES, COARSE_SHIFT, TALLY_NS, UNVERIFIED, VERIFIED, PACKETS, MESSAGES, REGISTERS, INVITES,
        CONNECTIONS, BAN_ENTRIES;
    OPENED: OPEN_ENTRIES, OPEN_COUNT;
    BEGUN: UNFINISHED_ENTRIES, UNFINISHED_SPANS, UNFINISHED_COUNT_BITS, UNLIMITED_MS;
    CONNECTION: FLOW_SEGMENTS, FLOW_ENDED, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, flow_flags::TLS, flow_flags::TENTATIVE,
        flow_flags::VIOLATION, flow_flags::PICKED_UP, flow_flags::TIMESTAMPS, flow_flags::FIN_SEEN, flow_flags::LOCAL,
        flow_flags::PROXY, flow_flags::CLIENT, flow_flags::FRAMING_LOST;
    FRAGMENT: DATAGRAM_OPEN, DATAGRAM_JUDGED, DATAGRAM_REFUSED;
    COUNT: IFACE_SLOTS, REASON_SLOTS, COUNTER_ENTRIES, TRUNK_COUNTER_ENTRIES, REASON_NUMBERS;
    SAMPLE: SAMPLE_BYTES, SAMPLE_BEHIND, NO_FAULT;
    QDISC: CLSACT_MADE, CLSACT_FOUND;
    RING: EVENT_ENTRIES, CAPTURED_ENTRIES, RECORDED_ENTRIES, PACKETS_PER_SLOT, RECORDED_SLOTS, EVENT_LIMITER_ENTRIES, CURSOR_EVENTS,
        CURSOR_CAPTURED, CURSOR_RECORDED, CURSOR_ENTRIES, RECORD_BYTES, CAPTURE_DROPPED, CAPTURE_PASSED;
}

const STREAM: Part = Part {
    name: "Stream",
    write: |out| {
        writeln!(out, "Stream size {} align {}", size_of::<Stream>(), align_of::<Stream>())?;
        crate::framer::stream_layout(out)
    },
};

const HASH_KEYS: Part =
    Part { name: "HashKeys", write: |out| writeln!(out, "HashKeys size {}", size_of::<HashKeys>()) };

const METHODS: Part = Part {
    name: "METHODS",
    write: |out| {
        methods::METHODS
            .iter()
            .try_for_each(|method| writeln!(out, "method {} = {}", method.name, method.bit))
    },
};

const STATES: Part = Part {
    name: "STATES",
    write: |out| {
        FlowState::ALL.iter().try_for_each(|state| writeln!(out, "FlowState {state:?} = {}", *state as u32))
    },
};

const OUTCOMES: Part = Part {
    name: "OUTCOMES",
    write: |out| {
        Outcome::ALL.iter().try_for_each(|outcome| writeln!(out, "Outcome {outcome:?} = {}", *outcome as u32))
    },
};

const RULE: &[Part] = &[Rule::LAYOUT, RULES];
const DEVICE_RULE: &[Part] = &[DeviceKey::LAYOUT, Rule::LAYOUT, RULES];
const RECORDS: &[Part] = &[PacketRecord::LAYOUT, COUNT, OUTCOMES, RING];
const COUNTS: &[Part] = &[Counter::LAYOUT, COUNT, OUTCOMES];

const LAYOUTS: &[MapLayout] = &[
    MapLayout(names::ABI, 1, &[]),
    MapLayout(
        names::SETTINGS,
        1,
        &[
            Settings::LAYOUT,
            Limits::LAYOUT,
            HASH_KEYS,
            Rate::LAYOUT,
            BanPolicy::LAYOUT,
            CheckSwitches::LAYOUT,
            SWITCHES,
            METHODS,
        ],
    ),
    MapLayout(names::PORTS, 1, &[SWITCHES]),
    MapLayout(names::HOSTS, 1, RULE),
    MapLayout(names::PREFIXES, 1, RULE),
    MapLayout(names::DEVICES, 1, DEVICE_RULE),
    MapLayout(names::IDENTITIES, 1, RULE),
    MapLayout(names::USER_AGENTS, 1, RULE),
    MapLayout(names::TRUNKS, 1, &[Trunk::LAYOUT, Rate::LAYOUT, CheckSwitches::LAYOUT, TRUNK, METHODS]),
    MapLayout(names::TRUNK_COUNTERS, 1, COUNTS),
    MapLayout(names::BUDGETS, 1, &[RateBucket::LAYOUT, RATES]),
    MapLayout(names::TRUNK_BUDGETS, 1, &[RateBucket::LAYOUT, RATES]),
    MapLayout(names::BANS, 1, &[DeviceKey::LAYOUT, Ban::LAYOUT, RATES, COUNT]),
    MapLayout(names::OPEN, 1, &[OPENED]),
    MapLayout(names::SOCKETS, 1, &[CountedConnection::LAYOUT, OPENED]),
    MapLayout(names::UNFINISHED, 1, &[Unfinished::LAYOUT, BEGUN]),
    MapLayout(
        names::FLOWS,
        1,
        &[FlowKey::LAYOUT, Flow::LAYOUT, SegmentRecord::LAYOUT, STREAM, CONNECTION, STATES, COUNT],
    ),
    MapLayout(names::HANDSHAKES, 1, &[FlowKey::LAYOUT, Handshake::LAYOUT, CONNECTION]),
    MapLayout(names::SPILLED, 1, &[SpillKey::LAYOUT, SpilledRecord::LAYOUT, SegmentRecord::LAYOUT]),
    MapLayout(names::SPOKEN, 1, &[]),
    MapLayout(names::ANSWERED, 1, &[]),
    MapLayout(names::GREETERS, 1, &[]),
    MapLayout(names::FRAGMENTS, 1, &[FragmentKey::LAYOUT, Datagram::LAYOUT, STREAM, FRAGMENT, COUNT]),
    MapLayout(names::EARLY_FRAGMENTS, 1, &[]),
    MapLayout(names::COUNTERS, 1, COUNTS),
    MapLayout(names::OFFENDERS, 1, &[OffenderKey::LAYOUT, Offender::LAYOUT, SAMPLE, COUNT]),
    MapLayout(names::IFACES, 1, &[Iface::LAYOUT, QDISC]),
    MapLayout(names::EVENTS, 1, RECORDS),
    MapLayout(names::CAPTURED, 1, RECORDS),
    MapLayout(names::RECORDED, 1, RECORDS),
    MapLayout(names::CURSORS, 1, &[RING]),
    MapLayout(names::TAPS, 1, &[ObserveSettings::LAYOUT, RING]),
    MapLayout(names::EVENT_GATES, 1, &[EventLimiter::LAYOUT, RING]),
    MapLayout(names::EVENT_BUDGETS, 1, &[EventBucket::LAYOUT]),
];

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::Reason;

    const OTHERS: &[Part] = &[STREAM, HASH_KEYS, METHODS, STATES, OUTCOMES];

    fn parts() -> impl Iterator<Item = Part> {
        [STRUCTS, OTHERS, CONSTANTS].into_iter().flatten().copied()
    }

    fn layout() -> Result<String, fmt::Error> {
        let mut out = String::new();
        parts().try_for_each(|part| (part.write)(&mut out))?;
        for MapLayout(name, revision, parts) in LAYOUTS {
            let parts: Vec<&str> = parts.iter().map(|part| part.name).collect();
            let line = std::format!("map {name} revision {revision} {}", parts.join(" "));
            writeln!(out, "{}", line.trim_end())?;
        }
        // Last, because new reasons may be appended within one version.
        for reason in Reason::ALL {
            writeln!(out, "reason {} = {}", reason.name(), reason.number())?;
        }
        Ok(out)
    }

    fn committed(version: u32) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(std::format!("abi/layout-{version}.txt"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn each_pinned_map_has_a_layout_and_each_part_a_map() {
        let listed: Vec<&str> = LAYOUTS.iter().map(|layout| layout.0).collect();
        let pinned: Vec<&str> = names::pinned().collect();
        assert_eq!(listed, pinned);
        let used: BTreeSet<&str> = LAYOUTS.iter().flat_map(|layout| layout.2).map(|part| part.name).collect();
        for part in parts() {
            assert!(used.contains(part.name), "{} is of no map", part.name);
        }
    }

    #[test]
    fn a_layout_changes_with_the_abi_version_only() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(std::format!("abi/layout-{ABI_VERSION}.txt"));
        let (now, committed) = (layout().unwrap(), committed(ABI_VERSION));
        if std::env::var_os("SIPGUARD_WRITE_ABI").is_some() && now.starts_with(&committed) {
            // A new version, or new reasons behind the last one.
            return std::fs::write(&path, now).unwrap();
        }
        for (line, (now, committed)) in now.lines().zip(committed.lines()).enumerate() {
            assert_eq!(now, committed, "line {} of {}: raise ABI_VERSION", line + 1, path.display());
        }
        assert_eq!(
            now.lines().count(),
            committed.lines().count(),
            "{}: raise ABI_VERSION, or write appended reasons with SIPGUARD_WRITE_ABI=1",
            path.display()
        );
    }

    /// An upgrade keeps the counters of the version before, unless their layout says that they mean something else.
    #[test]
    fn a_reason_that_gets_another_number_is_told() {
        let reasons = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("reason ")).map(String::from).collect()
        };
        let numbers =
            |text: &str| text.lines().find(|line| line.starts_with("REASON_NUMBERS")).map(String::from);
        let (now, before) = (layout().unwrap(), committed(ABI_VERSION - 1));
        assert!(
            reasons(&now).starts_with(&reasons(&before)) || numbers(&now) != numbers(&before),
            "raise REASON_NUMBERS: a reason has another number than in version {}",
            ABI_VERSION - 1
        );
    }

    /// Reasons that can be added before the counters, and with them the ABI, must change.
    const FREE_REASONS: usize = 16;

    #[test]
    fn there_are_numbers_left_for_reasons() {
        let free = REASON_SLOTS as usize - Reason::COUNT;
        assert!(
            free >= FREE_REASONS,
            "{free} of {REASON_SLOTS} are free: raise REASON_SLOTS and ABI_VERSION"
        );
        // Keys, records and verdict words have one byte for a reason.
        const { assert!(REASON_SLOTS <= 1 << 8) };
    }
}
