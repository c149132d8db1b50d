//! How many TCP connections a source or a trunk has open: one 64-bit word each, with a tag and a count.

use bytemuck::{Pod, Zeroable};

use crate::framer::HashKeys;

/// Entries of `OPEN`. An owner has two possible slots; where other owners occupy both, its connections are not counted.
pub const OPEN_ENTRIES: u32 = 1 << 16;
/// Bits of a word of `OPEN` that are the count; the others are the owner's tag. A slot with count 0 is free.
pub const OPEN_COUNT: u64 = (1 << 24) - 1;

/// An open connection that was counted: a value of `SOCKETS`, by the address of the kernel's socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct CountedConnection {
    /// Address of the sender, IPv4 mapped; of IPv6 its /64, of a trunk's peer zero.
    pub remote: [u32; 4],
    /// Cookie of the network namespace that the connection is in (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// Index of the trunk whose peer it is, or 0.
    pub trunk: u32,
    /// Index in `OPEN` of its count.
    pub slot: u32,
}

/// The owner of the connections that a word of `OPEN` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOwner {
    hash: u64,
}

impl ConnectionOwner {
    /// A source by its address (words in network order, IPv4 mapped, of IPv6 the /64), or with zeros for it a trunk by its index, in a
    /// network namespace.
    #[must_use]
    #[inline(always)]
    pub const fn new(remote: [u32; 4], trunk: u32, netns: u64, keys: &HashKeys) -> ConnectionOwner {
        let high = ((remote[0] as u64) << 32 | remote[1] as u64) ^ keys[4];
        let low = ((remote[2] as u64) << 32 | remote[3] as u64) ^ keys[5];
        let slot = (netns << 16 ^ trunk as u64).wrapping_mul(keys[6] | 1);
        let mut hash = (high ^ low.rotate_left(29) ^ slot.rotate_left(47)).wrapping_mul(keys[7] | 1);
        hash = (hash ^ hash >> 32).wrapping_mul(keys[6] | 1);
        ConnectionOwner { hash: hash ^ hash >> 29 }
    }

    /// The two possible slots in `OPEN`.
    #[must_use]
    #[inline(always)]
    pub const fn slots(self) -> [u32; 2] {
        self.places(OPEN_ENTRIES)
    }

    /// What the owner is known by; never 0.
    #[must_use]
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        self.hash | 1
    }

    /// Two places of `entries`, which is a power of two.
    #[inline(always)]
    pub(super) const fn places(self, entries: u32) -> [u32; 2] {
        let other = self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let (first, second) = (self.hash as u32 & (entries - 1), other as u32 & (entries - 1));
        // Never the same, or the owner would be counted twice.
        [first, if first == second { second ^ 1 } else { second }]
    }

    /// The owner's count in a word; 0 where the word is another owner's.
    #[must_use]
    #[inline(always)]
    pub const fn count(self, word: u64) -> u64 {
        if word & !OPEN_COUNT == self.hash & !OPEN_COUNT { word & OPEN_COUNT } else { 0 }
    }

    /// The word with one connection more for the owner, or `None` where the slot is another owner's or the count is full. With `free` a free slot is
    /// taken too.
    #[must_use]
    #[inline(always)]
    pub const fn one_more(self, word: u64, free: bool) -> Option<u64> {
        match self.count(word) {
            OPEN_COUNT => None,
            0 if free && word & OPEN_COUNT == 0 => Some(self.hash & !OPEN_COUNT | 1),
            0 => None,
            _ => Some(word + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: HashKeys =
        [3, 5, 7, 11, 0x9a3b_1111_2222_3333, 0x4444_5555_6666_7777, 0x1234_5678_9abc_def1, 13 << 40 | 99];

    #[test]
    fn a_place_is_its_owners_until_it_is_free() {
        let (one, other) = (
            ConnectionOwner::new([0, 0, 1, 7], 0, 1, &KEYS),
            ConnectionOwner::new([0, 0, 1, 8], 0, 1, &KEYS),
        );
        assert_eq!(one.one_more(0, false), None, "first it looks for its own");
        let word = one.one_more(0, true).unwrap();
        assert_eq!((one.count(word), other.count(word)), (1, 0));
        let word = one.one_more(word, false).unwrap();
        assert_eq!(one.count(word), 2);
        assert_eq!(other.one_more(word, true), None, "somebody else's");
        let word = other.one_more(word - 2, true).unwrap();
        assert_eq!((one.count(word), other.count(word)), (0, 1));
        assert_eq!(one.one_more(word | OPEN_COUNT, true), None);
        assert_eq!(other.one_more(word | OPEN_COUNT, true), None, "no more than the bits hold");
    }

    #[test]
    fn who_it_is_makes_the_place() {
        let all = [
            ConnectionOwner::new([0, 0, 1, 7], 0, 1, &KEYS),
            ConnectionOwner::new([0, 0, 1, 8], 0, 1, &KEYS),
            ConnectionOwner::new([0, 0, 7, 1], 0, 1, &KEYS),
            ConnectionOwner::new([0, 0, 1, 7], 0, 2, &KEYS),
            ConnectionOwner::new([0; 4], 1, 1, &KEYS),
            ConnectionOwner::new([0; 4], 2, 1, &KEYS),
            ConnectionOwner::new([0; 4], 1, 2, &KEYS),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other.hash >> 24 != one.hash >> 24), "{index}");
        }
        // 20,000 sources spread over the places.
        let mut taken = [false; OPEN_ENTRIES as usize];
        let of = |source: u32| ConnectionOwner::new([0, 0, 0xffff_0000, source.to_be()], 0, 1, &KEYS);
        for source in 0..500_000 {
            let [first, second] = of(source).slots();
            assert_ne!(first, second, "{source}");
        }
        for source in 0..20_000 {
            let slots = of(source).slots();
            slots.iter().for_each(|slot| taken[*slot as usize] = true);
        }
        let count = taken.iter().filter(|taken| **taken).count();
        assert!(count > 28_000, "{count} slots");
    }
}
