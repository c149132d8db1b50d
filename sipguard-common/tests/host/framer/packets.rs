//! How streams come, and what is no SIP: STUN and TLS.

use proptest::prelude::*;

use crate::oracle::properties::Plan;

/// Segments, and where another stream parts from this one.
pub fn plan() -> impl Strategy<Value = Plan> {
    let ahead = prop_oneof![15 => Just(0), 1 => 3800usize..4100];
    (ahead, prop::collection::vec(1usize..90, 1..6), 0usize..400, any::<u8>())
        .prop_map(|(ahead, cuts, fork, flip)| Plan { ahead, cuts, fork, flip })
}

/// What looks like STUN: a header whose length is true or nearly so, and attributes.
pub fn stun() -> impl Strategy<Value = Vec<u8>> {
    let attribute = (any::<u16>(), 0u8..9, prop::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(kind, length, value)| [&kind.to_be_bytes()[..], &[0, length], &value].concat());
    // Empty ones before, or one that is long: more attributes or bytes than a walk might like.
    let before = prop_oneof![
        8 => Just(vec![]),
        1 => (0usize..135).prop_map(|count| [0x80, 0x22, 0, 0].repeat(count)),
        1 => (1usize..5000).prop_map(|words| {
            [&[0x80, 0x22][..], &((words * 4) as u16).to_be_bytes(), &vec![7; words * 4]].concat()
        }),
    ];
    let cookie = prop_oneof![4 => Just([0x21, 0x12, 0xa4, 0x42]), 1 => any::<[u8; 4]>()];
    (0u8..3, before, prop::collection::vec(attribute, 0..4), -4i32..5, cookie).prop_map(
        |(kind, before, attributes, off, cookie)| {
            let attributes = [before, attributes.concat()].concat();
            let length = (attributes.len() as i32 / 4 * 4 + off / 4 * 4).max(0) as u16;
            [&[kind, 1][..], &length.to_be_bytes(), &cookie, &[7; 12], &attributes].concat()
        },
    )
}

/// What looks like TLS: records with lengths of all kinds, each with some content.
pub fn records() -> impl Strategy<Value = Vec<u8>> {
    let content = prop::collection::vec(0u8..4, 0..30);
    let record = (19u8..26, 2u8..5, 0u8..6, any::<bool>(), 0u16..18_434, content).prop_map(
        |(kind, major, minor, true_length, length, content)| {
            let length = if true_length { content.len() as u16 } else { length };
            [&[kind, major, minor][..], &length.to_be_bytes(), &content].concat()
        },
    );
    prop::collection::vec(record, 1..5).prop_map(|records| records.concat())
}
