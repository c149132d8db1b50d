//! The interface between kernel and userspace: names, keys and values of every map.
//!
//! Keys are byte arrays in network order; integers in values have the machine's byte order. Values have no implicit padding, no `bool` and no
//! `Option`. A change of a layout raises [`ABI_VERSION`].

mod ban;
mod checks;
mod flow;
mod fragment;
mod layout;
mod limit;
mod observe;
mod open;
mod policy;
mod rate;
mod report;
mod settings;
mod trunk;
mod unfinished;

pub use ban::{BAN_ENTRIES, BAN_MEMORY_NS, Ban, BanPolicy};
pub use checks::{CheckSwitches, LOSES_FRAMING};
pub use flow::{
    ANSWERED_SHIFT, FLOW_ENDED, FLOW_SEGMENTS, Flow, FlowKey, FlowState, HANDSHAKE_ANSWERED,
    HANDSHAKE_DIALLED, HANDSHAKE_OPEN, Handshake, SegmentRecord, SpillKey, SpilledRecord, flow_flags,
    pack_handshake,
};
pub use fragment::{DATAGRAM_JUDGED, DATAGRAM_OPEN, DATAGRAM_REFUSED, Datagram, EARLY_SLOTS, FragmentKey};
pub use layout::{REASON_NUMBERS, write_map_layout};
pub use limit::{AT_ONCE_KINDS, RATE_REASONS};
pub use observe::{
    CAPTURE_DROPPED, CAPTURE_PASSED, CAPTURED_ENTRIES, CURSOR_CAPTURED, CURSOR_ENTRIES, CURSOR_EVENTS,
    CURSOR_RECORDED, EVENT_BURST, EVENT_COST_NS, EVENT_ENTRIES, EVENT_INTERVAL_NS, EVENT_LIMITER_ENTRIES,
    EventBucket, EventLimiter, ObserveSettings, PACKETS_PER_SLOT, PacketRecord, RECORD_BYTES,
    RECORDED_ENTRIES, RECORDED_SLOTS,
};
pub use open::{ConnectionOwner, CountedConnection, OPEN_COUNT, OPEN_ENTRIES};
pub use policy::{
    DEVICE_ENTRIES, DeviceKey, HOST_ENTRIES, IDENTITY_ENTRIES, PERMANENT, PREFIX_ENTRIES, Rule,
    USER_AGENT_ENTRIES, rule_flags,
};
pub use rate::{
    BUCKET_ENTRIES, COARSE_SHIFT, CONNECTIONS, INVITES, MESSAGES, PACKETS, RATE_KINDS, REGISTERS, Rate,
    RateBucket, Rates, TALLIED, TALLY_NS, TRUNK_BUCKET_ENTRIES, Tally, UNVERIFIED, VERIFIED, bucket_slots,
    trunk_bucket,
};
pub use report::{
    CLSACT_FOUND, CLSACT_MADE, COUNTER_ENTRIES, Counter, IFACE_SLOTS, Iface, NO_FAULT, Offender, OffenderKey,
    Outcome, REASON_SLOTS, ReplayVerdict, SAMPLE_BEHIND, SAMPLE_BYTES, TRUNK_COUNTER_ENTRIES, counter_index,
    trunk_counter_index,
};
pub use settings::{
    ACTION_DROP, ACTION_RESET, CLASS_DEVICES, CLASS_TRUNKS, MODE_ENFORCE, MODE_MONITOR, PORT_ENTRIES,
    PORT_WORDS, Settings, port_bit, rules_in_use,
};

pub use trunk::{
    Denied, TCP, TLS, TRANSPORTS, TRUNK_ENFORCES, TRUNK_ENTRIES, TRUNK_INHERITS, TRUNK_MONITORS, Trunk, UDP,
    is_transport,
};
pub use unfinished::{
    Span, Ticket, UNFINISHED_COUNT_BITS, UNFINISHED_ENTRIES, UNFINISHED_SPANS, UNLIMITED_MS, Unfinished,
};

/// Layout version of everything pinned. A binary refuses pins of another version. `abi/layout-VERSION.txt` has the layout of each version.
pub const ABI_VERSION: u32 = 11;

