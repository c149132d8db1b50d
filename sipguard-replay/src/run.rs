//! One capture from its first packet to its report.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow};
use aya::maps::Array;
use aya::programs::Xdp;
use bytemuck::Zeroable;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use sipguard_common::abi::{
    BanPolicy, Datagram, EARLY_SLOTS, Flow, FlowKey, FragmentKey, Handshake, MODE_ENFORCE, Rate, Settings,
    SpillKey, SpilledRecord, names,
};
use sipguard_core::blocks::Blocks;
use sipguard_core::clock::Clock;
use sipguard_core::load::Loaded;
use sipguard_core::maps;
use sipguard_core::policy::{Policy, PolicyMaps};
use sipguard_core::settings::{EffectiveSettings, secret};
use sipguard_observe::header::Header;

use super::ReplayRequest;
use super::capture::{CapturePacket, Input};
use super::clients::Clients;
use super::decide::{Decider, Incoming, TIME_BYTES};
use super::explain::Explainer;
use super::link::{self, Linked};
use super::offload::fill_length;
use super::report::ReplayReport;
use super::side::{Guess, LOOKED_AT, Side};
use super::tally::Tally;

/// Bytes that go to a thread at once.
const BATCH_BYTES: usize = 1 << 18;
/// Batches of a thread that are under way.
const BATCHES: usize = 3;
/// Threads at the most.
const THREADS: usize = 8;

/// The loaded program and its maps, for one capture after the other: the kernel's verifier takes longer than most captures.
pub(crate) struct Replayer {
    loaded: Loaded,
    request: ReplayRequest,
    /// Whether the maps may have something of a capture.
    used: bool,
}

impl Replayer {
    /// Loads the program of an object, an ELF file, and says to it by what captures are judged.
    ///
    /// # Errors
    /// When the kernel refuses the program or a map.
    pub(crate) fn load(object: &[u8], request: ReplayRequest) -> Result<Replayer> {
        let loaded = Loaded::for_replay(object, request.flows)?;
        prepare(&loaded, &request)?;
        Ok(Replayer { loaded, request, used: false })
    }

    /// Judges a capture, by itself: nothing is known of those before. `step` hears how many bytes were read so far.
    ///
    /// # Errors
    /// When the kernel refuses a run of the program. What is wrong with the file is a part of the report.
    pub(crate) fn replay(&mut self, path: &Path, step: &dyn Fn(u64)) -> Result<ReplayReport> {
        if std::mem::replace(&mut self.used, true) {
            forget(&self.loaded)?;
        }
        let request = &self.request;
        let input = Input::open(path);
        let cpus = cpus();
        let mut clients = Vec::new();
        for _ in &cpus {
            clients.push(Clients::open(&self.loaded, &request.rules.policy.trunks)?);
        }
        let program: &Xdp = self.loaded.program()?;
        let side = if request.pbx.is_empty() { sides(&input, request) } else { Side::named(&request.pbx) };
        let base_ns = Clock::now()?.boot_ns;
        std::thread::scope(|scope| {
            let mut lanes = Vec::new();
            let mut threads = Vec::new();
            for (cpu, clients) in cpus.into_iter().zip(clients) {
                let (sender, receiver) = sync_channel(BATCHES);
                let (back, empty) = sync_channel(BATCHES + 1);
                let settings = &request.settings;
                let mut limits = settings.limits;
                limits.switch_off(request.rules.policy.checks.off);
                let explainer = Explainer::new(limits, settings.ports.tls.clone());
                let decider = Decider::new(program, clients, explainer);
                threads.push(scope.spawn(move || work(decider, cpu, &receiver, &back)));
                lanes.push(Lane { sender, empty, batch: Batch::default() });
            }
            let mut reader = PacketReader::new(side, base_ns, lanes);
            let damage = input.read(step, &mut |packet| reader.take(packet)).err();
            let (mut report, side) = reader.end();
            report.damage = damage;
            for thread in threads {
                let tally = thread.join().map_err(|_| anyhow!("a thread that judges panicked"))??;
                report.tally.add(tally);
            }
            report.tally.explained.sort_by_key(|explanation| explanation.packet);
            report.finish(path, request, &side);
            Ok(report)
        })
    }
}

