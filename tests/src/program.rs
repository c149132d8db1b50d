//! The loaded XDP program, run packet by packet with `BPF_PROG_TEST_RUN`: no interface, maps of its own.

mod connection;
mod greeting;
mod reset;
mod shared;

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, lpm_trie};
use aya::programs::{TestRun as _, TestRunOptions};
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    Ban, Counter, Datagram, DeviceKey, Flow, FlowKey, FragmentKey, Handshake, ObserveSettings, Offender,
    OffenderKey, Outcome, PERMANENT, PORT_WORDS, Rate, RateBucket, Rule, Settings, Trunk, VERIFIED,
    bucket_slots, counter_index, names, port_bit, rule_flags, rules_in_use, trunk_counter_index,
};
use sipguard_common::framer::{Limits, MATCH_KEY_BYTES};
use sipguard_core::address::{Source, mapped};
use sipguard_core::load::Loaded;
use sipguard_core::maps::Plain;
use sipguard_core::settings::DEFAULT_FLOWS;
use sipguard_object::OBJECT;

pub use self::shared::Shared;
use crate::packet::{ACK, PSH, Peer};

/// XDP's actions.
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: u32 = 2;

/// A program with its maps.
pub struct Program {
    loaded: Loaded,
    out: Vec<u8>,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// XDP's action.
    pub action: u32,
    /// The reason that was counted.
    pub reason: Reason,
    /// Whether it was counted as let pass by `monitor` mode.
    pub let_pass: bool,
    /// As what it was counted.
    pub outcome: Outcome,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// A rule without end that says nothing yet.
pub const PERMANENTLY: Rule =
    Rule { expires_ns: PERMANENT, packets: 0, bytes: 0, bits: 0, flags: 0, trunk: 0, pad: 0 };

impl Program {
    /// Loads the program: `enforce`, `reset`, ports 5060 and 5061 (TLS), default limits, no grace.
    pub fn new() -> Result<Self> {
        Self::with_flows(DEFAULT_FLOWS)
    }

    /// The same with room for that many connections.
    pub fn with_flows(flows: u32) -> Result<Self> {
        let loaded = Loaded::new(OBJECT, None, 0, flows).context("loading the program needs root")?;
        let mut program = Self { loaded, out: vec![0; 1 << 17] };
        program.begin()?;
        Ok(program)
    }

    /// Settings and ports of a program whose maps are empty.
    fn begin(&mut self) -> Result<()> {
        self.set(Settings {
            limits: Limits::default(),
            hash_keys: std::array::from_fn(|k| 0x5eed * (k as u64 + 1)),
            ..Settings::zeroed()
        })?;
        self.guard(5060)?;
        self.guard_tls(5061)
    }

    /// Replaces the settings.
    pub fn set(&mut self, settings: Settings) -> Result<()> {
        let mut map: Array<_, Plain<Settings>> = self.map(names::SETTINGS)?;
        Ok(map.set(0, Plain(settings), 0)?)
    }

    /// Changes the settings.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let map: Array<_, Plain<Settings>> = self.map(names::SETTINGS)?;
        let Plain(mut settings) = map.get(&0, 0)?;
        change(&mut settings);
        self.set(settings)
    }

    /// Guards a port.
    pub fn guard(&mut self, port: u16) -> Result<()> {
        let mut map: Array<_, u64> = self.map(names::PORTS)?;
        let (word, bit) = port_bit(port);
        let bits = map.get(&word, 0)? | bit;
        Ok(map.set(word, bits, 0)?)
    }

    /// Guards a port of SIP over TLS.
    pub fn guard_tls(&mut self, port: u16) -> Result<()> {
        let mut map: Array<_, u64> = self.map(names::PORTS)?;
        let (word, bit) = port_bit(port);
        let bits = map.get(&(PORT_WORDS + word), 0)? | bit;
        Ok(map.set(PORT_WORDS + word, bits, 0)?)
    }

    /// Blocks a source until `expires_ns`.
    pub fn block(&mut self, source: &str, expires_ns: u64) -> Result<()> {
        self.rule(source, Rule { expires_ns, flags: rule_flags::BLOCK, ..Rule::zeroed() })
    }

