//! What the capture lacks. The program judges bytes in order: where some are missing in the capture, which were not missing on the wire,
//! what follows on that connection is not judged, and accuses nobody.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use sipguard_observe::header::{Ends, Header};

/// Bits that remember what is not judged any more. Two may share one: then one too many is not judged.
const BITS: u64 = 1 << 22;
/// Segments of one connection that wait for one that is missing.
const MOST_WAITING: usize = 64;
/// Bytes of all segments that wait.
const MOST_BYTES: usize = 8 << 20;

/// Connections and datagrams of which a part was cut off or is missing.
pub(crate) struct Broken {
    bits: Vec<u64>,
    state: RandomState,
}

impl Broken {
    /// None yet.
    #[must_use]
    pub(crate) fn new() -> Broken {
        Broken { bits: vec![0; (BITS / 64) as usize], state: RandomState::new() }
    }

    /// Whatever the packet is a part of.
    pub(crate) fn mark(&mut self, header: &Header) {
        let hash = match header.fragment {
            Some(id) => self.state.hash_one((pair(&header.ends), id)),
            None if header.ends.ports == [0; 2] => self.state.hash_one(pair(&header.ends)),
            None if header.tcp => self.state.hash_one(header.ends),
            // A datagram is whole by itself.
            None => return,
        } % BITS;
        self.bits[(hash / 64) as usize] |= 1 << (hash % 64);
    }

    /// Whether it is a part of such.
    #[must_use]
    pub(crate) fn has(&self, header: &Header) -> bool {
        let is_set = |hash: u64| self.bits[(hash % BITS / 64) as usize] >> (hash % 64) & 1 != 0;
        header.fragment.is_some_and(|id| is_set(self.state.hash_one((pair(&header.ends), id))))
            || header.tcp
                && (is_set(self.state.hash_one(header.ends))
                    || is_set(self.state.hash_one(pair(&header.ends))))
    }
}

fn pair(ends: &Ends) -> Ends {
    Ends { ports: [0; 2], ..*ends }
}

/// A segment that came before one that is missing.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Its number in the capture.
    pub number: u64,
    /// Its headers.
    pub header: Header,
    /// What the program is given: eight bytes of time, then the frame.
    pub bytes: Vec<u8>,
}

/// Segments ahead of a gap. On the wire TCP repeats what the guard drops there; a capture without a guard has it once.
#[derive(Default)]
pub(crate) struct Gaps {
    waiting: HashMap<Ends, Vec<Waiting>>,
    bytes: usize,
}

impl Gaps {
    /// One more; what no longer fits is given back, all of the connection's.
    pub(crate) fn hold(&mut self, one: Waiting) -> Vec<Waiting> {
        let ends = one.header.ends;
        self.bytes += one.bytes.len();
        let all = self.waiting.entry(ends).or_default();
        all.push(one);
        if all.len() > MOST_WAITING || self.bytes > MOST_BYTES { self.take(&ends) } else { Vec::new() }
    }

    /// What waits on a connection, in the order of its bytes; none waits any more.
    pub(crate) fn take(&mut self, ends: &Ends) -> Vec<Waiting> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut all = self.waiting.remove(ends).unwrap_or_default();
        self.bytes -= all.iter().map(|one| one.bytes.len()).sum::<usize>();
        let first = all.first().map_or(0, |one| one.header.seq);
        all.sort_by_key(|one| one.header.seq.wrapping_sub(first).cast_signed());
        all
    }

    /// How many wait.
    #[must_use]
    pub(crate) fn len(&self) -> u64 {
        self.waiting.values().map(|all| all.len() as u64).sum()
    }
}
