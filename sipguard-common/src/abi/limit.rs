//! The limits of a sender, of either kind: rates, and what there may be so much of at once.

use super::RATE_KINDS;
use crate::Reason;

/// The reason of what is over a rate, by position in [`RATE_KINDS`].
pub const RATE_REASONS: [Reason; RATE_KINDS.len()] = [
    Reason::RatePackets,
    Reason::RateMessages,
    Reason::RateRegister,
    Reason::RateInvite,
    Reason::RateConnections,
];

/// What is limited at once, and the reason of what is over it: open TCP connections, and messages that have begun on them and are not
/// finished.
pub const AT_ONCE_KINDS: [(&str, Reason); 2] =
    [("open", Reason::OpenConnections), ("unfinished", Reason::UnfinishedMessages)];

impl Reason {
    /// The bit of its limit in [`super::Settings::monitored_limits`] and [`super::Trunk::monitored_limits`]; of a reason that is no limit's
    /// some other bit, or none.
    #[must_use]
    #[inline(always)]
    pub const fn limit_bit(self) -> u32 {
        let position = self.number().wrapping_sub(Reason::RatePackets.number());
        if position < 32 { 1 << position } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_a_reason_and_a_bit_of_its_own() {
        let limits = || RATE_REASONS.into_iter().chain(AT_ONCE_KINDS.map(|(_, reason)| reason));
        let mut all = 0;
        for reason in limits() {
            assert!(reason.is_limit(), "{}", reason.name());
            assert_eq!(reason.limit_bit().count_ones(), 1, "{}", reason.name());
            assert_eq!(all & reason.limit_bit(), 0, "{}", reason.name());
            all |= reason.limit_bit();
        }
        for reason in Reason::ALL {
            assert_eq!(limits().any(|limit| limit == *reason), reason.is_limit(), "{}", reason.name());
        }
        for (kind, reason) in RATE_KINDS.iter().zip(RATE_REASONS) {
            assert_eq!(reason.name().strip_prefix("rate-"), Some(*kind));
        }
    }
}
