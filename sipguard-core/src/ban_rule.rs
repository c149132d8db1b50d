//! When a sender of malformed streams is banned, and for how long. Pure.

use std::time::Duration;

use sipguard_common::abi::BanPolicy;

use crate::duration::{self, parse_duration};

/// When a sender is banned, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanRule {
    /// Malformed TCP streams of one address and port that make a ban, 1 to 1000; 0 bans nobody.
    pub after: u32,
    /// Malformed TCP streams of one address, by any ports, 1 to 1000.
    pub address_after: u32,
    /// The time within which they come. This and the following have milliseconds, [`LONGEST`] at the most.
    pub within: Duration,
    /// How long the first ban is.
    pub first: Duration,
    /// How long a ban is at the most.
    pub longest: Duration,
    /// An address is banned only when nothing well-formed came from it for this time.
    pub quiet: Duration,
}

/// What holds when nobody says anything; a new store has it.
pub const DEFAULT: BanRule = BanRule {
    after: 3,
    address_after: 10,
    within: Duration::from_secs(30),
    first: Duration::from_secs(60),
    longest: Duration::from_secs(3600),
    quiet: Duration::from_secs(3600),
};

/// The longest that any of the times can be.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Most malformed streams that a ban can wait for.
pub const MOST_STREAMS: u32 = 1000;

impl BanRule {
    /// The kernel's form.
    #[must_use]
    pub fn policy(&self) -> BanPolicy {
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        BanPolicy {
            after: self.after,
            address_after: self.address_after,
            within_ns: ns(self.within),
            first_ns: ns(self.first),
            longest_ns: ns(self.longest),
            quiet_ns: ns(self.quiet),
            addresses_from_ns: 0,
        }
    }

    /// From the kernel's form.
    #[must_use]
    pub fn of(policy: &BanPolicy) -> BanRule {
        BanRule {
            after: policy.after,
            address_after: policy.address_after,
            within: Duration::from_nanos(policy.within_ns),
            first: Duration::from_nanos(policy.first_ns),
            longest: Duration::from_nanos(policy.longest_ns),
            quiet: Duration::from_nanos(policy.quiet_ns),
        }
    }

    /// Each setting by its key in the configuration file, with its value for people.
    #[must_use]
    pub(crate) fn by_key(&self) -> [(&'static str, String); 7] {
        let span = duration::shown;
        let after = if self.after == 0 { "none".to_owned() } else { self.after.to_string() };
        [
            ("enabled", (self.after != 0).to_string()),
            ("after", after),
            ("address-after", self.address_after.to_string()),
            ("within", span(self.within)),
            ("first", span(self.first)),
            ("longest", span(self.longest)),
            ("quiet", span(self.quiet)),
        ]
    }
}

/// What an operator wants of it. What is not wanted stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanRequest {
    /// Whether anybody is banned.
    pub enabled: Option<bool>,
    /// As in [`BanRule`], and never 0; so the following.
    pub after: Option<u32>,
    /// Of one address.
    pub address_after: Option<u32>,
    /// The time within which they come.
    pub within: Option<Duration>,
    /// The first ban.
    pub first: Option<Duration>,
    /// The longest.
    pub longest: Option<Duration>,
    /// How long nothing well-formed came.
    pub quiet: Option<Duration>,
}

impl BanRequest {
    /// What comes of it where something holds. The first ban may come out longer than the longest.
    #[must_use]
    pub fn of(&self, old: &BanRule) -> BanRule {
        let some = |after: u32| if after == 0 { DEFAULT.after } else { after };
        let after = match (self.enabled, self.after) {
            (Some(false), _) => 0,
            (Some(true), None) => some(old.after),
            (_, Some(after)) => after,
            (None, None) => old.after,
        };
        BanRule {
            after,
            address_after: self.address_after.unwrap_or(old.address_after),
            within: self.within.unwrap_or(old.within),
            first: self.first.unwrap_or(old.first),
            longest: self.longest.unwrap_or(old.longest),
            quiet: self.quiet.unwrap_or(old.quiet),
        }
    }
}

/// One of the times, in milliseconds.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?.0.filter(|span| (Duration::from_millis(1)..=LONGEST).contains(span));
    let span = span.ok_or_else(|| format!("`{text}`: it is a time from 1ms to 30d, such as 60s"))?;
    Ok(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(parse_span("30d"), Ok(LONGEST));
        assert_eq!(parse_span("1.0005"), Ok(Duration::from_secs(1)));
        for text in ["permanent", "31d", "0.0001", "soon", ""] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn off_is_a_wish_of_its_own() {
        let off = BanRule { after: 0, ..DEFAULT };
        let request = |enabled, after| BanRequest { enabled, after, ..BanRequest::default() };
        for (request, old, after) in [
            (request(None, None), off, 0),
            (request(None, Some(5)), off, 5),
            (request(Some(true), None), off, 3),
            (request(Some(true), None), BanRule { after: 7, ..DEFAULT }, 7),
            (request(Some(true), Some(5)), off, 5),
            (request(Some(false), Some(5)), DEFAULT, 0),
        ] {
            assert_eq!(request.of(&old).after, after, "{request:?}");
        }
        assert_eq!(BanRule::of(&DEFAULT.policy()), DEFAULT);
    }
}