/// Makes the maps say what is wanted. What depends on how fast packets come stays off.
fn prepare(loaded: &Loaded, request: &ReplayRequest) -> Result<()> {
    let settings = Settings { hash_keys: secret()?, ..Settings::zeroed() };
    maps::set_settings(loaded, settings)?;
    EffectiveSettings { mode: MODE_ENFORCE, ..request.settings.clone() }.write(loaded)?;
    PolicyMaps::open(loaded)?.write(&without_rates(&request.rules.policy))?;
    let (mut blocks, clock) = (Blocks::open(loaded)?, Clock::now()?);
    for (target, desired) in &request.rules.entries {
        blocks.put(target, Some(*desired), &clock)?;
    }
    Ok(())
}

/// Without limits and bans: who is trusted with how much depends on connections that the PBX's kernel has.
fn without_rates(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.rates.fill(Rate::NONE);
    (policy.open, policy.unfinished, policy.bans) = (0, 0, BanPolicy::zeroed());
    for trunk in &mut policy.trunks {
        trunk.rates.fill(Rate::NONE);
        (trunk.open, trunk.unfinished) = (0, 0);
    }
    policy
}

/// Forgets the connections and fragments of a capture: all that decides about a packet and is of packets before it, while there are neither
/// limits of rates nor bans.
fn forget(loaded: &Loaded) -> Result<()> {
    maps::empty::<FlowKey, Flow>(loaded, names::FLOWS)?;
    maps::empty::<FlowKey, Handshake>(loaded, names::HANDSHAKES)?;
    maps::empty::<SpillKey, SpilledRecord>(loaded, names::SPILLED)?;
    maps::empty::<FragmentKey, Datagram>(loaded, names::FRAGMENTS)?;
    let mut early: Array<_, [u32; EARLY_SLOTS]> = maps::open(loaded, names::EARLY_FRAGMENTS)?;
    for block in 0..early.len() {
        early.set(block, [0; EARLY_SLOTS], 0).context("clearing the times of fragments")?;
    }
    Ok(())
}