/// Names of the maps and of the program, at most 15 characters each (the kernel's limit for object names).
pub mod names {
    /// `Array<u32>`, one entry: the [`super::ABI_VERSION`] of the pins.
    pub const ABI: &str = "ABI";
    /// `Array<Settings>`, one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// `Array<u64>`: bitmaps of the guarded ports, SIP first, then TLS.
    pub const PORTS: &str = "PORTS";
    /// `HashMap<[u8; 16], Rule>`: rules of hosts.
    pub const HOSTS: &str = "HOSTS";
    /// `LpmTrie<[u8; 16], Rule>`: rules of prefixes.
    pub const PREFIXES: &str = "PREFIXES";
    /// `HashMap<DeviceKey, Rule>`: rules of devices, by address and port.
    pub const DEVICES: &str = "DEVICES";
    /// `HashMap<[u8; 64], Rule>`: rules of SIP identities, by [`crate::framer::identity`].
    pub const IDENTITIES: &str = "IDENTITIES";
    /// `LpmTrie<[u8; 64], Rule>`: rules of user agents, by the first bytes of [`crate::framer::user_agent`].
    pub const USER_AGENTS: &str = "USER_AGENTS";
    /// `Array<Trunk>`, by the trunk's index.
    pub const TRUNKS: &str = "TRUNKS";
    /// `PerCpuArray<Counter>`, indexed by [`super::trunk_counter_index`].
    pub const TRUNK_COUNTERS: &str = "TRUNK_COUNTERS";
    /// `Array<RateBucket>`: what sources have used of their limits.
    pub const BUDGETS: &str = "BUDGETS";
    /// `Array<RateBucket>`, by [`super::trunk_bucket`].
    pub const TRUNK_BUDGETS: &str = "TRUNK_BUDGETS";
    /// `LruHashMap<DeviceKey, Ban>`: violations and bans.
    pub const BANS: &str = "BANS";
    /// `Array<u64>`: how many connections senders have open; see [`super::ConnectionOwner`].
    pub const OPEN: &str = "OPEN";
    /// `HashMap<u64, CountedConnection>`: the connections that are counted there.
    pub const SOCKETS: &str = "SOCKETS";
    /// `Array<Unfinished>`: how many messages senders have begun and not finished; see [`super::ConnectionOwner`].
    pub const UNFINISHED: &str = "UNFINISHED";
    /// `LruHashMap<FlowKey, Flow>`: the guarded TCP connections.
    pub const FLOWS: &str = "FLOWS";
    /// `LruHashMap<FlowKey, Handshake>`: handshakes that the PBX answered or began and that are not complete.
    pub const HANDSHAKES: &str = "HANDSHAKES";
    /// `LruHashMap<SpillKey, SpilledRecord>`: records of segments that left their flow before they were acknowledged.
    pub const SPILLED: &str = "SPILLED";
    /// `Array<u64>`: a bitmap of the PBX's ports from which it dialled a port that is not guarded and speaks SIP.
    pub const SPOKEN: &str = "SPOKEN";
    /// `Array<u32>`: when a port that is not guarded answered a SYN of the PBX, by the PBX's port. Userspace does not read it.
    pub const ANSWERED: &str = "ANSWERED";
    /// `LruHashMap<Address, u32>`: servers that spoke first on connections that the PBX dialled, and the PBX did not answer in SIP. Userspace does not
    /// read it.
    pub const GREETERS: &str = "GREETERS";
    /// `HashMap<FragmentKey, Datagram>`: UDP datagrams whose headers are longer than their first IP fragment.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `Array<[u32; EARLY_SLOTS]>`: when later IP fragments of other datagrams came. Userspace does not read it.
    pub const EARLY_FRAGMENTS: &str = "EARLY_FRAGMENTS";
    /// `PerCpuArray<Counter>`, indexed by [`super::counter_index`].
    pub const COUNTERS: &str = "COUNTERS";
    /// `LruHashMap<OffenderKey, Offender>`: senders of malformed traffic.
    pub const OFFENDERS: &str = "OFFENDERS";
    /// `Array<Iface>`: the attached interfaces by slot.
    pub const IFACES: &str = "IFACES";
    /// `Array<PacketRecord>`: stopped packets, sampled.
    pub const EVENTS: &str = "EVENTS";
    /// `Array<PacketRecord>`: packets of a capture.
    pub const CAPTURED: &str = "CAPTURED";
    /// `Array<PacketRecord>`: the last packets of each device that passed, slot by slot.
    pub const RECORDED: &str = "RECORDED";
    /// `Array<u64>`: how many records there were; see [`super::CURSOR_EVENTS`].
    pub const CURSORS: &str = "CURSORS";
    /// `Array<ObserveSettings>`, one entry.
    pub const TAPS: &str = "TAPS";
    /// `Array<EventLimiter>`: rate limiters of events. Userspace does not read it.
    pub const EVENT_GATES: &str = "EVENT_GATES";
    /// `PerCpuArray<EventBucket>`, one entry.
    pub const EVENT_BUDGETS: &str = "EVENT_BUDGETS";
    /// Per-CPU memory of the programs of one interface. Userspace does not read it, and another build has its own: what one left there means
    /// nothing to the other.
    pub const SCRATCH: &str = "SCRATCH";
    /// The XDP program.
    pub const PROGRAM: &str = "sipguard";
    /// The program that observes what the PBX sends.
    pub const EGRESS_PROGRAM: &str = "sipguard_out";
    /// The programs that count open connections: the same program twice, because the kernel does not run one again on a CPU that is running it.
    pub const CONNECTION_PROGRAMS: [&str; 2] = ["sipguard_open", "sipguard_open_2"];

    /// Every map.
    pub const MAPS: &[&str] = &[
        ABI,
        SETTINGS,
        PORTS,
        HOSTS,
        PREFIXES,
        DEVICES,
        IDENTITIES,
        USER_AGENTS,
        TRUNKS,
        TRUNK_COUNTERS,
        BUDGETS,
        TRUNK_BUDGETS,
        BANS,
        OPEN,
        SOCKETS,
        UNFINISHED,
        FLOWS,
        HANDSHAKES,
        SPILLED,
        SPOKEN,
        ANSWERED,
        GREETERS,
        FRAGMENTS,
        EARLY_FRAGMENTS,
        COUNTERS,
        OFFENDERS,
        IFACES,
        EVENTS,
        CAPTURED,
        RECORDED,
        CURSORS,
        TAPS,
        EVENT_GATES,
        EVENT_BUDGETS,
        SCRATCH,
    ];

    /// Every map that is pinned: all but [`SCRATCH`].
    pub fn pinned() -> impl Iterator<Item = &'static str> {
        MAPS.iter().copied().filter(|name| *name != SCRATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        for name in names::MAPS
            .iter()
            .chain([&names::PROGRAM, &names::EGRESS_PROGRAM])
            .chain(&names::CONNECTION_PROGRAMS)
        {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
