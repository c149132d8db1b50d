//! A packet that may leave the guard.

use std::ops::Deref;

use super::frame;
use crate::tap::TapPacket;

/// A packet whose secrets are overwritten. What writes, sends or shows packets takes this, and nothing but [`RedactedPacket::new`] makes one:
///
/// ```
/// fn write(evidence: &mut sipguard_observe::evidence::Evidence, packet: &sipguard_observe::redact::RedactedPacket) {
///     let _name = evidence.take(packet, None);
/// }
/// ```
///
/// A packet as the kernel recorded it does not do:
///
/// ```compile_fail,E0308
/// fn write(evidence: &mut sipguard_observe::evidence::Evidence, packet: &sipguard_observe::tap::TapPacket) {
///     let _name = evidence.take(packet, None);
/// }
/// ```
///
/// And nobody else makes one of it:
///
/// ```compile_fail,E0423
/// fn redact(packet: sipguard_observe::tap::TapPacket) -> sipguard_observe::redact::RedactedPacket {
///     sipguard_observe::redact::RedactedPacket(packet)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct RedactedPacket(TapPacket);

impl RedactedPacket {
    /// A copy of a packet without its secrets.
    #[must_use]
    pub fn new(packet: &TapPacket) -> RedactedPacket {
        let frame = frame(&packet.frame, packet.header.as_ref());
        RedactedPacket(TapPacket { frame, ..packet.clone() })
    }
}

impl Deref for RedactedPacket {
    type Target = TapPacket;

    fn deref(&self) -> &TapPacket {
        &self.0
    }
}
