//! `sipguard counters`

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::counters::{self, CounterReading, CounterRow, per_sec};
use crate::metrics::{self, Own};
use crate::offenders::{self, printable};
use crate::output::{Format, print, rows, table};
use crate::pins::Pins;

/// What the rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// Interface and reason
    #[default]
    Reason,
    /// Who sent what was malformed, with its first bytes
    Source,
    /// Trunk and reason
    Trunk,
}

/// Forms of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CounterFormat {
    /// For people
    Table,
    /// One JSON object
    Json,
    /// OpenMetrics text for Prometheus
    Prometheus,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the rows are
    #[arg(long, value_enum, default_value_t)]
    by: By,

    /// What comes in a second, measured over about one, instead of all since the attach
    #[arg(long, conflicts_with = "by")]
    rate: bool,

    /// How to print; instead of `--output`
    #[arg(long, value_enum, conflicts_with_all = ["output", "json"])]
    format: Option<CounterFormat>,
}

pub fn run(pins: &Pins, path: &Path, output: Format, args: &Args) -> Result<()> {
    pins.check()?;
    let format = match args.format {
        Some(CounterFormat::Prometheus) => return prometheus(pins, path),
        Some(CounterFormat::Json) => Format::Json,
        Some(CounterFormat::Table) => Format::Table,
        None => output,
    };
    if args.by == By::Source {
        return by_source(pins, format);
    }
    if args.by == By::Trunk {
        let mut counted = Vec::new();
        for trunk in super::trunk::stored(path)? {
            counted.extend(counters::of_trunk(pins, &trunk)?);
        }
        let values = counted.iter().map(json_of_trunk).collect();
        return rows(format, "sipguard.trunk-counters/1", values, || trunk_table(&counted));
    }
    let counted = CounterReading::now(pins)?;
    if args.rate {
        return rates(pins, format, &counted);
    }
    let counted = counted.rows;
    let head = ["INTERFACE", "REASON", "ACTION", "PACKETS", "BYTES"];
    let values = counted.iter().map(json_of).collect();
    rows(format, "sipguard.counters/1", values, || table(&head, counted.iter().map(line)))
}

/// What is counted in about a second, divided by the time that it really was.
fn rates(pins: &Pins, format: Format, before: &CounterReading) -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    pins.check()?;
    let (span, counted) = CounterReading::now(pins)?.since(before);
    let value = |row: &CounterRow| {
        let mut value = json_of(row);
        value["seconds"] = thousandths(span.as_secs_f64());
        value["packets_per_second"] = thousandths(per_sec(row.packets, span));
        value["bytes_per_second"] = thousandths(per_sec(row.bytes, span));
        value
    };
    rows(format, "sipguard.rates/1", counted.iter().map(value).collect(), || {
        let head = ["INTERFACE", "REASON", "ACTION", "PACKETS/S", "BYTES/S"];
        let rates =
            |row: &CounterRow| [row.packets, row.bytes].map(|count| format!("{:.1}", per_sec(count, span)));
        let line = |row: &CounterRow| line(row).into_iter().take(3).chain(rates(row)).collect();
        table(&head, counted.iter().map(line))
    })
}

fn thousandths(number: f64) -> Value {
    ((number * 1000.0).round() / 1000.0).into()
}

fn json_of(row: &CounterRow) -> Value {
    json!({
        "interface": row.interface, "reason": row.reason.name(), "action": row.action.name(),
        "packets": row.packets, "bytes": row.bytes,
    })
}

/// The JSON form of a trunk's counter.
pub fn json_of_trunk(row: &CounterRow) -> Value {
    json!({
        "trunk": row.interface, "reason": row.reason.name(), "action": row.action.name(), "packets": row.packets,
        "bytes": row.bytes,
    })
}

/// Counters of trunks, for people.
pub fn trunk_table(counted: &[CounterRow]) -> String {
    table(&["TRUNK", "REASON", "ACTION", "PACKETS", "BYTES"], counted.iter().map(line))
}

fn line(row: &CounterRow) -> Vec<String> {
    let (reason, action) = (row.reason.name().to_owned(), row.action.name().to_owned());
    vec![row.interface.clone(), reason, action, row.packets.to_string(), row.bytes.to_string()]
}

fn prometheus(pins: &Pins, path: &Path) -> Result<()> {
    let stored = metrics::Stored::read(path);
    let stored = stored.inspect_err(|error| {
        // What the kernel counts is told also when the store can't be read.
        eprintln!("sipguard: the counters of trunks and the number of blocks are left out: {error:#}");
    });
    let kernel = metrics::Kernel::read(pins, &metrics::Sizes::read(pins, path)?, stored.ok().as_ref())?;
    print(&metrics::text(Some(&kernel), &Own::default())?)
}

fn by_source(pins: &Pins, format: Format) -> Result<()> {
    let offenders = offenders::read(pins)?;
    let value = |row: &offenders::OffenderRow| {
        json!({
            "address": row.address.to_string(), "port": row.port, "reason": row.reason.name(), "packets": row.packets,
            "first_seen": row.first_seen.map(|seen| seen.to_string()),
            "last_seen": row.last_seen.map(|seen| seen.to_string()),
            "sample_hex": row.sample.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "sample": printable(&row.sample),
        })
    };
    rows(format, "sipguard.sources/1", offenders.iter().map(value).collect(), || {
        let head = ["ADDRESS", "PORT", "REASON", "PACKETS", "LAST SEEN", "FIRST BYTES"];
        let line = |row: &offenders::OffenderRow| {
            let last = row.last_seen.map(|seen| seen.to_string()).unwrap_or_default();
            let (address, port) = (row.address.to_string(), row.port.to_string());
            vec![
                address,
                port,
                row.reason.name().to_owned(),
                row.packets.to_string(),
                last,
                printable(&row.sample),
            ]
        };
        table(&head, offenders.iter().map(line))
    })
}
