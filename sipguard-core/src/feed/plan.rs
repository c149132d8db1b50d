//! The difference between what a feed says and what it has in force.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::address::Source;

/// Ends that are no further apart are the same: who tells them as a duration tells another one each time.
const SAME_END_MS: i64 = 2000;
/// Of fewer entries any change is usual.
const FEW: usize = 20;
/// So many new ones are usual for any feed.
const MANY: usize = 1000;
/// What part of a feed may go, or come, at once: one of so many.
const PART: usize = 2;

/// A block that a feed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DesiredBlock {
    /// Whom.
    pub source: Source,
    /// Its end (milliseconds since 1970), where the feed says one.
    pub end_ms: Option<i64>,
}

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Blocks that are new, or have another end.
    pub set: Vec<(Source, i64)>,
    /// How many of them are new.
    pub new: usize,
    /// Blocks that the feed does not have any more.
    pub gone: Vec<Source>,
    /// How many there were.
    pub before: usize,
}

/// Why a plan is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    gone: usize,
    new: usize,
    before: usize,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { gone, new, before } = self;
        write!(f, "of {before} entries {gone} would go, and {new} would come: more than half")
    }
}

/// What is to be done so that `before` (with ends) becomes `desired` (each once). What has no end of its own gets one between `keep` and twice
/// `keep` from now, and another one when less than `keep` is left: a feed that is not read any more loses nothing for `keep`, and then one
/// entry after the other, not all at once.
pub(crate) fn plan(
    before: &BTreeMap<Source, Option<i64>>,
    desired: &[DesiredBlock],
    keep: Duration,
    now_ms: i64,
) -> Plan {
    let keep_ms = ms(keep);
    let mut plan = Plan { before: before.len(), ..Plan::default() };
    for DesiredBlock { source, end_ms } in desired {
        let holds = before.get(source);
        let is_same = match (holds.copied().flatten(), end_ms) {
            (Some(old), Some(new)) => (old - new).abs() <= SAME_END_MS,
            (Some(old), None) => old - now_ms >= keep_ms,
            (None, _) => false,
        };
        if !is_same {
            plan.new += usize::from(holds.is_none());
            plan.set.push((*source, end_ms.unwrap_or_else(|| end_of(source, keep, now_ms))));
        }
    }
    // Both are in the same order.
    let mut desired = desired.iter().map(|block| block.source).peekable();
    for source in before.keys() {
        while desired.next_if(|other| other < source).is_some() {}
        if desired.peek() != Some(source) {
            plan.gone.push(*source);
        }
    }
    plan
}

/// When a block of a source ends that is confirmed now: not so soon that the next reading renews it.
fn end_of(source: &Source, keep: Duration, now_ms: i64) -> i64 {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let part = 64 + hasher.finish() % 961;
    let keep_ms = ms(keep);
    now_ms + keep_ms + keep_ms / 1024 * part.cast_signed()
}

fn ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 8)
}

impl Plan {
    /// Leaves out what is new beyond `room`; how many that are.
    pub(crate) fn fit(&mut self, before: &BTreeMap<Source, Option<i64>>, room: usize) -> usize {
        let left_out = self.new.saturating_sub(room);
        if left_out > 0 {
            let mut room = room;
            self.set.retain(|(source, _)| {
                let fits = before.contains_key(source) || room > 0;
                room -= usize::from(fits && !before.contains_key(source));
                fits
            });
            self.new -= left_out;
        }
        left_out
    }

