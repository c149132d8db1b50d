//! `sipguard events`

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sipguard_common::Reason;
use sipguard_common::abi::{PacketRecord, names};

use super::{Span, parse_duration, usage};
use crate::clock::Clock;
use crate::events::{self, EventFilter, RuleLookup, SenderFilter};
use crate::interrupt::Interrupt;
use crate::output::{Format, rows};
use crate::pins::Pins;
use crate::redact::RedactedPacket;
use crate::tap::{Names, Start, TapPacket, TapRing, Which, lost};
use crate::view;

const SCHEMA: &str = "sipguard.events/2";
/// How often the ring is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How long names of interfaces and trunks hold.
const NAMED: Duration = Duration::from_secs(2);
/// Events that `--follow` begins with.
const BEFORE: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what comes, until SIGINT
    #[arg(short, long)]
    follow: bool,

    /// Only these reasons
    #[arg(long = "reason", value_name = "REASON", num_args = 1.., value_delimiter = ',', value_parser = events::reason)]
    reasons: Vec<Reason>,

    /// Only from this address, prefix, or address and port; can be repeated
    #[arg(long = "src", value_name = "ADDR|CIDR|ADDR:PORT")]
    sources: Vec<SenderFilter>,

    /// Only of this trunk
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,

    /// Only over this interface
    #[arg(long = "iface", value_name = "IFACE")]
    interface: Option<String>,

    /// Only of this time until now, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    since: Option<Span>,

    /// Only the last ones of those that are there [default: all; with --follow 10, or with --since all]
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
}

pub fn run(pins: &Pins, store: &Path, format: Format, args: &Args) -> Result<()> {
    pins.check()?;
    let mut reader = Reader::open(pins, store, args)?;
    let most = args.last.or((args.follow && args.since.is_none()).then_some(BEFORE));
    let before = reader.read(most)?;
    if !args.follow {
        let told: Vec<(RedactedPacket, Option<String>)> = before
            .iter()
            .map(RedactedPacket::new)
            .map(|packet| (reader.rules.of(&packet), packet))
            .map(|(rule, packet)| (packet, rule))
            .collect();
        let values =
            || told.iter().map(|(packet, rule)| view::json(&events::event(packet, rule.as_deref(), None)));
        rows(format, SCHEMA, if format == Format::Table { Vec::new() } else { values().collect() }, || {
            told.iter().map(|(packet, rule)| events::line(packet, rule.as_deref()) + "\n").collect()
        })?;
        return reader.tell_lost();
    }
    reader.follow(before, format)?;
    reader.tell_lost()
}

struct Reader<'p> {
    pins: &'p Pins,
    store: &'p Path,
    filter: EventFilter,
    ring: TapRing,
    /// Records that were missed, and told of.
    missed: u64,
    /// Which map the ring is: a guard that is attached anew has another one.
    map: Option<u64>,
    names: Names,
    named: Instant,
    rules: RuleLookup,
}

impl<'p> Reader<'p> {
    fn open(pins: &'p Pins, store: &'p Path, args: &Args) -> Result<Reader<'p>> {
        let since = args.since.and_then(|span| span.0).and_then(|span| SignedDuration::try_from(span).ok());
        let filter = EventFilter {
            reasons: args.reasons.clone(),
            sources: args.sources.clone(),
            trunk: args.trunk.clone(),
            interface: args.interface.clone(),
            since: since.map(|span| Timestamp::now().checked_sub(span).unwrap_or(Timestamp::MIN)),
        };
        let names = Names::read(pins, store)?;
        filter.names_what_is_there(&names).map_err(usage)?;
        Ok(Reader {
            pins,
            store,
            filter,
            ring: TapRing::open(pins, Which::Events, Start::Oldest)?,
            missed: 0,
            map: map(pins),
            names,
            named: Instant::now(),
            rules: RuleLookup::new(pins, store),
        })
    }

    /// What came since the last time and is asked for; of it only the last `most`.
    fn read(&mut self, most: Option<usize>) -> Result<Vec<TapPacket>> {
        let mut records: Vec<PacketRecord> = Vec::new();
        self.ring.read(|record| {
            records.push(*record);
            Ok(())
        })?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if self.named.elapsed() > NAMED {
            // The old ones do, where the guard was detached meanwhile.
            self.names = Names::read(self.pins, self.store).unwrap_or_else(|_| self.names.clone());
            self.named = Instant::now();
        }
        let clock = Clock::now()?;
        let mut packets: VecDeque<TapPacket> = VecDeque::new();
        for record in &records {
            let packet = TapPacket::read(record, &self.names, &clock);
            packets.extend(packet.filter(|packet| self.filter.wants(packet)));
            if most.is_some_and(|most| packets.len() > most) {
                packets.pop_front();
            }
        }
        Ok(packets.into())
    }

    /// Tells what comes, until a signal or until nobody reads it any more.
    fn follow(&mut self, before: Vec<TapPacket>, format: Format) -> Result<()> {
        let interrupt = Interrupt::new()?;
        let mut packets = before;
        loop {
            for packet in packets {
                let packet = RedactedPacket::new(&packet);
                let rule = self.rules.of(&packet);
                let line = match format {
                    Format::Table => events::line(&packet, rule.as_deref()),
                    Format::Json | Format::Ndjson => marked(&events::event(&packet, rule.as_deref(), None)),
                };
                if !told(&line)? {
                    return Ok(());
                }
            }
            let missed = self.ring.missed();
            if missed > self.missed {
                let more = missed - self.missed;
                self.missed = missed;
                let line = match format {
                    Format::Table => {
                        format!("{more} events came faster than they were read, and are not told")
                    }
                    Format::Json | Format::Ndjson => {
                        marked(&events::stats(Timestamp::now(), missed, lost(self.pins).unwrap_or(0)))
                    }
                };
                if !told(&line)? {
                    return Ok(());
                }
            }
            if interrupt.wait(POLL)? {
                return Ok(());
            }
            self.again()?;
            packets = self.read(None)?;
        }
    }

    /// Goes over to the ring of a guard that was attached anew.
    fn again(&mut self) -> Result<()> {
        let map = map(self.pins);
        if map.is_none() || map == self.map {
            return Ok(());
        }
        if !self.pins.are_attached() {
            // Detached again, or about to be attached.
            return Ok(());
        }
        self.pins.check()?;
        self.ring = TapRing::open(self.pins, Which::Events, Start::Oldest)?;
        self.missed = 0;
        self.names = Names::read(self.pins, self.store)?;
        self.map = map;
        Ok(())
    }

    fn tell_lost(&self) -> Result<()> {
        // A guard that was detached meanwhile has nothing to tell.
        let lost = lost(self.pins).unwrap_or(0);
        if lost > 0 {
            eprintln!("sipguard: {lost} packets since the attach are in no event: too many came at once");
        }
        Ok(())
    }
}

/// The inode of the pin of the ring.
fn map(pins: &Pins) -> Option<u64> {
    std::fs::metadata(pins.map(names::EVENTS)).ok().map(|about| about.ino())
}

fn marked(event: &impl Serialize) -> String {
    let mut event = view::json(event);
    event["schema"] = SCHEMA.into();
    event.to_string()
}

/// Prints a line; false when nobody reads any more.
fn told(line: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
    }
}
