//! Rate limits of a sender: the generic cell rate algorithm (GCRA, ITU-T I.371), one 64-bit word per limit.

use bytemuck::{Pod, Zeroable};

use crate::framer::HashKeys;

/// What is limited, by position in [`Rates`].
pub const RATE_KINDS: [&str; 5] = ["packets", "messages", "register", "invite", "connections"];
/// Packets to guarded ports.
pub const PACKETS: usize = 0;
/// SIP messages that begin.
pub const MESSAGES: usize = 1;
/// REGISTER requests.
pub const REGISTERS: usize = 2;
/// INVITE requests.
pub const INVITES: usize = 3;
/// New TCP connections (complete handshakes).
pub const CONNECTIONS: usize = 4;

/// A limit: at most `burst` at once, then one each `interval_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Rate {
    /// Nanoseconds between two of them; 0 is no limit.
    pub interval_ns: u64,
    /// How far the theoretical arrival time may run ahead of the clock: `interval_ns * burst`.
    pub tolerance_ns: u64,
}

/// A limit of each kind.
pub type Rates = [Rate; RATE_KINDS.len()];

impl Rate {
    /// No limit.
    pub const NONE: Rate = Rate { interval_ns: 0, tolerance_ns: 0 };

    /// `per_second` on average, and `burst` at once. Both 1 to 1,000,000,000; 0 a second is no limit.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Rate {
        if per_second == 0 {
            return Rate::NONE;
        }
        let interval_ns = 1_000_000_000 / per_second as u64;
        let interval_ns = if interval_ns == 0 { 1 } else { interval_ns };
        Rate { interval_ns, tolerance_ns: interval_ns * burst as u64 }
    }

    /// The theoretical arrival time after `count` more at `now_ns`, or `None` when they are over the limit. `tat_ns` is the one
    /// before, 0 at first. More at once than the burst, as one segment may hold, conform when nothing is owed, and are owed then: else
    /// they never would, and the segment would come again and again.
    #[must_use]
    #[inline(always)]
    pub const fn admit(&self, tat_ns: u64, now_ns: u64, count: u32) -> Option<u64> {
        let start = if tat_ns > now_ns { tat_ns } else { now_ns };
        let cost = self.interval_ns.wrapping_mul(count as u64);
        let next = start.wrapping_add(cost);
        let most = if cost > self.tolerance_ns { cost } else { self.tolerance_ns };
        if next.wrapping_sub(now_ns) > most { None } else { Some(next) }
    }
}

/// What is tallied of a source or a trunk, by position in [`RateBucket::tallies`]: positions in [`RATE_KINDS`].
pub const TALLIED: [usize; 4] = [MESSAGES, REGISTERS, INVITES, CONNECTIONS];

/// How much of something came lately. A word: the number of a window of [`TALLY_NS`] above 40 bits, how many came in the window before it above 20
/// bits, and how many in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub u64);

/// Length of a window in nanoseconds: 10 s.
pub const TALLY_NS: u64 = 10_000_000_000;
/// Bits of a count in a [`Tally`], which stops there.
const TALLY_BITS: u32 = 20;
const TALLY_MOST: u64 = (1 << TALLY_BITS) - 1;

impl Tally {
    /// The window of a time in nanoseconds.
    #[must_use]
    #[inline(always)]
    pub const fn window(now_ns: u64) -> u64 {
        (now_ns / TALLY_NS) & 0xff_ffff
    }

    /// How many came in the window before `window`, and in it.
    #[inline(always)]
    const fn counts(self, window: u64) -> (u64, u64) {
        let (before, last) = ((self.0 >> TALLY_BITS) & TALLY_MOST, self.0 & TALLY_MOST);
        match window.wrapping_sub(self.0 >> (2 * TALLY_BITS)) & 0xff_ffff {
            0 => (before, last),
            1 => (last, 0),
            _ => (0, 0),
        }
    }

    /// With `count` more in a window.
    #[must_use]
    #[inline(always)]
    pub const fn more(self, window: u64, count: u32) -> Tally {
        let (before, last) = self.counts(window);
        let sum = last + count as u64;
        let last = if sum > TALLY_MOST { TALLY_MOST } else { sum };
        Tally((window << (2 * TALLY_BITS)) | (before << TALLY_BITS) | last)
    }