    /// Whether it changes too much at once for a list that is alive.
    pub(crate) fn expect_usual(&self) -> Result<(), Refused> {
        let Plan { new, before, .. } = *self;
        let gone = self.gone.len();
        let loses = before >= FEW && gone > before / PART;
        let grows = before > 0 && new > MANY.max(before / PART);
        if loses || grows { Err(Refused { gone, new, before }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(1000);

    fn source(number: u32) -> Source {
        std::net::IpAddr::from((0xcb00_7100 + number).to_be_bytes()).into()
    }

    fn listed(numbers: impl Iterator<Item = u32>) -> Vec<DesiredBlock> {
        numbers.map(|number| DesiredBlock { source: source(number), end_ms: None }).collect()
    }

    fn applied(plan: &Plan, mut before: BTreeMap<Source, Option<i64>>) -> BTreeMap<Source, Option<i64>> {
        before.retain(|source, _| !plan.gone.contains(source));
        before.extend(plan.set.iter().map(|(source, end)| (*source, Some(*end))));
        before
    }

    #[test]
    fn only_the_difference_is_changed() {
        let first = plan(&BTreeMap::new(), &listed(0..100), KEEP, 0);
        assert_eq!((first.set.len(), first.new, first.gone.len()), (100, 100, 0));
        let held = applied(&first, BTreeMap::new());
        assert!(held.values().flatten().all(|end| (1_000_000..2_000_000).contains(end)));
        assert_eq!(plan(&held, &listed(0..100), KEEP, 0), Plan { before: 100, ..Plan::default() });
        let second = plan(&held, &listed(1..101), KEEP, 0);
        assert_eq!((second.set.len(), second.new, &*second.gone), (1, 1, &[source(0)][..]));
    }

    #[test]
    fn a_feed_that_is_not_read_any_more_fades() {
        let held = applied(&plan(&BTreeMap::new(), &listed(0..1000), KEEP, 0), BTreeMap::new());
        let left = |at: i64| held.values().flatten().filter(|end| **end > at).count();
        assert_eq!(left(999_999), 1000);
        assert!((350..650).contains(&left(1_500_000)), "{}", left(1_500_000));
        assert_eq!(left(2_000_000), 0);
        // One that is read has each entry renewed before its time.
        let (mut held, mut renewed) = (held, 0);
        for now_ms in (0..5_000_000).step_by(50_000) {
            let again = plan(&held, &listed(0..1000), KEEP, now_ms);
            assert!(again.gone.is_empty() && again.new == 0);
            renewed += again.set.len();
            held = applied(&again, held);
            assert!(held.values().flatten().all(|end| *end >= now_ms + 1_000_000));
        }
        assert!((5000..16_000).contains(&renewed), "{renewed} renewals of 1000 entries in five times `keep`");
    }

    #[test]
    fn an_end_that_the_feed_says_is_taken_and_its_jitter_is_not() {
        let block = |end_ms| [DesiredBlock { source: source(1), end_ms: Some(end_ms) }];
        let held = BTreeMap::from([(source(1), Some(50_000))]);
        assert!(plan(&held, &block(51_500), KEEP, 0).set.is_empty());
        assert_eq!(plan(&held, &block(60_000), KEEP, 0).set, [(source(1), 60_000)]);
        assert_eq!(plan(&BTreeMap::from([(source(1), None)]), &block(60_000), KEEP, 0).new, 0);
    }

    #[test]
    fn what_is_new_beyond_the_room_is_left_out() {
        let held = applied(&plan(&BTreeMap::new(), &listed(0..10), KEEP, 0), BTreeMap::new());
        // Those that there are are renewed, and what is gone goes, also where there is no room.
        let again = || plan(&held, &listed(5..20), KEEP, 1_500_000);
        let renewed = again().set.len() - again().new;
        for (room, left_out) in [(usize::MAX, 0), (10, 0), (3, 7), (0, 10)] {
            let mut plan = again();
            assert_eq!(plan.fit(&held, room), left_out);
            assert_eq!(
                (plan.new, plan.set.len(), plan.gone.len()),
                (10 - left_out, renewed + 10 - left_out, 5)
            );
        }
    }

    #[test]
    fn absurd_changes_are_refused() {
        let held = |count| applied(&plan(&BTreeMap::new(), &listed(0..count), KEEP, 0), BTreeMap::new());
        let usual = |before, desired: std::ops::Range<u32>| {
            plan(&held(before), &listed(desired), KEEP, 0).expect_usual().is_ok()
        };
        assert!(usual(0, 0..5000), "the first reading");
        assert!(usual(100, 50..100) && !usual(100, 51..100));
        assert!(usual(19, 18..19) && !usual(20, 18..20));
        assert!(usual(100, 0..1100) && !usual(100, 0..1101));
        assert!(usual(4000, 0..6000) && !usual(4000, 0..6001));
        let said = plan(&held(100), &listed(99..100), KEEP, 0).expect_usual().unwrap_err().to_string();
        assert_eq!(said, "of 100 entries 99 would go, and 0 would come: more than half");
    }
}
