//! `counters`: what was counted, by reason, by sender or by trunk.

use std::time::Duration;

use anyhow::Result;

use super::{Context, trunk};
use crate::counters::{self, CounterReading};
pub use crate::counters::{CounterRow, per_sec};
use crate::offenders;
pub use crate::offenders::OffenderRow as Offender;
use crate::senders;
pub use crate::senders::{SenderRow, TalliedKind};

/// By interface and reason, zeros left out.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn by_reason(host: &Context) -> Result<Vec<CounterRow>> {
    host.pins.check()?;
    Ok(CounterReading::now(&host.pins)?.rows)
}

/// What was counted within about a second, by interface and reason.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The time that really passed.
    pub span: Duration,
    /// What was counted in it.
    pub rows: Vec<CounterRow>,
}

/// Counts for about a second.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn rates(host: &Context) -> Result<Rates> {
    host.pins.check()?;
    let before = CounterReading::now(&host.pins)?;
    std::thread::sleep(Duration::from_secs(1));
    host.pins.check()?;
    let (span, rows) = CounterReading::now(&host.pins)?.since(&before);
    Ok(Rates { span, rows })
}

/// By sender: who sent what was malformed, with its first bytes.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn by_sender(host: &Context) -> Result<Vec<Offender>> {
    host.pins.check()?;
    offenders::read(&host.pins)
}

/// Who sends how much of a kind, below every limit as well: the most lately first.
///
/// # Errors
/// When no guard is attached, or the store or a map can't be read.
pub fn of_senders(host: &Context, kind: TalliedKind) -> Result<Vec<SenderRow>> {
    host.pins.check()?;
    senders::read(&host.pins, &trunk::stored(host)?, kind)
}

/// By trunk and reason; `interface` of a row is the name of the trunk.
///
/// # Errors
/// When no guard is attached, or the store or a map can't be read.
pub fn by_trunk(host: &Context) -> Result<Vec<CounterRow>> {
    host.pins.check()?;
    let mut counted = Vec::new();
    for trunk in trunk::stored(host)? {
        counted.extend(counters::of_trunk(&host.pins, &trunk)?);
    }
    Ok(counted)
}