    /// Sets the rule of a source; its prefix length is filled in.
    pub fn rule(&mut self, source: &str, rule: Rule) -> Result<()> {
        let source: Source = source.parse().map_err(anyhow::Error::msg)?;
        let block = Plain(Rule { bits: source.bits() as u16, ..rule });
        if source.is_host() {
            let mut map: HashMap<_, [u8; 16], Plain<Rule>> = self.map(names::HOSTS)?;
            return Ok(map.insert(source.bytes(), block, 0)?);
        }
        let mut map: LpmTrie<_, [u8; 16], Plain<Rule>> = self.map(names::PREFIXES)?;
        Ok(map.insert(&lpm_trie::Key::new(source.bits(), source.bytes()), block, 0)?)
    }

    /// Sets the rule of a device, an address and a port.
    pub fn device(&mut self, device: &str, rule: Rule) -> Result<()> {
        let device: SocketAddr = device.parse()?;
        let key = DeviceKey { address: mapped(device.ip()), port: device.port().to_be_bytes(), pad: [0; 2] };
        let mut map: HashMap<_, Plain<DeviceKey>, Plain<Rule>> = self.map(names::DEVICES)?;
        map.insert(Plain(key), Plain(rule), 0)?;
        self.change(|settings| settings.rules |= rules_in_use::DEVICES)
    }

    /// Bans a device, an address and a port; port 0 is all of an IPv4 address.
    pub fn ban(&mut self, device: &str, until_ns: u64) -> Result<()> {
        let device: SocketAddr = device.parse()?;
        let address = mapped(device.ip());
        let key = DeviceKey { address, port: device.port().to_be_bytes(), pad: [0; 2] };
        let mut map: HashMap<_, Plain<DeviceKey>, Plain<Ban>> = self.map(names::BANS)?;
        map.insert(Plain(key), Plain(Ban { until_ns, ..Ban::zeroed() }), 0)?;
        let words: [u32; 4] = bytemuck::cast(address);
        let mut home = 0;
        self.change(|settings| {
            settings.rules |= rules_in_use::RATES;
            home = bucket_slots(words, VERIFIED, &settings.hash_keys).1[0];
        })?;
        let mut map: Array<_, Plain<RateBucket>> = self.map(names::BUDGETS)?;
        Ok(map.set(home, Plain(RateBucket { banned: u32::MAX, ..RateBucket::zeroed() }), 0)?)
    }

    /// What is known of devices and addresses that sent malformed streams.
    pub fn bans(&mut self) -> Result<Vec<(DeviceKey, Ban)>> {
        let map: HashMap<_, Plain<DeviceKey>, Plain<Ban>> = self.map(names::BANS)?;
        map.iter().map(|entry| Ok(entry.map(|(Plain(key), Plain(ban))| (key, ban))?)).collect()
    }

    /// Counts a connection of the peer as open, and allows no more of a source.
    pub fn open(&mut self, peer: &Peer) -> Result<()> {
        self.count_open(peer, 0)?;
        self.change(|settings| {
            settings.rules |= rules_in_use::OPEN;
            settings.open = 1;
        })
    }

    /// Sets the rule of a SIP identity, such as `1234@pbx.example`.
    pub fn identity(&mut self, identity: &str, rule: Rule) -> Result<()> {
        let mut map: HashMap<_, [u8; MATCH_KEY_BYTES], Plain<Rule>> = self.map(names::IDENTITIES)?;
        map.insert(padded(identity), Plain(rule), 0)?;
        self.change(|settings| settings.rules |= rules_in_use::IDENTITIES)
    }

    /// Sets the rule of the user agents that begin with a text in lower case.
    pub fn user_agent(&mut self, prefix: &str, rule: Rule) -> Result<()> {
        let rule = Rule { bits: prefix.len() as u16 * 8, ..rule };
        let key = lpm_trie::Key::new(u32::from(rule.bits), padded(prefix));
        let mut map: LpmTrie<_, [u8; MATCH_KEY_BYTES], Plain<Rule>> = self.map(names::USER_AGENTS)?;
        map.insert(&key, Plain(rule), 0)?;
        self.change(|settings| settings.rules |= rules_in_use::USER_AGENTS)
    }

