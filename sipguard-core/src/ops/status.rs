//! `status`: what is attached, how, and why so.

use anyhow::Result;

use super::Context;
use crate::error::{Failure, FailureKind};
pub use crate::status::{GuardStatus, InterfaceStatus, MonitoredLimit, Weakness};

/// Reads the state of the guard, of one interface or of all.
///
/// # Errors
/// When no guard is attached, or not to that interface; when a map or rtnetlink can't be read.
pub fn run(host: &Context, interface: Option<&str>) -> Result<GuardStatus> {
    host.pins.check()?;
    let mut report = crate::status::read(&host.pins, &host.store)?;
    if let Some(name) = interface {
        report.interfaces.retain(|interface| interface.name == name);
        if report.interfaces.is_empty() {
            let text = format!("sipguard is not attached to `{name}`");
            return Err(Failure::with(FailureKind::NotAttached, text));
        }
    }
    Ok(report)
}

/// Fails when nothing is filtered on one of the interfaces any more.
///
/// # Errors
/// [`FailureKind::NotAttached`] with their names and the remedy.
pub fn expect_filtering(report: &GuardStatus) -> Result<()> {
    let gone: Vec<&str> =
        report.interfaces.iter().filter(|one| one.is_gone()).map(|one| one.name.as_str()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let names = gone.join(" ");
    let text = format!(
        "nothing is filtered on {names}: `sipguard attach {names}` guards it, `sipguard detach {names}` forgets it"
    );
    Err(Failure::with(FailureKind::NotAttached, text))
}