    /// About how many came in the last 10 s: those of the window at hand, and of the one before the part that is not older. What came in that one
    /// may have come all the time, or only in its end at the pace of the window at hand, as of a flood that began there: the greater holds.
    #[must_use]
    #[inline(always)]
    pub const fn lately(self, now_ns: u64) -> u64 {
        const WHOLE: u64 = TALLY_NS >> 20;
        let (before, last) = self.counts(Tally::window(now_ns));
        // Of the window at hand.
        let passed = (now_ns % TALLY_NS) >> 20;
        let part = before * (WHOLE - passed) / WHOLE;
        // Of so many, one interval less lies between them.
        let at_this_pace = last.saturating_sub(1) * (WHOLE - passed) / (passed | 1);
        let more = if part > at_this_pace { part } else { at_this_pace };
        last + if more < before { more } else { before }
    }
}

/// What a source or a trunk has used of its limits, and what came of it. Two cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RateBucket {
    /// Keyed hash of the source that occupies the entry; 0 when it is free.
    pub tag: u64,
    /// Well-formed messages on connections that the kernel has, since the last malformed one.
    pub trust: u64,
    /// Theoretical arrival times (`CLOCK_MONOTONIC`, nanoseconds), by kind.
    pub tat_ns: [u64; RATE_KINDS.len()],
    /// When the last well-formed message came from a source whose primary bucket this is (`CLOCK_MONOTONIC`, in units of 2^[`COARSE_SHIFT`] ns).
    pub last_well_formed: u32,
    /// Until when a source whose primary bucket this is, or a device of it, may be banned (`CLOCK_BOOTTIME`, in units of 2^[`COARSE_SHIFT`] ns); 0
    /// when none ever was.
    pub banned: u32,
    /// Address of the source, IPv4 mapped; of IPv6 its /64, of a trunk zero.
    pub remote: [u32; 4],
    /// How much came lately, as [`Tally`], by position in [`TALLIED`].
    pub tallies: [u64; TALLIED.len()],
    /// How much came since the source has the entry. They start again at 0 behind 2^32.
    pub totals: [u32; TALLIED.len()],
}

/// Some times in [`RateBucket`] are in units of 2 to this power of nanoseconds: 1.07 s.
pub const COARSE_SHIFT: u32 = 30;

/// Entries of `BUDGETS`. A source has two possible slots; where other active sources occupy both, it is not limited.
pub const BUCKET_ENTRIES: u32 = 1 << 16;

/// Class of traffic over UDP, whose sender may be forged.
pub const UNVERIFIED: u32 = 0;
/// Class of traffic over TCP connections whose handshake was verified.
pub const VERIFIED: u32 = 1;

/// Entries of `TRUNK_BUDGETS`: two per trunk.
pub const TRUNK_BUCKET_ENTRIES: u32 = 2 * super::TRUNK_ENTRIES;

/// Index in `TRUNK_BUDGETS` of a trunk, by its index, and [`UNVERIFIED`] or [`VERIFIED`].
#[must_use]
#[inline(always)]
pub const fn trunk_bucket(trunk: u32, class: u32) -> u32 {
    2 * trunk + class
}