    /// The rule of a SIP identity, with its counters.
    pub fn rule_of_identity(&mut self, identity: &str) -> Result<Rule> {
        let map: HashMap<_, [u8; MATCH_KEY_BYTES], Plain<Rule>> = self.map(names::IDENTITIES)?;
        Ok(map.get(&padded(identity), 0)?.0)
    }

    /// Sets a trunk's policy.
    pub fn trunk(&mut self, index: u32, trunk: Trunk) -> Result<()> {
        let mut map: Array<_, Plain<Trunk>> = self.map(names::TRUNKS)?;
        Ok(map.set(index, Plain(trunk), 0)?)
    }

    /// How many packets of a trunk were counted for a reason.
    pub fn count_of_trunk(&mut self, trunk: u32, outcome: Outcome, reason: Reason) -> Result<u64> {
        let map: PerCpuArray<_, Plain<Counter>> = self.map(names::TRUNK_COUNTERS)?;
        let values = map.get(&trunk_counter_index(trunk, outcome, reason.number()), 0)?;
        Ok(values.iter().map(|value| value.0.packets).sum())
    }

    /// Runs a frame and tells what was counted.
    pub fn run(&mut self, frame: &[u8]) -> Result<Run> {
        self.run_cut(frame, frame.len())
    }

    /// The same with a frame whose first `linear` bytes (14 at least) are in one buffer and the others in others. Linux 6.18.
    pub fn run_cut(&mut self, frame: &[u8], linear: usize) -> Result<Run> {
        let before = self.counters()?;
        let (action, out) = self.run_once(frame, linear)?;
        let after = self.counters()?;
        let mut counted = Vec::new();
        for (index, (old, new)) in before.iter().zip(&after).enumerate() {
            for _ in 0..new.packets - old.packets {
                if new.bytes - old.bytes != frame.len() as u64 {
                    bail!("{} bytes were counted for a frame of {}", new.bytes - old.bytes, frame.len());
                }
                counted.push(index);
            }
        }
        let [index] = counted[..] else { bail!("a packet is counted once, not {} times", counted.len()) };
        let outcome = Outcome::ALL[index / Reason::COUNT];
        let let_pass = matches!(outcome, Outcome::WouldDrop | Outcome::WouldReset);
        let reason = Reason::from_number((index % Reason::COUNT) as u8).context("a reason")?;
        Ok(Run { action, reason, let_pass, outcome, frame: out })
    }

    /// Runs a frame: XDP's action and the frame afterwards.
    pub fn run_uncounted(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.run_once(frame, frame.len())
    }

