//! `sipguard capture`

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use super::{Span, parse_duration, plural, usage};
use crate::capture::{Capture, CaptureRequest};
use crate::clock::Clock;
use crate::disk::{Floor, parse_size, private};
use crate::events::{RuleLookup, SenderFilter};
use crate::evidence::{PcapWriter, comment};
use crate::interrupt::Interrupt;
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::redact::RedactedPacket;
use crate::tap::{Names, Start, TapPacket, TapRing, Which};

/// How often the ring is looked at: while packets come, and while none does. It holds 1024.
const POLL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(5)];
/// How often names of interfaces and trunks are read.
const NAMED: Duration = Duration::from_secs(2);

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Verdict {
    /// Stopped, or in `monitor` mode counted as such
    Drop,
    /// Passed
    Pass,
    /// Both
    #[default]
    Any,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write; `-` is standard output, where it goes without this too unless that is a terminal
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// For how long [default: until SIGINT]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    span: Option<Span>,

    /// Only from this address, prefix, or address and port
    #[arg(long = "src", value_name = "ADDR|CIDR|ADDR:PORT")]
    source: Option<SenderFilter>,

    /// What became of the packets; those that pass are those of guarded ports
    #[arg(long, value_enum, default_value_t)]
    verdict: Verdict,

    /// End after so many packets
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End when the file has so many bytes, such as 100M
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    limit: u64,

    /// Leave secrets as they are; else credentials, tokens, cookies, keys of media and dialled digits, and what may be a part of one, are
    /// overwritten by `x`
    #[arg(long)]
    no_redact: bool,
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Asked,
    Count,
    Limit,
    Disk,
    Reader,
    Detached,
}

pub fn run(pins: &Pins, store: &Path, format: Format, args: &Args) -> Result<()> {
    let to_stdout = args.write.as_deref().is_none_or(|path| path == Path::new("-"));
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(usage("a terminal can't show packets: name a file with `-w FILE`, or `| tshark -r -`"));
    }
    pins.check()?;
    let interrupt = Interrupt::new()?;
    let request = CaptureRequest {
        source: args.source,
        dropped: args.verdict != Verdict::Pass,
        passed: args.verdict != Verdict::Drop,
    };
    let ring = TapRing::open(pins, Which::Captured, Start::Now)?;
    let mut capture = Capture::begin(pins, request)?;
    let output = Output::open(args.write.as_deref().filter(|_| !to_stdout))?;
    let writer = match PcapWriter::new(output) {
        Err(error) if is_of(&error, ErrorKind::BrokenPipe) => return Ok(()),
        writer => writer?,
    };
    let names = Names::read(pins, store)?;
    let mut session = Session {
        pins,
        store,
        args,
        ring,
        writer,
        names,
        named: Instant::now(),
        rules: RuleLookup::new(pins, store),
        written: 0,
    };
    let begin = Instant::now();
    let end = loop {
        let more = match session.take()? {
            Taken::End(end) => break end,
            Taken::Packets(count) => count > 0,
        };
        if capture.renew().is_err() {
            if pins.exist() {
                bail!("the capture can't be kept up: the map of captures can't be written");
            }
            break End::Detached;
        }
        let over = args.span.and_then(|span| span.0).is_some_and(|span| begin.elapsed() >= span);
        if over || interrupt.wait(POLL[usize::from(!more)])? {
            break End::Asked;
        }
    };
    drop(capture);
    // What came between the last look and the end.
    let end = match end {
        End::Asked => match session.take()? {
            Taken::End(other) => other,
            Taken::Packets(_) => end,
        },
        other => other,
    };
    session.report(format, end)
}

struct Session<'a> {
    pins: &'a Pins,
    store: &'a Path,
    args: &'a Args,
    ring: TapRing,
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
    fn take(&mut self) -> Result<Taken> {
        let mut records = Vec::new();
        self.ring.read(|record| {
            records.push(*record);
            Ok(())
        })?;
        if records.is_empty() {
            return Ok(Taken::Packets(0));
        }
        if self.named.elapsed() > NAMED {
            self.names = Names::read(self.pins, self.store).unwrap_or_else(|_| self.names.clone());
            self.named = Instant::now();
        }
        if !self.writer.get_ref().has_room(records.len() as u64 * size_of_val(&records[0]) as u64)? {
            return Ok(Taken::End(End::Disk));
        }
        let clock = Clock::now()?;
        let before = self.written;
        for record in &records {
            let Some(packet) = TapPacket::read(record, &self.names, &clock) else { continue };
            let redacted = RedactedPacket::new(&packet);
            let rule = self.rules.of(&redacted);
            let comment = comment(&redacted, rule.as_deref());
            let written = if self.args.no_redact {
                self.writer.write_with_credentials(&packet, &comment)
            } else {
                self.writer.write(&redacted, &comment)
            };
            match written {
                Err(error) if is_of(&error, ErrorKind::BrokenPipe) => return Ok(Taken::End(End::Reader)),
                Err(error) if is_of(&error, ErrorKind::StorageFull) => return Ok(Taken::End(End::Disk)),
                written => written?,
            }
            self.written += 1;
            if Some(self.written) == self.args.count {
                return Ok(Taken::End(End::Count));
            }
            if self.writer.get_ref().bytes >= self.args.limit {
                return Ok(Taken::End(End::Limit));
            }
        }
        Ok(Taken::Packets(self.written - before))
    }

    fn report(&self, format: Format, end: End) -> Result<()> {
        let (output, missed) = (self.writer.get_ref(), self.ring.missed());
        let why = match end {
            End::Asked | End::Count | End::Reader => "",
            End::Limit => "; the file is as large as `--limit` lets it be",
            End::Disk => "; the disk is nearly full",
            End::Detached => "; the guard was detached",
        };
        let count = plural(usize::try_from(self.written).unwrap_or(usize::MAX), "packet");
        let missing =
            if missed > 0 { format!(", {missed} more came too fast and are missing") } else { String::new() };
        let text = format!("{count} written{missing}{why}\n");
        match &output.path {
            None => eprint!("sipguard: {text}"),
            Some(path) => {
                let value = json!({
                    "file": path.display().to_string(), "packets": self.written, "bytes": output.bytes, "missed": missed,
                });
                object(format, "sipguard.capture/1", value, || text)?;
            }
        }
        if end == End::Disk { bail!("the capture ended early: the disk is nearly full") } else { Ok(()) }
    }
}

fn is_of(error: &anyhow::Error, kind: ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|error| error.kind() == kind)
}

/// A file, or standard output.
struct Output {
    path: Option<PathBuf>,
    file: File,
    bytes: u64,
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Output> {
        let Some(path) = path else {
            let file = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned();
            return Ok(Output {
                path: None,
                file: file.context("opening standard output")?.into(),
                bytes: 0,
            });
        };
        let file = private().create(true).truncate(true).open(path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok(Output { path: Some(path.to_owned()), file, bytes: 0 })
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