/// Which packets the PBX sent, by the first ones.
fn sides(input: &Input<'_>, request: &ReplayRequest) -> Side {
    let mut guess = Guess::default();
    let mut frame = Vec::new();
    input.glance(&mut |packet| {
        frame.clear();
        let linked = link::put(packet.link, packet.data, &mut frame);
        if let (Linked::Frame(outgoing), Some(header)) = (linked, Header::read(&frame)) {
            let payload = frame.get(header.payload.clone()).unwrap_or_default();
            guess.see(&header, payload, outgoing.or(packet.outgoing), &request.settings.ports);
        }
        if packet.number < LOOKED_AT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    guess.side()
}

/// Packets on their way to a thread.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    packets: Vec<Queued>,
}

struct Queued {
    number: u64,
    header: Option<Header>,
    cut: bool,
    at: Range<usize>,
}

/// The way to one thread, and the empty batches that come back.
struct Lane {
    sender: SyncSender<Batch>,
    empty: Receiver<Batch>,
    batch: Batch,
}

impl Lane {
    /// Sends what there is. `Break` when the thread is gone.
    fn flush(&mut self) -> ControlFlow<()> {
        let next = self.empty.try_recv().unwrap_or_default();
        let full = std::mem::replace(&mut self.batch, next);
        if self.sender.send(full).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// What the reading thread keeps.
struct PacketReader {
    side: Side,
    lanes: Vec<Lane>,
    report: ReplayReport,
    frame: Vec<u8>,
    base_ns: u64,
    first_ns: Option<u64>,
    /// The program's clock does not go back.
    now_ns: u64,
}

impl PacketReader {
    fn new(side: Side, base_ns: u64, lanes: Vec<Lane>) -> PacketReader {
        let (report, frame) = (ReplayReport::default(), Vec::new());
        PacketReader { side, lanes, report, frame, base_ns, first_ns: None, now_ns: base_ns }
    }

    fn take(&mut self, packet: CapturePacket<'_>) -> ControlFlow<()> {
        self.report.packets += 1;
        if let Some(time_ns) = packet.time_ns {
            let since = time_ns.saturating_sub(*self.first_ns.get_or_insert(time_ns));
            self.now_ns = self.now_ns.max(self.base_ns.saturating_add(since));
        }
        self.frame.clear();
        self.frame.extend_from_slice(&self.now_ns.to_ne_bytes());
        let outgoing = match link::put(packet.link, packet.data, &mut self.frame) {
            Linked::Frame(outgoing) => outgoing.or(packet.outgoing),
            Linked::Short => {
                let cut = (packet.data.len() as u64) < u64::from(packet.original_len);
                *(if cut { &mut self.report.tally.cut } else { &mut self.report.tally.no_frame }) += 1;
                return ControlFlow::Continue(());
            }
            Linked::Unknown => {
                *self.report.links.entry(packet.link).or_default() += 1;
                return ControlFlow::Continue(());
            }
        };
        self.report.without_length += u64::from(fill_length(&mut self.frame[TIME_BYTES..]));
        let header = Header::read(&self.frame[TIME_BYTES..]);
        self.report.of_pbx |= header.as_ref().is_some_and(|header| self.side.has(&header.ends));
        if header.as_ref().is_some_and(|header| self.side.sent(outgoing, &header.ends)) {
            self.report.sent += 1;
            return ControlFlow::Continue(());
        }
        let cut = (packet.data.len() as u64) < u64::from(packet.original_len);
        self.queue(packet.number, header, cut)
    }

    /// By the addresses, so that a connection, and a datagram in fragments, is one thread's.
    fn queue(&mut self, number: u64, header: Option<Header>, cut: bool) -> ControlFlow<()> {
        let lane = header.as_ref().map_or(0, |header| {
            let mix = |sum: usize, byte: &u8| (sum ^ usize::from(*byte)).wrapping_mul(0x9e37_79b1);
            header.ends.from.iter().chain(&header.ends.to).fold(7, mix) >> 8
        });
        let count = self.lanes.len();
        let lane = &mut self.lanes[lane % count];
        let start = lane.batch.bytes.len();
        lane.batch.bytes.extend_from_slice(&self.frame);
        lane.batch.packets.push(Queued { number, header, cut, at: start..lane.batch.bytes.len() });
        if lane.batch.bytes.len() < BATCH_BYTES { ControlFlow::Continue(()) } else { lane.flush() }
    }

    /// What was read; the threads then end, and what went wrong there they say themselves.
    fn end(mut self) -> (ReplayReport, Side) {
        for lane in &mut self.lanes {
            let _gone = lane.flush();
        }
        (self.report, self.side)
    }
}

/// What a thread does: it stays on its CPU, for the program's work space is a CPU's.
fn work(
    mut decider: Decider<'_>,
    cpu: usize,
    batches: &Receiver<Batch>,
    back: &SyncSender<Batch>,
) -> Result<Tally> {
    let mut set = CpuSet::new();
    set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).context("staying on one CPU")?;
    for mut batch in batches {
        for Queued { number, header, cut, at } in batch.packets.drain(..) {
            let bytes = &batch.bytes[at];
            decider.decide(&Incoming { number, header: header.as_ref(), cut, bytes })?;
        }
        batch.bytes.clear();
        let _reader_is_done = back.try_send(batch);
    }
    Ok(decider.end())
}

/// The CPUs that this process may use, a few of them at the most.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let mut cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    cpus.truncate(THREADS);
    if cpus.is_empty() { vec![0] } else { cpus }
}
