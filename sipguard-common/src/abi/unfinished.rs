//! How many messages a source or a trunk has begun on TCP connections and not finished. The count forgets by itself: it is kept by spans of
//! time, and a message is counted in the span in which it began, until that span is older than a message may take. So whatever was not
//! subtracted, as that of a connection that was evicted, is gone then.

use bytemuck::{Pod, Zeroable};

use super::ConnectionOwner;

/// Entries of `UNFINISHED`. An owner has two possible slots; where other owners occupy both, its messages are not counted.
pub const UNFINISHED_ENTRIES: u32 = 1 << 13;
/// Spans of time that are told apart. All but one of them together are as long as a message may take.
pub const UNFINISHED_SPANS: usize = 8;
/// Bits of a word of [`Unfinished::spans`] that are the count; the others are the number of the span, which never comes again.
pub const UNFINISHED_COUNT_BITS: u32 = 24;
/// How long a message is counted where its time is not limited, in milliseconds.
pub const UNLIMITED_MS: u32 = 30_000;

/// Unfinished messages of an owner.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Unfinished {
    /// [`ConnectionOwner::tag`] of the owner; 0 when nobody ever had the entry.
    pub tag: u64,
    /// Address of the source, IPv4 mapped; of IPv6 its /64, of a trunk's peer zero.
    pub remote: [u32; 4],
    /// Index of the trunk, or 0; of a source behind a balancer that of the balancer, by whose limits its messages are judged.
    pub trunk: u32,
    /// Zero.
    pub pad: u32,
    /// Messages by the span in which they began: its number above [`UNFINISHED_COUNT_BITS`] of a word, and below it how many.
    pub spans: [u64; UNFINISHED_SPANS],
}

/// The number of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(u64);

/// The part of a word that is the count.
const COUNT: u64 = (1 << UNFINISHED_COUNT_BITS) - 1;

impl Span {
    /// The span of a time in nanoseconds, where a message may take `message_ms`; 0 is no limit.
    #[must_use]
    #[inline(always)]
    pub const fn of(time_ns: u64, message_ms: u32) -> Span {
        let ms = if message_ms == 0 { UNLIMITED_MS } else { message_ms };
        let length_ns = ms as u64 * 1_000_000 / (UNFINISHED_SPANS as u64 - 1);
        Span(time_ns / length_ns)
    }

    /// Its number, by which [`Unfinished::spans`] knows it.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Index in [`Unfinished::spans`] of its word.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize & (UNFINISHED_SPANS - 1)
    }

    /// How many messages a word counts that began no longer ago than a message may take, when this is the span of now.
    #[must_use]
    #[inline(always)]
    pub const fn count(self, word: u64) -> u32 {
        let age = self.0.wrapping_sub(word >> UNFINISHED_COUNT_BITS);
        if age < UNFINISHED_SPANS as u64 { (word & COUNT) as u32 } else { 0 }
    }

    /// The word of this span with one message more; `None` when it is full, or of a later span by now.
    #[must_use]
    #[inline(always)]
    pub const fn one_more(self, word: u64) -> Option<u64> {
        let span = word >> UNFINISHED_COUNT_BITS;
        if span < self.0 {
            return Some(self.0 << UNFINISHED_COUNT_BITS | 1);
        }
        if span > self.0 || word & COUNT == COUNT { None } else { Some(word + 1) }
    }
}

/// Where a message is counted, [`super::Flow::unfinished`]: the slot in `UNFINISHED` plus one, and above 16 bits the lowest bits of its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u32);

impl Ticket {
    /// Of a slot in `UNFINISHED` and a span.
    #[must_use]
    #[inline(always)]
    pub const fn new(slot: u32, span: Span) -> Ticket {
        Ticket((slot + 1) | ((span.0 as u32) << 16))
    }

    /// The slot.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 & 0xffff).wrapping_sub(1)
    }

    /// Index in [`Unfinished::spans`] of its word.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> usize {
        (self.0 >> 16) as usize & (UNFINISHED_SPANS - 1)
    }

    /// The word of its span with one message less; `None` when the word is of another span by now, or counts nothing.
    #[must_use]
    #[inline(always)]
    pub const fn one_less(self, word: u64) -> Option<u64> {
        let is_its = (word >> UNFINISHED_COUNT_BITS) as u32 & 0xffff == self.0 >> 16;
        if is_its && word & COUNT != 0 { Some(word - 1) } else { None }
    }
}

