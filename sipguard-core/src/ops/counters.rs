//! `counters`: what was counted, by reason, by sender or by trunk.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::{Context, trunk};
use crate::by_address;
pub use crate::by_address::{AddressRow, Standing};
use crate::counters::{self, CounterReading};
pub use crate::counters::{CounterRow, per_sec};
use crate::offenders;
pub use crate::offenders::OffenderRow as Offender;
use crate::protect;
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

/// By address: who sent what was malformed or over a limit, the most in the last 10 s first.
///
/// # Errors
/// When no guard is attached, or the store or a map can't be read.
pub fn by_address(host: &Context) -> Result<Vec<AddressRow>> {
    host.pins.check()?;
    by_address::read(&host.pins, &trunk::stored(host)?, &protect::protected())
}

/// What an address sent that was malformed or over a limit; `None` where that is nothing.
///
/// # Errors
/// As [`by_address()`].
pub fn of_address(host: &Context, address: IpAddr) -> Result<Option<AddressRow>> {
    Ok(by_address(host)?.into_iter().find(|row| row.address == address.to_canonical()))
}

/// By address, port and reason: the ports of whom [`by_address()`] gives, the latest first. What is over a limit has no port.
///
/// # Errors
/// When no guard is attached, or a map can't be read.
pub fn by_port(host: &Context) -> Result<Vec<Offender>> {
    host.pins.check()?;
    Ok(offenders::read(&host.pins)?.ports)
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
