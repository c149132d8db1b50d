//! The layout of everything that kernel and userspace share, as text. `abi/layout-VERSION.txt` has the text of each [`ABI_VERSION`], so that a
//! layout cannot change without a new version.

extern crate std;

use core::mem::{align_of, offset_of, size_of};
use std::fmt::Write as _;
use std::path::Path;
use std::string::String;

use super::*;
use crate::Reason;
use crate::framer::{HashKeys, Limits, MATCH_KEY_BYTES, Stream, checks, methods};

/// What a struct's text shows: name, size and alignment in bytes, then each field with its offset and size. A struct with a field that
/// is not listed does not compile.
macro_rules! structs {
    ($out:ident; $($name:ident { $($field:ident),* $(,)? })*) => {$(
        writeln!($out, "{} size {} align {}", stringify!($name), size_of::<$name>(), align_of::<$name>()).unwrap();
        let $name { $($field),* } = <$name as bytemuck::Zeroable>::zeroed();
        $(writeln!(
            $out,
            "  {} at {} size {}",
            stringify!($field),
            offset_of!($name, $field),
            core::mem::size_of_val(&$field)
        )
        .unwrap();)*
    )*};
}

macro_rules! constants {
    ($out:ident; $($name:expr),* $(,)?) => {$(
        writeln!($out, "{} = {}", stringify!($name), $name).unwrap();
    )*};
}

fn layout() -> String {
    let mut out = String::new();
    structs! { out;
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
    writeln!(out, "Stream size {} align {}", size_of::<Stream>(), align_of::<Stream>()).unwrap();
    out += &crate::framer::stream_layout();
    writeln!(out, "HashKeys size {}", size_of::<HashKeys>()).unwrap();
    constants! { out;
        FLOW_SEGMENTS, FLOW_ENDED, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, DATAGRAM_OPEN, DATAGRAM_JUDGED, DATAGRAM_REFUSED,
        OPEN_ENTRIES, OPEN_COUNT, UNFINISHED_ENTRIES, UNFINISHED_SPANS, UNFINISHED_COUNT_BITS, UNLIMITED_MS, BUCKET_ENTRIES, TRUNK_BUCKET_ENTRIES, COARSE_SHIFT, TALLY_NS, UNVERIFIED, VERIFIED, BAN_ENTRIES, IFACE_SLOTS,
        REASON_SLOTS, COUNTER_ENTRIES, TRUNK_COUNTER_ENTRIES, SAMPLE_BYTES, SAMPLE_BEHIND, NO_FAULT, CLSACT_MADE, CLSACT_FOUND, PORT_ENTRIES, TRUNK_ENTRIES,
        TRUNK_INHERITS, TRUNK_ENFORCES, TRUNK_MONITORS, TCP, TLS, UDP, CLASS_DEVICES, CLASS_TRUNKS, MODE_ENFORCE, MODE_MONITOR,
        ACTION_RESET, ACTION_DROP, EVENT_ENTRIES, CAPTURED_ENTRIES, RECORDED_ENTRIES, PACKETS_PER_SLOT, RECORDED_SLOTS,
        EVENT_LIMITER_ENTRIES, CURSOR_EVENTS, CURSOR_CAPTURED, CURSOR_RECORDED, CURSOR_ENTRIES, RECORD_BYTES, CAPTURE_DROPPED,
        CAPTURE_PASSED, MATCH_KEY_BYTES, PACKETS, MESSAGES, REGISTERS, INVITES, CONNECTIONS, rule_flags::BLOCK, rule_flags::ALLOW,
        rule_flags::MONITOR, rules_in_use::DEVICES, rules_in_use::RATES, rules_in_use::OPEN, rules_in_use::IDENTITIES,
        rules_in_use::USER_AGENTS, rules_in_use::UNFINISHED, flow_flags::TLS, flow_flags::TENTATIVE, flow_flags::VIOLATION, flow_flags::PICKED_UP,
        flow_flags::TIMESTAMPS, flow_flags::FIN_SEEN, flow_flags::LOCAL, flow_flags::PROXY, flow_flags::CLIENT, flow_flags::FRAMING_LOST, checks::DEFAULT, checks::STRICT, methods::OTHER, methods::ALL,
    }
    for method in methods::METHODS {
        writeln!(out, "method {} = {}", method.name, method.bit).unwrap();
    }
    for state in FlowState::ALL {
        writeln!(out, "FlowState {state:?} = {}", state as u32).unwrap();
    }
    for outcome in Outcome::ALL {
        writeln!(out, "Outcome {outcome:?} = {}", outcome as u32).unwrap();
    }
    for name in names::MAPS {
        writeln!(out, "map {name}").unwrap();
    }
    // Last, because new reasons may be appended within one version.
    for reason in Reason::ALL {
        writeln!(out, "reason {} = {}", reason.name(), reason.number()).unwrap();
    }
    out
}

#[test]
fn a_layout_changes_with_the_abi_version_only() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(std::format!("abi/layout-{ABI_VERSION}.txt"));
    let (now, committed) = (layout(), std::fs::read_to_string(&path).unwrap_or_default());
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

/// Reasons that can be added before the counters, and with them the ABI, must change.
const FREE_REASONS: usize = 16;

#[test]
fn there_are_numbers_left_for_reasons() {
    let free = REASON_SLOTS as usize - Reason::COUNT;
    assert!(free >= FREE_REASONS, "{free} of {REASON_SLOTS} are free: raise REASON_SLOTS and ABI_VERSION");
    // Keys, records and verdict words have one byte for a reason.
    const { assert!(REASON_SLOTS <= 1 << 8) };
}