    fn run_once(&mut self, frame: &[u8], linear: usize) -> Result<(u32, Vec<u8>)> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        // `struct xdp_md`: data, data_end, data_meta and three words that stay zero.
        let context = [0, linear as u32, 0, 0, 0, 0];
        if linear < frame.len() {
            options.ctx_in = Some(bytemuck::bytes_of(&context));
        }
        let mut out = std::mem::take(&mut self.out);
        options.data_out = Some(&mut out);
        let result = self.loaded.program()?.test_run(options).context("running the program")?;
        let frame = out[..result.data_size_out as usize].to_vec();
        self.out = out;
        Ok((result.return_value, frame))
    }

    /// Packets counted for a reason, those that `monitor` mode let pass not among them.
    pub fn count(&mut self, reason: Reason) -> Result<u64> {
        self.counted(reason, [Outcome::Plain, Outcome::Reset])
    }

    /// How many packets would have been stopped for a reason and were not.
    pub fn count_let_pass(&mut self, reason: Reason) -> Result<u64> {
        self.counted(reason, [Outcome::WouldDrop, Outcome::WouldReset])
    }

    fn counted(&mut self, reason: Reason, outcomes: [Outcome; 2]) -> Result<u64> {
        outcomes.into_iter().map(|outcome| self.count_of(outcome, reason)).sum()
    }

    /// Packets counted for a reason and an outcome.
    pub fn count_of(&mut self, outcome: Outcome, reason: Reason) -> Result<u64> {
        let map: PerCpuArray<_, Plain<Counter>> = self.map(names::COUNTERS)?;
        let values = map.get(&counter_index(0, outcome, reason.number()), 0)?;
        Ok(values.iter().map(|value| value.0.packets).sum())
    }

    /// The flow of a connection.
    pub fn flow(&mut self, peer: &Peer) -> Result<Option<Flow>> {
        Ok(self.flow_of(&flow_key(peer)))
    }

    /// The flow of a key.
    pub fn flow_of(&mut self, key: &FlowKey) -> Option<Flow> {
        let map: HashMap<_, Plain<FlowKey>, Plain<Flow>> = self.map(names::FLOWS).ok()?;
        map.get(&Plain(*key), 0).ok().map(|Plain(flow)| flow)
    }

    /// Forgets the flow and the handshake of a key, as a full map does.
    pub fn forget(&mut self, key: &FlowKey) -> Result<()> {
        let mut flows: HashMap<_, Plain<FlowKey>, Plain<Flow>> = self.map(names::FLOWS)?;
        absent(flows.remove(&Plain(*key)))?;
        let mut handshakes: HashMap<_, Plain<FlowKey>, Plain<Handshake>> = self.map(names::HANDSHAKES)?;
        absent(handshakes.remove(&Plain(*key)))
    }

    /// Forgets that the PBX speaks SIP from a port that is not guarded.
    pub fn forget_spoken(&mut self, port: u16) -> Result<()> {
        let mut map: Array<_, u64> = self.map(names::SPOKEN)?;
        let (word, bit) = port_bit(port);
        let bits = map.get(&word, 0)? & !bit;
        Ok(map.set(word, bits, 0)?)
    }

    /// Changes the flow of a connection.
    pub fn change_flow(&mut self, peer: &Peer, change: impl FnOnce(&mut Flow)) -> Result<()> {
        let mut flow = self.flow(peer)?.context("no flow")?;
        change(&mut flow);
        self.set_flow(&flow_key(peer), flow)
    }

    /// Puts the flow of a key.
    pub fn set_flow(&mut self, key: &FlowKey, flow: Flow) -> Result<()> {
        let mut map: HashMap<_, Plain<FlowKey>, Plain<Flow>> = self.map(names::FLOWS)?;
        Ok(map.insert(Plain(*key), Plain(flow), 0)?)
    }

    /// Every datagram whose headers are longer than its first fragment.
    pub fn datagrams(&mut self) -> Result<Vec<(FragmentKey, Datagram)>> {
        let map: HashMap<_, Plain<FragmentKey>, Plain<Datagram>> = self.map(names::FRAGMENTS)?;
        map.iter().map(|entry| Ok(entry.map(|(Plain(key), Plain(value))| (key, value))?)).collect()
    }

    /// Puts what is known of such a datagram.
    pub fn set_datagram(&mut self, key: FragmentKey, datagram: Datagram) -> Result<()> {
        let mut map: HashMap<_, Plain<FragmentKey>, Plain<Datagram>> = self.map(names::FRAGMENTS)?;
        Ok(map.insert(Plain(key), Plain(datagram), 0)?)
    }

    /// Lets the later fragments that came before their first have come `units` of 2^30 ns earlier.
    pub fn age_early_fragments(&mut self, units: u32) -> Result<()> {
        let mut map: Array<_, [u32; 16]> = self.map(names::EARLY_FRAGMENTS)?;
        for block in 0..map.len() {
            let times = map.get(&block, 0)?;
            if times != [0; 16] {
                map.set(block, times.map(|time| if time == 0 { 0 } else { time - units }), 0)?;
            }
        }
        Ok(())
    }

    /// Every offender by its port; one that is over a limit has none.
    pub fn offenders(&mut self) -> Result<Vec<(OffenderKey, Offender)>> {
        let is_address = |key: &OffenderKey| {
            key.port == [0; 2] && Reason::from_number(key.reason).is_some_and(Reason::is_malformed)
        };
        Ok(self.all_offenders()?.into_iter().filter(|(key, _)| !is_address(key)).collect())
    }

    /// The same, with the sums of addresses, whose port is 0.
    pub fn all_offenders(&mut self) -> Result<Vec<(OffenderKey, Offender)>> {
        let map: HashMap<_, Plain<OffenderKey>, Plain<Offender>> = self.map(names::OFFENDERS)?;
        map.iter().map(|entry| Ok(entry.map(|(Plain(key), Plain(value))| (key, value))?)).collect()
    }

    /// Counters of every reason, for one outcome after the other. One call reads them all: each run of a frame asks twice.
    pub fn counters(&mut self) -> Result<Vec<Counter>> {
        let entries = counter_index(1, Outcome::Plain, 0);
        let bytes = self.contents_of(names::COUNTERS)?.first(entries)?;
        let each: Vec<Counter> =
            bytes.chunks_exact(size_of::<Counter>()).map(bytemuck::pod_read_unaligned).collect();
        let per_cpu = each.len() / entries as usize;
        let sum = |index: u32| {
            let values = &each[index as usize * per_cpu..][..per_cpu];
            values.iter().fold(Counter::default(), |sum, value| Counter {
                packets: sum.packets + value.packets,
                bytes: sum.bytes + value.bytes,
            })
        };
        let of = |outcome| Reason::ALL.iter().map(move |reason| counter_index(0, outcome, reason.number()));
        Ok(Outcome::ALL.into_iter().flat_map(of).map(sum).collect())
    }

    /// The program in the kernel, for whoever runs it otherwise.
    pub fn descriptor(&mut self) -> Result<OwnedFd> {
        Ok(self.loaded.program()?.fd()?.as_fd().try_clone_to_owned()?)
    }

    /// The program with its maps.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Limits every source to a rate: packets, connections or messages, as `kind` says.
    pub fn limit(&mut self, kind: usize, rate: Rate) -> Result<()> {
        self.change(|settings| {
            settings.rules |= rules_in_use::RATES;
            settings.rates[kind] = rate;
        })
    }

    /// Says which packets are recorded beside events.
    pub fn tap(&mut self, taps: ObserveSettings) -> Result<()> {
        let mut map: Array<_, Plain<ObserveSettings>> = self.map(names::TAPS)?;
        Ok(map.set(0, Plain(taps), 0)?)
    }

    /// Facts of the verified program.
    pub fn info(&mut self) -> Result<aya::programs::ProgramInfo> {
        Ok(self.loaded.program()?.info()?)
    }

    fn map<'a, T>(&'a mut self, name: &str) -> Result<T>
    where
        T: TryFrom<&'a mut Map, Error = aya::maps::MapError>,
    {
        let map = self.loaded.ebpf().map_mut(name).with_context(|| format!("no map {name}"))?;
        Ok(T::try_from(map)?)
    }
}

