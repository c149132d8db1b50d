//! `status`: what is attached, how, and why so.

use anyhow::Result;

use super::Context;
use crate::container;
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

/// Fails when nothing is filtered on one of the interfaces any more, or when one is not there.
///
/// # Errors
/// [`FailureKind::NotAttached`], or where all that are there are filtered [`FailureKind::Absent`], with their names and the remedy.
pub fn expect_filtering(report: &GuardStatus) -> Result<()> {
    let names = |is: fn(&InterfaceStatus) -> bool| {
        let found = report.interfaces.iter().filter(|one| is(one)).map(|one| one.name.as_str());
        found.collect::<Vec<_>>().join(" ")
    };
    let (gone, absent) = (names(InterfaceStatus::is_gone), names(InterfaceStatus::is_absent));
    let option = container::option();
    if !gone.is_empty() {
        let text = format!(
            "nothing is filtered on {gone}: `sipguard attach{option} {gone}` guards it, `sipguard detach{option} {gone}` forgets it"
        );
        return Err(Failure::with(FailureKind::NotAttached, text));
    }
    if absent.is_empty() {
        return Ok(());
    }
    let text = format!(
        "not there now: {absent}; when it comes, `sipguard attach{option} {absent}` guards it (as the systemd unit does), `sipguard detach{option} {absent}` forgets it"
    );
    Err(Failure::with(FailureKind::Absent, text))
}
