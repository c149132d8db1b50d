//! Limits as operators write them: of what, how much, and whether what is over is stopped or only counted. Pure.

use std::fmt;

use sipguard_common::Reason;
use sipguard_common::abi::{AT_ONCE_KINDS, RATE_KINDS, RATE_REASONS, Rate};

use crate::rule::RuleMode;

/// What there may be so many of at once, in the order of [`AT_ONCE_KINDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtOnce {
    /// Open TCP connections.
    Open,
    /// Messages on TCP connections that have begun and are not finished.
    Unfinished,
}

impl AtOnce {
    /// Every one.
    pub const ALL: [AtOnce; 2] = [AtOnce::Open, AtOnce::Unfinished];

    /// Its name on the command line and in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        AT_ONCE_KINDS[self as usize].0
    }

    /// The reason of what is over its limit.
    #[must_use]
    pub const fn reason(self) -> Reason {
        AT_ONCE_KINDS[self as usize].1
    }

    /// What is counted, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            AtOnce::Open => "open connections",
            AtOnce::Unfinished => "unfinished messages",
        }
    }

    /// What each source may have in a new store.
    #[must_use]
    pub const fn default(self) -> Option<u32> {
        match self {
            AtOnce::Open => None,
            AtOnce::Unfinished => Some(DEFAULT_UNFINISHED),
        }
    }
}

/// How many messages a source may have begun and not finished. A whole office behind one address does not come near: a message in several
/// segments is unfinished for the gap between two, or where one is lost for the second until TCP repeats it. Of 1,000 phones that register at
/// once with one segment in ten lost, that are 100. Beyond it no message is hurt: a new connection waits for its SYN's repetition.
pub(crate) const DEFAULT_UNFINISHED: u32 = 256;

/// Most a second.
const MOST_PER_SECOND: u32 = 1_000_000;
/// Most at once.
const MOST_BURST: u32 = 10_000_000;

/// Most that a limit of what there is at once lets a source or a trunk have.
pub const MOST_AT_ONCE: u32 = 1_000_000;

/// Behind a limit that only counts, where it is written as one text.
const MONITOR: &str = " monitor";

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// So many a second, by position in [`RATE_KINDS`].
    Rate(usize),
    /// So many at once.
    AtOnce(AtOnce),
}

impl LimitKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = LimitKind> {
        (0..RATE_KINDS.len()).map(LimitKind::Rate).chain(AtOnce::ALL.map(LimitKind::AtOnce))
    }

    /// Its name on the command line and in the configuration file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LimitKind::Rate(kind) => RATE_KINDS[kind],
            LimitKind::AtOnce(kind) => kind.name(),
        }
    }

    /// The reason of what is over it.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            LimitKind::Rate(kind) => RATE_REASONS[kind],
            LimitKind::AtOnce(kind) => kind.reason(),
        }
    }

    /// The kind whose limit has a reason; `None` of a reason that is no limit's.
    #[must_use]
    pub fn of_reason(reason: Reason) -> Option<LimitKind> {
        LimitKind::all().find(|kind| kind.reason() == reason)
    }

    /// Its bit in a set of limits that only count; none of a limit that is enforced.
    #[must_use]
    pub(crate) fn bit_in(self, mode: RuleMode) -> u32 {
        if mode == RuleMode::Monitor { self.reason().limit_bit() } else { 0 }
    }

    /// The mode of a limit in a set of those that only count.
    #[must_use]
    pub(crate) fn mode_in(self, monitored: u32) -> RuleMode {
        if monitored & self.reason().limit_bit() == 0 { RuleMode::Enforce } else { RuleMode::Monitor }
    }
}

/// A limit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many a second on average, 1 to 1,000,000.
    pub per_second: u32,
    /// How many at once, 1 to 10,000,000.
    pub burst: u32,
    /// Whether what is over it is stopped.
    pub mode: RuleMode,
}

/// A limit of what there is at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnceMost {
    /// How many at once, 1 to 1,000,000.
    pub most: u32,
    /// Whether what is over it is stopped.
    pub mode: RuleMode,
}

impl RateLimit {
    /// The kernel's form, without the mode.
    #[must_use]
    pub fn rate(&self) -> Rate {
        Rate::new(self.per_second, self.burst)
    }
}

/// As it is written in the configuration file: `20/s burst 40`, or `20/s burst 40 monitor`.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s burst {}{}", self.per_second, self.burst, mode_text(self.mode))
    }
}

