//! `sipguard counters`

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::counters::{self, CounterReading, CounterRow, per_sec};
use crate::escape::escaped;
use crate::metrics::{self, Own};
use crate::offenders::{self, OffenderRow};
use crate::output::{Format, print, rows, table};
use crate::pins::Pins;
use crate::view::{self, CounterView, OffenderView, RateView, schema};

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
        let values = counted.iter().map(|row| view::json(&CounterView::of_trunk(row))).collect();
        return rows(format, schema::TRUNK_COUNTERS, values, || trunk_table(&counted));
    }
    let counted = CounterReading::now(pins)?;
    if args.rate {
        return rates(pins, format, &counted);
    }
    let counted = counted.rows;
    let head = ["INTERFACE", "REASON", "ACTION", "PACKETS", "BYTES"];
    let values = counted.iter().map(|row| view::json(&CounterView::of_interface(row))).collect();
    rows(format, schema::COUNTERS, values, || table(&head, counted.iter().map(line)))
}

/// What is counted in about a second, divided by the time that it really was.
fn rates(pins: &Pins, format: Format, before: &CounterReading) -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    pins.check()?;
    let (span, counted) = CounterReading::now(pins)?.since(before);
    let value = |row: &CounterRow| view::json(&RateView::of_interface(row, span));
    rows(format, schema::RATES, counted.iter().map(value).collect(), || {
        let head = ["INTERFACE", "REASON", "ACTION", "PACKETS/S", "BYTES/S"];
        let rates =
            |row: &CounterRow| [row.packets, row.bytes].map(|count| format!("{:.1}", per_sec(count, span)));
        let line = |row: &CounterRow| line(row).into_iter().take(3).chain(rates(row)).collect();
        table(&head, counted.iter().map(line))
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
    let value = |row: &OffenderRow| view::json(&OffenderView::of_row(row));
    rows(format, schema::OFFENDERS, offenders.iter().map(value).collect(), || {
        let head = ["ADDRESS", "PORT", "REASON", "PACKETS", "LAST SEEN", "FIRST BYTES"];
        let line = |row: &OffenderRow| {
            let last = row.last_seen.map(|seen| seen.to_string()).unwrap_or_default();
            let (address, port) = (row.address.to_string(), row.port.to_string());
            vec![
                address,
                port,
                row.reason.name().to_owned(),
                row.packets.to_string(),
                last,
                escaped(&row.sample),
            ]
        };
        table(&head, offenders.iter().map(line))
    })
}
