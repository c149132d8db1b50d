//! `capture`: packets of guarded ports and what is stopped, as pcapng.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sipguard_core::clock::Clock;
use sipguard_core::disk::{Floor, private};
use sipguard_core::maps::{self, Ports};
use sipguard_core::notice;
use sipguard_core::ops::Context;
use sipguard_core::pins::Pins;
use sipguard_core::presence::{iface_name, own_slots};

use crate::capture::{Capture, CaptureRequest};
use crate::events::RuleLookup;
pub use crate::events::SenderFilter;
use crate::evidence::{PcapWriter, comment};
use crate::redact::RedactedPacket;
use crate::sent::SentPackets;
use crate::tap::{Names, Start, TapPacket, TapRing, Which};

/// How often the ring is looked at: while packets come, and while none does. It holds 1024.
const POLL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(5)];
/// How often names of interfaces and trunks are read.
const NAMED: Duration = Duration::from_secs(2);

/// What a packet takes in the file beside itself, at the most: its comment, and numbers.
const BLOCK_BYTES: usize = 4096 + 128;

/// Where packets go.
#[derive(Debug)]
pub enum To {
    /// A file, which is made; one that has something is written over only where `force` says so.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it may be written over.
        force: bool,
    },
    /// A pipe or the like, whose reader may go away.
    Stream(File),
}

/// What is captured.
#[derive(Debug)]
pub struct Request {
    /// Where packets go.
    pub to: To,
    /// For how long; `None` is until it is stopped.
    pub lasts: Option<Duration>,
    /// Only from this address, prefix, or address and port.
    pub source: Option<SenderFilter>,
    /// What was stopped, or would be in `monitor` mode.
    pub dropped: bool,
    /// What passed, of guarded ports.
    pub passed: bool,
    /// Also what goes out from or to guarded ports.
    pub both: bool,
    /// So many packets at the most.
    pub count: Option<u64>,
    /// So many bytes of the file at the most.
    pub max_bytes: u64,
    /// Whether credentials and the like are overwritten.
    pub redact: bool,
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped, or its time was over.
    Asked,
    /// So many packets were asked for.
    Count,
    /// The file is as large as it may be.
    Size,
    /// The disk is nearly full.
    Disk,
    /// Nobody reads any more.
    Reader,
    /// The guard was detached.
    Detached,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The file; `None` is a stream.
    pub file: Option<PathBuf>,
    /// Packets that were written.
    pub packets: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Packets that came too fast.
    pub missed: u64,
}

/// Captures until its end. `stop` waits for so long, and says whether it shall end. `None` when nobody read from the beginning.
///
/// # Errors
/// When no guard is attached, another process captures, or a map or the file can't be written.
pub fn run(
    host: &Context,
    request: Request,
    stop: &mut dyn FnMut(Duration) -> Result<bool>,
) -> Result<Option<Outcome>> {
    let pins = &host.pins;
    pins.check()?;
    let wish = CaptureRequest { source: request.source, dropped: request.dropped, passed: request.passed };
    let ring = TapRing::open(pins, Which::Captured, Start::Now)?;
    let mut capture = Capture::begin(pins, wish)?;
    let sent = if request.both { Some(SentPackets::open(pins, request.source)?) } else { None };
    notice::send(sees(pins, request.both)?);
    let writer = match PcapWriter::new(Output::open(request.to)?) {
        Err(error) if is_of(&error, ErrorKind::BrokenPipe) => return Ok(None),
        writer => writer?,
    };
    let mut session = Session {
        host,
        count: request.count,
        max_bytes: request.max_bytes,
        redact: request.redact,
        ring,
        sent,
        held: Vec::new(),
        writer,
        names: Names::read(pins, &host.store)?,
        named: Instant::now(),
        rules: RuleLookup::new(pins, &host.store),
        written: 0,
    };
    let begin = Instant::now();
    let end = loop {
        let more = match session.take(false)? {
            Taken::End(end) => break end,
            Taken::Packets(count) => count > 0,
        };
        if capture.renew().is_err() {
            if pins.exist() {
                bail!("the capture can't be kept up: the map of captures can't be written");
            }
            break End::Detached;
        }
        let over = request.lasts.is_some_and(|span| begin.elapsed() >= span);
        if over || stop(POLL[usize::from(!more)])? {
            break End::Asked;
        }
    };
    drop(capture);
    // What came between the last look and the end.
    let end = match end {
        End::Asked => match session.take(true)? {
            Taken::End(other) => other,
            Taken::Packets(_) => end,
        },
        other => other,
    };
    Ok(Some(session.outcome(end)))
}

/// How the line begins that says what is captured.
pub const SEES: &str = "capturing what comes in on ";

/// What is seen, and what is not.
fn sees(pins: &Pins, both: bool) -> Result<String> {
    let names: Vec<String> = own_slots(pins)?.iter().map(|(_, iface)| iface_name(iface)).collect();
    let Ports { sip, tls } = maps::ports(pins)?;
    let ports: Vec<String> = sip.union(&tls).map(u16::to_string).collect();
    let (names, ports) = (names.join(", "), ports.join(", "));
    let rest = if both {
        "and what goes out from or to them"
    } else {
        "alone; `--both` adds what the PBX sends, so that calls are whole"
    };
    Ok(format!("{SEES}{names} for the ports {ports}, {rest}"))
}

