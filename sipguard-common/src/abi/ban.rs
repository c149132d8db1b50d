//! Bans of devices, and of addresses, that keep sending malformed streams.

use bytemuck::{Pod, Zeroable};

/// When a sender is banned, and for how long.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BanPolicy {
    /// Malformed TCP streams of one address and port that make a ban; 0 bans nobody.
    pub after: u32,
    /// Malformed TCP streams of one address, by any ports, that make a ban.
    pub address_after: u32,
    /// The time within which the violations count, in nanoseconds.
    pub within_ns: u64,
    /// How long the first ban is, in nanoseconds. Each further one is twice as long.
    pub first_ns: u64,
    /// How long a ban is at the most, in nanoseconds.
    pub longest_ns: u64,
    /// An address is banned only when nothing well-formed came from it for this time, in nanoseconds.
    pub quiet_ns: u64,
    /// No address is banned before this time (`CLOCK_MONOTONIC`, nanoseconds): the well-formed traffic of an address must be observed first.
    pub addresses_from_ns: u64,
}

/// How long an ended ban is remembered, so that the next one is longer: a day.
pub const BAN_MEMORY_NS: u64 = 86_400_000_000_000;

/// Entries of `BANS`.
pub const BAN_ENTRIES: u32 = 1 << 13;

/// Violations and bans of a device (a `DeviceKey`) or of an address (port 0; of IPv6 the /64).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ban {
    /// End of the last ban (`CLOCK_BOOTTIME`, nanoseconds); 0 when there was none yet.
    pub until_ns: u64,
    /// When the last ban began (`CLOCK_BOOTTIME`, nanoseconds).
    pub since_ns: u64,
    /// When the first of `streams` was (`CLOCK_BOOTTIME`, nanoseconds).
    pub first_ns: u64,
    /// Packets that the ban stopped.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// Malformed streams since `first_ns` that led to no ban yet.
    pub streams: u32,
    /// Bans so far.
    pub times: u16,
    /// [`crate::Reason::number`] of the last malformed stream.
    pub reason: u8,
    /// Zero.
    pub pad: u8,
}

impl Ban {
    /// Whether the ban is active at `now_ns` (`CLOCK_BOOTTIME`, nanoseconds).
    #[must_use]
    #[inline(always)]
    pub const fn is_active(&self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    /// Counts a malformed stream; `after` of them make a ban. Returns whether a ban begins.
    #[inline(always)]
    pub const fn add_violation(&mut self, policy: &BanPolicy, after: u32, now_ns: u64) -> bool {
        if self.until_ns != 0
            && now_ns.wrapping_sub(self.until_ns).cast_signed() > BAN_MEMORY_NS.cast_signed()
        {
            self.times = 0;
        }
        if now_ns.wrapping_sub(self.first_ns) > policy.within_ns {
            self.first_ns = now_ns;
            self.streams = 0;
        }
        self.streams += 1;
        if self.streams < after || self.is_active(now_ns) {
            return false;
        }
        self.streams = 0;
        let doubled = policy.first_ns << (if self.times < 20 { self.times } else { 20 } & 31);
        let length = if doubled < policy.longest_ns { doubled } else { policy.longest_ns };
        self.times += 1;
        self.since_ns = now_ns;
        self.until_ns = now_ns + length;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const POLICY: BanPolicy = BanPolicy {
        after: 3,
        address_after: 10,
        within_ns: 30 * SECOND,
        first_ns: 60 * SECOND,
        longest_ns: 3600 * SECOND,
        quiet_ns: 3600 * SECOND,
        addresses_from_ns: 0,
    };

    #[test]
    fn the_third_stream_within_the_time_bans() {
        let mut ban = Ban::zeroed();
        let now = 1_000_000 * SECOND;
        let mut add_violation = |second: u64| ban.add_violation(&POLICY, 3, now + second * SECOND);
        assert_eq!([0, 20, 40].map(&mut add_violation), [false; 3], "slowly");
        assert_eq!([100, 110, 120].map(&mut add_violation), [false, false, true]);
        assert_eq!([150, 151, 152, 153].map(&mut add_violation), [false; 4], "while it is active");
        assert!(ban.is_active(now + 179 * SECOND) && !ban.is_active(now + 180 * SECOND));
    }

    #[test]
    fn each_ban_is_twice_as_long_up_to_the_longest() {
        let (mut ban, mut now) = (Ban::zeroed(), 1_000_000 * SECOND);
        let mut next = |gap: u64| {
            now += gap * SECOND;
            assert_eq!([now; 3].map(|now| ban.add_violation(&POLICY, 3, now)), [false, false, true]);
            now = ban.until_ns;
            (ban.until_ns - ban.since_ns) / SECOND
        };
        assert_eq!([1; 9].map(&mut next), [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(next(86_399), 3600, "remembered for a day");
        assert_eq!(next(86_402), 60, "and forgotten then");
    }
}