/// A map of one of the kinds that sipguard has.
fn descriptor(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}

/// What is not there can't be removed.
fn absent(removed: Result<(), aya::maps::MapError>) -> Result<()> {
    match removed {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn flow_key(peer: &Peer) -> FlowKey {
    FlowKey {
        remote: mapped(peer.remote.ip()),
        local: mapped(peer.local.ip()),
        remote_port: peer.remote.port().to_be_bytes(),
        local_port: peer.local.port().to_be_bytes(),
    }
}

/// A key as the maps have it.
fn padded(text: &str) -> [u8; MATCH_KEY_BYTES] {
    std::array::from_fn(|at| text.as_bytes().get(at).copied().unwrap_or(0))
}

/// A device that speaks to the PBX over IPv4.
#[must_use]
pub fn device() -> Peer {
    Peer::new("192.0.2.7:40000", "198.51.100.1:5060")
}

/// Runs frames on a program that has seen none; the last one's outcome counts.
pub fn last(frames: &[Vec<u8>]) -> Result<Run> {
    let mut program = Program::shared()?;
    let mut outcome = None;
    for frame in frames {
        outcome = Some(program.run(frame)?);
    }
    outcome.context("no frame")
}

/// A stream of segments on a new connection; the outcomes of each.
pub fn stream(peer: &Peer, segments: &[&[u8]]) -> Result<Vec<Run>> {
    let mut program = Program::shared()?;
    program.connect(peer, 1000)?;
    let mut seq = 1000u32;
    segments
        .iter()
        .map(|segment| {
            let run = program.run(&peer.tcp(ACK | PSH, seq, segment))?;
            seq = seq.wrapping_add(segment.len() as u32);
            Ok(run)
        })
        .collect()
}