impl Unfinished {
    /// The owner's messages when `now` is the span of now.
    #[must_use]
    #[inline(always)]
    pub fn count(&self, now: Span) -> u32 {
        self.spans.iter().map(|word| now.count(*word)).sum()
    }
}

impl ConnectionOwner {
    /// The two possible slots in `UNFINISHED`.
    #[must_use]
    #[inline(always)]
    pub const fn unfinished_slots(self) -> [u32; 2] {
        self.places(UNFINISHED_ENTRIES)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Counts a message that begins at a time.
    fn begin(entry: &mut Unfinished, time_ns: u64, message_ms: u32) -> Ticket {
        let span = Span::of(time_ns, message_ms);
        entry.spans[span.index()] = span.one_more(entry.spans[span.index()]).unwrap();
        Ticket::new(4711, span)
    }

    fn end(entry: &mut Unfinished, ticket: Ticket) {
        let word = &mut entry.spans[ticket.index()];
        *word = ticket.one_less(*word).unwrap_or(*word);
    }

    #[test]
    fn what_is_begun_and_ended_leaves_nothing() {
        let mut entry = Unfinished::zeroed();
        let mut open = Vec::new();
        for number in 0..10_000u64 {
            let now_ns = 77 * SECOND + number * SECOND / 50;
            open.push(begin(&mut entry, now_ns, 30_000));
            assert_eq!(open.last().unwrap().slot(), 4711);
            if open.len() > 100 {
                end(&mut entry, open.swap_remove(number as usize * 7 % 100));
            }
            // One that was left for longer than it may take is counted no more.
            assert!(entry.count(Span::of(now_ns, 30_000)) as usize <= open.len());
        }
        open.drain(..).for_each(|ticket| end(&mut entry, ticket));
        assert!(entry.spans.iter().all(|word| word & COUNT == 0));
    }

    #[test]
    fn the_count_is_exact_while_no_message_is_too_old() {
        let mut entry = Unfinished::zeroed();
        let mut open = VecDeque::new();
        for number in 0..20_000u64 {
            let now_ns = 3 * SECOND + number * SECOND / 10;
            open.push_back((now_ns, begin(&mut entry, now_ns, 30_000)));
            while open.front().is_some_and(|(began_ns, _)| now_ns - began_ns > 29 * SECOND) {
                end(&mut entry, open.pop_front().unwrap().1);
            }
            assert_eq!(entry.count(Span::of(now_ns, 30_000)) as usize, open.len(), "{number}");
        }
    }

    #[test]
    fn what_is_never_ended_is_forgotten_and_not_before_its_time() {
        for message_ms in [0, 1, 7, 2000, 30_000, 3_600_000] {
            let longest = u64::from(if message_ms == 0 { UNLIMITED_MS } else { message_ms }) * 1_000_000;
            for begins in (0..50).map(|part| 100_000 * SECOND + longest * part / 9) {
                let mut entry = Unfinished::zeroed();
                let ticket = begin(&mut entry, begins, message_ms);
                let after = |ns: u64| entry.count(Span::of(begins + ns, message_ms));
                assert_eq!((after(0), after(longest - 1)), (1, 1), "{message_ms}");
                assert_eq!(after(longest + longest / 5 + 8), 0, "{message_ms}");
                // A place that another span has by now is not touched.
                let later = begins + longest / 7 * UNFINISHED_SPANS as u64;
                begin(&mut entry, later, message_ms);
                let before = entry;
                end(&mut entry, ticket);
                assert_eq!(entry, before);
            }
        }
    }

    #[test]
    fn a_message_that_began_long_ago_takes_nothing_from_later_ones() {
        let mut entry = Unfinished::zeroed();
        let spans = UNFINISHED_SPANS as u64;
        for later in [0, 1, spans - 1, spans, spans + 1, 3 * spans] {
            let now = Span(1000 + later);
            entry.spans[now.index()] = now.one_more(entry.spans[now.index()]).unwrap();
            let before = entry.count(now);
            let old = Span(1000);
            let word = &mut entry.spans[old.index()];
            *word = old.one_more(*word).unwrap_or(*word);
            assert!(entry.count(now) >= before, "{later}");
        }
    }

    #[test]
    fn a_span_counts_no_more_than_its_bits_hold() {
        let span = Span::of(SECOND, 30_000);
        let full = (0..COUNT).fold(0, |word, _| span.one_more(word).unwrap());
        assert_eq!((u64::from(span.count(full)), span.one_more(full)), (COUNT, None));
    }
}