/// A packet that waits to be written.
struct Held {
    packet: TapPacket,
    /// Whether this machine sent it.
    is_sent: bool,
}

struct Session<'a> {
    host: &'a Context,
    count: Option<u64>,
    max_bytes: u64,
    redact: bool,
    ring: TapRing,
    /// What goes out, where that is asked for.
    sent: Option<SentPackets>,
    /// What came while the other way was read.
    held: Vec<Held>,
    writer: PcapWriter<Output>,
    names: Names,
    named: Instant,
    rules: RuleLookup,
    written: u64,
}

/// What one look at the ring gave.
enum Taken {
    Packets(u64),
    End(End),
}

impl Session<'_> {
    /// Takes what came, in the order in which it did; at the `last` time all of it.
    fn take(&mut self, last: bool) -> Result<Taken> {
        let clock = Clock::now()?;
        if let Some(sent) = &mut self.sent {
            let packets = sent.read()?.into_iter();
            self.held.extend(packets.map(|packet| Held { packet, is_sent: true }));
        }
        let mut records = Vec::new();
        self.ring.read(|record| {
            records.push(*record);
            Ok(())
        })?;
        if self.named.elapsed() > NAMED && !records.is_empty() {
            let names = Names::read(&self.host.pins, &self.host.store);
            self.names = names.unwrap_or_else(|_| self.names.clone());
            self.named = Instant::now();
        }
        let now = Clock::now()?;
        let packets = records.iter().filter_map(|record| TapPacket::read(record, &self.names, &now));
        self.held.extend(packets.map(|packet| Held { packet, is_sent: false }));
        let mut ready = std::mem::take(&mut self.held);
        if self.sent.is_some() {
            ready.sort_by_key(|held| held.packet.time_ns);
            // What went out since the sockets were read may be older than what came in meanwhile.
            let known = ready.partition_point(|held| last || held.packet.time_ns <= clock.boot_ns);
            self.held = ready.split_off(known);
        }
        self.put(&ready)
    }

    fn put(&mut self, ready: &[Held]) -> Result<Taken> {
        let bytes = |held: &Held| (held.packet.frame.len() + BLOCK_BYTES) as u64;
        let output = self.writer.get_ref();
        if !ready.is_empty() && !output.has_room(ready.iter().map(bytes).sum())? {
            return Ok(Taken::End(End::Disk));
        }
        let before = self.written;
        for held in ready {
            match self.write(held) {
                Err(error) if is_of(&error, ErrorKind::BrokenPipe) => return Ok(Taken::End(End::Reader)),
                Err(error) if is_of(&error, ErrorKind::StorageFull) => return Ok(Taken::End(End::Disk)),
                written => written?,
            }
            self.written += 1;
            if Some(self.written) == self.count {
                return Ok(Taken::End(End::Count));
            }
            if self.writer.get_ref().bytes >= self.max_bytes {
                return Ok(Taken::End(End::Size));
            }
        }
        Ok(Taken::Packets(self.written - before))
    }

    fn write(&mut self, Held { packet, is_sent }: &Held) -> Result<()> {
        let redacted = RedactedPacket::new(packet);
        if *is_sent {
            return self.writer.write_sent(if self.redact { &redacted } else { packet });
        }
        let rule = self.rules.of(&redacted);
        let comment = comment(&redacted, rule.as_deref());
        if self.redact {
            self.writer.write(&redacted, &comment)
        } else {
            self.writer.write_with_credentials(packet, &comment)
        }
    }

    fn outcome(mut self, end: End) -> Outcome {
        let not_read = self.sent.as_mut().map_or(0, SentPackets::missed);
        let output = self.writer.get_ref();
        Outcome {
            end,
            file: output.path.clone(),
            packets: self.written,
            bytes: output.bytes,
            missed: self.ring.missed() + not_read,
        }
    }
}

fn is_of(error: &anyhow::Error, kind: ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|error| error.kind() == kind)
}

/// A file, or a stream.
struct Output {
    path: Option<PathBuf>,
    file: File,
    bytes: u64,
}

impl Output {
    fn open(to: To) -> Result<Output> {
        match to {
            To::Stream(file) => Ok(Output { path: None, file, bytes: 0 }),
            To::File { path, force } => {
                if !force && path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0) {
                    let path = path.display();
                    bail!(
                        "{path} is there already and not empty: name another file, or `--force` writes over it"
                    );
                }
                let file = private().create(true).truncate(true).open(&path);
                let file = file.with_context(|| format!("making {}", path.display()))?;
                Ok(Output { path: Some(path), file, bytes: 0 })
            }
        }
    }

    /// Whether the disk has room for so many bytes more; a pipe always has.
    fn has_room(&self, bytes: u64) -> Result<bool> {
        if self.path.is_none() { Ok(true) } else { Ok(Floor::Usual.lacking(&self.file, bytes)? == 0) }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