/// `500 at once`, or `500 at once monitor`.
impl fmt::Display for AtOnceMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at once{}", self.most, mode_text(self.mode))
    }
}

const fn mode_text(mode: RuleMode) -> &'static str {
    match mode {
        RuleMode::Enforce => "",
        RuleMode::Monitor => MONITOR,
    }
}

/// Takes the mode from the end of a limit that is written as one text, such as `20/s burst 40 monitor` or `500 monitor`. What is before it is
/// not looked at.
#[must_use]
pub fn split_mode(text: &str) -> (&str, RuleMode) {
    match text.strip_suffix(MONITOR) {
        Some(limit) => (limit, RuleMode::Monitor),
        None => (text, RuleMode::Enforce),
    }
}

/// Reads `20/s`, or `20/s burst 40`: how many a second and how many at once, without a burst twice as many as a second has.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(text: &str, mode: RuleMode) -> Result<RateLimit, String> {
    let wrong = || {
        format!(
            "`{text}` is no limit: write such as 20/s, or 20/s burst 40 (1 to {MOST_PER_SECOND} a second)"
        )
    };
    let in_range = |word: &str, most: u32| word.parse().ok().filter(|count| (1..=most).contains(count));
    let mut words = text.split_whitespace();
    let per_second = words.next().and_then(|word| word.strip_suffix("/s"));
    let per_second = per_second.and_then(|word| in_range(word, MOST_PER_SECOND)).ok_or_else(wrong)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => per_second * 2,
        (Some("burst"), Some(count), None) => in_range(count, MOST_BURST).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(RateLimit { per_second, burst, mode })
}

/// Reads `500`: how many at once; `None` where it is no number from 1 to [`MOST_AT_ONCE`].
#[must_use]
pub fn parse_at_once(text: &str, mode: RuleMode) -> Option<AtOnceMost> {
    let most = text.parse().ok().filter(|most| (1..=MOST_AT_ONCE).contains(most))?;
    Some(AtOnceMost { most, mode })
}

/// The text of a limit; `none` for none.
#[must_use]
pub fn text<T: fmt::Display>(limit: Option<T>) -> String {
    limit.map_or("none".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let rate = |per_second, burst, mode| RateLimit { per_second, burst, mode };
        let parse = |text| parse(text, RuleMode::Enforce);
        assert_eq!(parse("20/s"), Ok(rate(20, 40, RuleMode::Enforce)));
        assert_eq!(parse("20/s burst 7"), Ok(rate(20, 7, RuleMode::Enforce)));
        for wrong in
            ["", "20", "0/s", "1000001/s", "20/s burst", "20/s burst 0", "20/s bust 7", "20/s burst 7 8"]
        {
            assert!(parse(wrong).unwrap_err().contains("is no limit"), "{wrong}");
        }
        for limit in [rate(20, 40, RuleMode::Monitor), rate(1, 10_000_000, RuleMode::Enforce)] {
            let text = text(Some(limit));
            let (most, mode) = split_mode(&text);
            assert_eq!(super::parse(most, mode), Ok(limit), "{text}");
        }
        assert_eq!(split_mode("monitor"), ("monitor", RuleMode::Enforce));
        assert_eq!(split_mode("7 monitor"), ("7", RuleMode::Monitor));
        assert_eq!(parse_at_once("0", RuleMode::Enforce), None);
        let most = parse_at_once("1000000", RuleMode::Monitor);
        assert_eq!(most, Some(AtOnceMost { most: 1_000_000, mode: RuleMode::Monitor }));
        assert_eq!(text(most), "1000000 at once monitor");
        assert_eq!(text(None::<RateLimit>), "none");
    }

    #[test]
    fn each_kind_has_a_reason_and_no_other_kind_has_its_bit() {
        for kind in LimitKind::all() {
            assert_eq!(LimitKind::of_reason(kind.reason()), Some(kind));
            for other in LimitKind::all() {
                let mode = if other == kind { RuleMode::Monitor } else { RuleMode::Enforce };
                assert_eq!(other.mode_in(kind.bit_in(RuleMode::Monitor)), mode, "{other:?} of {kind:?}");
                assert_eq!(other.mode_in(kind.bit_in(RuleMode::Enforce)), RuleMode::Enforce);
            }
        }
        assert_eq!(LimitKind::of_reason(Reason::Valid), None);
    }
}
