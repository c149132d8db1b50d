//! What is said: streams of good messages, and the same with faults in them.

use std::sync::LazyLock;

use crate::chance::Chance;
use crate::message;

/// Good messages one after the other, with bodies that look like anything.
pub static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let body = b"v=0\r\n\r\nINVITE sip:a SIP/3.0\r\nContent-Length: -1\r\n\r\n\0\x01 a body of some length, to be cut";
    [
        message::OPTIONS.to_vec(),
        message::invite(),
        message::call(&format!("Content-Length: {}\r\n", body.len()), body),
        b"\r\n\r\n".to_vec(),
        message::register(7),
    ]
    .concat()
});

/// The same length, with a NUL every few bytes: in a header it is a fault, in a body it is none.
static EVIL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    GOOD.iter().enumerate().map(|(at, byte)| if at % 23 == 11 { 0 } else { *byte }).collect()
});

/// The same length, with other bytes that are good as well.
static OTHER: LazyLock<Vec<u8>> =
    LazyLock::new(|| GOOD.iter().map(|byte| if *byte == b'a' { b'b' } else { *byte }).collect());

/// The bytes of a stream that begin `offset` bytes behind its first.
#[must_use]
pub fn stream(of: &[u8], offset: u32, len: usize) -> Vec<u8> {
    of.iter().cycle().skip(offset as usize % of.len()).take(len).copied().collect()
}

/// What an attacker says `offset` bytes behind the first of the stream.
pub fn anything(offset: u32, chance: &mut Chance) -> Vec<u8> {
    let len = 1 + match chance.below(4) {
        0 => chance.below(8),
        1 | 2 => chance.below(120),
        _ => chance.below(900),
    } as usize;
    match chance.below(20) {
        0..12 => stream(&GOOD, offset, len),
        12..16 => stream(&EVIL, offset, len),
        16 | 17 => stream(&OTHER, offset, len),
        18 => stream(if chance.percent(50) { &GOOD } else { &EVIL }, 0, len),
        _ => b"\r\n\r\n"[..len.min(4)].to_vec(),
    }
}

/// A good request.
#[must_use]
pub fn request(number: u32) -> Vec<u8> {
    match number % 3 {
        0 => message::OPTIONS.to_vec(),
        1 => message::invite(),
        _ => message::register(number as usize),
    }
}
