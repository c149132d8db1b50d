//! What packets are stopped for, in one word each.

use crate::reason::{Class, Reason};

/// What a packet was stopped for: the lines of the dashboard's plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its sender's data is malformed.
    Malformed,
    /// Its sender is blocked or banned.
    Blocked,
    /// Its sender sends more, or takes longer, than a limit lets it.
    Limited,
    /// Its sender may not send this, or not by this transport.
    Denied,
    /// Headers, fragments or order of IP, TCP and UDP, ordinary loss and damage among them.
    Transport,
}

impl Cause {
    /// Every cause, in the order in which they are shown.
    pub const ALL: [Cause; 5] =
        [Cause::Malformed, Cause::Blocked, Cause::Limited, Cause::Denied, Cause::Transport];

    /// Its name in JSON and in the dashboard.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::Blocked => "blocked",
            Cause::Limited => "limited",
            Cause::Denied => "denied",
            Cause::Transport => "transport",
        }
    }
}

impl Reason {
    /// What it stops a packet for; `None` for a reason that stops none.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        Some(match self {
            Reason::TransportDenied | Reason::MethodDenied => Cause::Denied,
            Reason::BlockedIdentity | Reason::BlockedUserAgent => Cause::Blocked,
            Reason::SlowMessage => Cause::Limited,
            _ if self.is_of_sender() => Cause::Blocked,
            _ if self.is_limit() => Cause::Limited,
            _ => match self.class() {
                Class::Pass => return None,
                Class::Malformed => Cause::Malformed,
                Class::Drop | Class::Reset => Cause::Transport,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stops_a_packet_has_a_cause() {
        for reason in Reason::ALL {
            let name = reason.name();
            let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
            let expected = match reason.class() {
                Class::Pass => None,
                Class::Malformed => Some(Cause::Malformed),
                _ if begins(&["blocked-", "banned-"]) => Some(Cause::Blocked),
                _ if begins(&["rate-", "open-", "unfinished-", "slow-"]) => Some(Cause::Limited),
                _ if name.ends_with("-denied") => Some(Cause::Denied),
                _ => Some(Cause::Transport),
            };
            assert_eq!(reason.cause(), expected, "{name}");
        }
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index, "{}", cause.name());
        }
    }
}
