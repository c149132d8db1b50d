//! What the fuzz targets do with an input. Ordinary tests replay the corpus and every regression through the same
//! functions (`tests/replay.rs`).
//!
//! The byte-wise framer and the properties are those of `sipguard-common/tests/host/oracle/`, compiled here once more:
//! two crates need them, and no third crate keeps them.

#[path = "../../sipguard-common/tests/host/oracle/mod.rs"]
mod oracle;

use oracle::properties::{self, Plan, profiles};
use sipguard_common::framer::{CHUNK, Limits};

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 3] =
    [("framer", framer), ("segments", segments), ("datagrams", datagrams)];

/// The input is a stream that comes in one segment.
///
/// # Panics
/// When the framer's verdict is not the oracle's.
pub fn framer(input: &[u8]) {
    properties::stream(input);
}

/// The input is a plan and a stream that comes by it.
///
/// # Panics
/// When a verdict depends on the segments, on what comes later, or on another stream; or is not the oracle's.
pub fn segments(input: &[u8]) {
    if let Some((plan, limits, bytes)) = plan(input) {
        properties::segments(bytes, &plan, &limits);
    }
}

/// The input is a datagram.
///
/// # Panics
/// When the framer's verdict is not the oracle's, whole or as the first of several IP fragments.
pub fn datagrams(input: &[u8]) {
    properties::datagram(input);
}

/// Reads a plan: where the first window ends in the stream, and the fork (two bytes each, little endian), flip, profile and
/// how many cuts (a byte), and a byte for each of them. The rest of the input is the stream.
fn plan(input: &[u8]) -> Option<(Plan, Limits, &[u8])> {
    /// What no cut stands for, and a cut of zero: the payload of a segment on Ethernet.
    const SEGMENT: usize = 1448;
    let ([w0, w1, f0, f1, flip, choice], rest) = input.split_first_chunk()?;
    let (cuts, bytes) = rest.split_at_checked(usize::from(choice % 8))?;
    let mut cuts: Vec<usize> =
        cuts.iter().map(|cut| if *cut == 0 { SEGMENT } else { usize::from(*cut) }).collect();
    if cuts.is_empty() {
        cuts.push(SEGMENT);
    }
    let ahead = match usize::from(u16::from_le_bytes([*w0, *w1])) {
        0 => 0,
        place => CHUNK as usize - place % 1024,
    };
    let fork = usize::from(u16::from_le_bytes([*f0, *f1]));
    let limits = profiles()[usize::from(choice / 8 % 4)];
    Some((Plan { ahead, cuts, fork, flip: *flip }, limits, bytes))
}
