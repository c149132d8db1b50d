//! Blocks and allowances: `block`, `unblock`, `allow` and `unallow` are one operation of two kinds.
//!
//! Whom a block may not hit is decided in `protection.rs` alone, whoever asks: the command line, `top`, `import`, or the recorder of crashes.

mod lift;
mod protection;
mod set;

use super::Context;
pub use lift::{LiftRules, Whose, lift};
pub(crate) use protection::why_in_store;
pub use protection::{OnProtected, Protection, WhyProtected};
pub use set::{HeldBack, RulesSet, SetRules, set};

use crate::maps;
use crate::settings::{DEFAULT_PORT, DEFAULT_TLS_PORT};

/// Ports that a device is known by: those that are guarded, and those that SIP has nearly everywhere.
#[must_use]
pub fn device_ports(host: &Context) -> Vec<u16> {
    let guarded = host.is_attached().then(|| maps::ports(&host.pins).ok()).flatten().unwrap_or_default();
    let known = [DEFAULT_PORT, DEFAULT_TLS_PORT, 5080];
    known.into_iter().chain(guarded.sip).chain(guarded.tls).collect()
}