/// The tag of a source in `BUDGETS` and its two slots there, the primary one first: a keyed hash, so that no sender can choose whose slot it shares.
/// `source` is the address, IPv4 mapped, as words in network order; of IPv6 the /64 with zeros behind it. `class` is [`UNVERIFIED`] or
/// [`VERIFIED`].
#[must_use]
#[inline(always)]
pub const fn bucket_slots(source: [u32; 4], class: u32, keys: &HashKeys) -> (u64, [u32; 2]) {
    let high = ((source[0] as u64) << 32 | source[1] as u64) ^ keys[0] ^ class as u64;
    let low = ((source[2] as u64) << 32 | source[3] as u64) ^ keys[1];
    let mut tag = (high ^ low.rotate_left(29)).wrapping_mul(keys[2] | 1);
    tag = (tag ^ tag >> 32).wrapping_mul(keys[3] | 1);
    tag ^= tag >> 29;
    tag |= 1;
    (tag, [(tag >> 8) as u32 & (BUCKET_ENTRIES - 1), (tag >> 40) as u32 & (BUCKET_ENTRIES - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, 5);
        let (mut tat, mut passed) = (0, 0);
        for _ in 0..20 {
            if let Some(next) = rate.admit(tat, 7_000_000_000, 1) {
                (tat, passed) = (next, passed + 1);
            }
        }
        assert_eq!(passed, 5, "at once");
        // 1,000 a second are offered for ten seconds.
        passed = 0;
        for k in 0..10_000 {
            if let Some(next) = rate.admit(tat, 7_000_000_000 + k * 1_000_000, 1) {
                (tat, passed) = (next, passed + 1);
            }
        }
        assert_eq!(passed, 99, "one each tenth of a second");
    }

    #[test]
    fn more_at_once_than_the_burst_is_owed() {
        let (rate, now_ns) = (Rate::new(10, 5), 100_000_000_000);
        assert_eq!(rate.admit(now_ns + 1, now_ns, 6), None, "something is owed");
        let tat_ns = rate.admit(now_ns, now_ns, 12).unwrap();
        assert_eq!(tat_ns, now_ns + 1_200_000_000);
        assert_eq!(rate.admit(tat_ns, now_ns + 700_000_000, 1), None, "0.5 s are owed: a whole burst");
        assert!(rate.admit(tat_ns, now_ns + 800_000_000, 1).is_some());
        assert_eq!(rate.admit(tat_ns, now_ns + 1_100_000_000, 12), None);
        assert!(rate.admit(tat_ns, now_ns + 1_200_000_000, 12).is_some());
    }

    const SECOND: u64 = 1_000_000_000;

    /// What came at a pace from `begin_ns` until `end_ns`.
    fn tallied(per_sec: u64, begin_ns: u64, end_ns: u64) -> Tally {
        let times = (0..).map(|number| begin_ns + number * SECOND / per_sec);
        let times = times.take_while(|now_ns| *now_ns < end_ns);
        times.fold(Tally::default(), |tally, now_ns| tally.more(Tally::window(now_ns), 1))
    }

    #[test]
    fn a_tally_is_of_the_last_ten_seconds() {
        let mut tally = Tally::default();
        // 60 a second, for a minute.
        for number in 0..3600u64 {
            let now_ns = 7 * SECOND + number * SECOND / 60;
            tally = tally.more(Tally::window(now_ns), 1);
            if number > 600 {
                assert!((590..=610).contains(&tally.lately(now_ns)), "{number}: {}", tally.lately(now_ns));
            }
        }
        let end = 67 * SECOND;
        assert!(tally.lately(end + 12 * SECOND) < 200);
        assert_eq!(tally.lately(end + 20 * SECOND), 0);
        let full = Tally::default().more(5, u32::MAX).more(5, u32::MAX);
        assert_eq!(full.lately(50 * SECOND), TALLY_MOST);
    }

    #[test]
    fn a_flood_is_ahead_of_whoever_sends_less_ten_seconds_after_it_began() {
        for phase in 0..200 {
            let begin = 100 * SECOND + phase * SECOND / 20;
            let now_ns = begin + 10 * SECOND;
            let flood = tallied(60, begin, now_ns).lately(now_ns);
            let office = tallied(55, 60 * SECOND, now_ns).lately(now_ns);
            // An office that registered at once, before the flood began.
            let burst = tallied(1000, begin - SECOND / 2, begin).lately(now_ns);
            assert!((575..=601).contains(&flood), "{phase}: {flood} of 600");
            assert!(flood > office && flood > burst, "{phase}: {flood}, {office} and {burst}");
        }
    }

    #[test]
    fn what_came_is_not_counted_twice_and_fades() {
        for phase in 0..100 {
            let begin = 100 * SECOND + phase * SECOND / 10;
            let burst = tallied(1000, begin, begin + SECOND);
            let mut before = u64::MAX;
            for tenth in 0..=200 {
                let lately = burst.lately(begin + SECOND + tenth * SECOND / 10);
                assert!(lately <= before.min(1000), "{phase}: {lately} after {before}");
                assert!(tenth > 85 || lately > 0, "{phase}: gone after {tenth} tenths of a second");
                before = lately;
            }
            assert_eq!(before, 0, "{phase}");
        }
    }

    #[test]
    fn no_limit() {
        assert_eq!(Rate::new(0, 7), Rate::NONE);
        assert_eq!(Rate::new(u32::MAX, 1).interval_ns, 1);
    }
}
