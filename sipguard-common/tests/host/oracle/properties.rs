//! What binds the framer to the byte-wise one. The property tests here and the fuzz targets of `fuzz/` call the same
//! functions; each panics where the property does not hold.

use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, CHUNK, Limits, Stream, checks, decide_datagram, methods};

use super::bytewise::{datagram_oracle, oracle};
use super::flow::{Flow, fast, pieces};
use super::stun::stun_oracle;
use super::tls::tls_oracle;

/// The checks that are of no header.
pub const FORM: u32 = checks::VERSION | checks::CONTROL_BYTES | checks::NAMES | checks::WHOLE_LINES;

/// Small limits and nearly all checks, but for those that are switched off.
fn switched_off(off: u64) -> Limits {
    let mut limits = Limits { checks: checks::STRICT & !checks::SAME_ENDS, ..SMALL };
    limits.switch_off(off);
    limits
}

/// Limits that short streams pass.
pub const SMALL: Limits = Limits {
    line_bytes: 100,
    other_line_bytes: 200,
    section_bytes: 400,
    header_lines: 9,
    same_name: 2,
    body_bytes: 300,
    message_ms: 0,
    message_segments: 0,
    checks: FORM,
    denied: 0,
    matched_headers: 0,
    pad: 0,
};

/// Limits and checks that every stream is judged by.
pub fn profiles() -> [Limits; 5] {
    [
        SMALL,
        Limits {
            checks: FORM | checks::NUMBERS | checks::SINGLETONS | checks::REFUSE_LF,
            denied: methods::REGISTER | methods::SUBSCRIBE | methods::OTHER,
            ..SMALL
        },
        Limits::default(),
        Limits { header_lines: 30, ..Limits::strict() },
        switched_off(u64::MAX),
    ]
}

/// How a stream comes, and where another one parts from it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of good messages before the stream, in its first segment: they put what follows across the border of two windows.
    pub ahead: usize,
    /// Lengths of the segments, repeated.
    pub cuts: Vec<usize>,
    /// The byte in which the other stream differs.
    pub fork: usize,
    /// How it differs.
    pub flip: u8,
}

/// A stream that comes in one segment gets the oracle's verdict.
pub fn stream(bytes: &[u8]) {
    let checks = Reason::ALL.iter().filter(|reason| reason.is_check());
    let each = checks.map(|reason| switched_off(reason.check_bit()));
    for limits in profiles().into_iter().chain(each) {
        assert_eq!(fast(bytes, &[bytes.len()], &limits), oracle(bytes, &limits), "{limits:?}");
    }
}

/// Any segmentation gives the oracle's verdict, and at the end of each segment that of the bytes so far; also behind good
/// messages, and beside another stream that is the same up to some byte, whose segments go through the same window in turn.
pub fn segments(bytes: &[u8], plan: &Plan, limits: &Limits) {
    let mut other = bytes.to_vec();
    if let Some(byte) = other.get_mut(plan.fork) {
        *byte ^= plan.flip;
    }
    side_by_side([bytes, &other], plan, limits);
    if let [0..0x20, ..] = bytes {
        tls(bytes, &plan.cuts, limits);
    }
}

fn side_by_side([one, two]: [&[u8]; 2], plan: &Plan, limits: &Limits) {
    /// The oracle starts anew for each prefix, so not all of many are compared.
    const PREFIXES: usize = 4;
    let (before, messages) = good_messages(plan.ahead);
    let expected = |bytes| {
        let (count, end) = oracle(bytes, limits);
        (messages + count, end)
    };
    let mut buffer = Box::new(Buffer::NEW);
    let (mut first, mut second) = (Flow::NEW, Flow::NEW);
    let [one_whole, two_whole] = [one, two].map(|bytes| [&before, bytes].concat());
    let pieces = |bytes| pieces(bytes, plan.ahead, &plan.cuts);
    let mut end = 0;
    for (number, (piece, other)) in pieces(&one_whole).zip(pieces(&two_whole)).enumerate() {
        first.take(limits, &mut buffer, piece);
        second.take_or_skip(limits, &mut buffer, other);
        end += piece.len();
        let so_far = end - plan.ahead;
        if so_far <= plan.fork {
            assert_eq!(first.outcome(), second.outcome(), "the same {so_far} bytes by {limits:?}");
        }
        if number < PREFIXES {
            assert_eq!(first.outcome(), expected(&one[..so_far]), "the first {so_far} bytes by {limits:?}");
        }
    }
    let uncut = Flow::NEW.take_all(limits, &one_whole, &[one_whole.len()]);
    assert_eq!(uncut.outcome(), expected(one), "in one segment by {limits:?}");
    assert_eq!(first.outcome(), uncut.outcome(), "in segments by {limits:?}");
    assert_eq!(second.outcome(), expected(two), "the other stream by {limits:?}");
    if first.end.is_none() {
        let place = |flow: &Flow| (flow.stream.phase, flow.stream.body_left);
        assert_eq!(place(&first), place(&uncut), "where the stream stands by {limits:?}");
    }
}

/// As many bytes of messages that every profile takes, and how many messages; what none fits into are line ends.
fn good_messages(len: usize) -> (Vec<u8>, u32) {
    const HEAD: &[u8] =
        b"INFO sip:a SIP/2.0\r\nv:h\r\nf:a\r\nt:b\r\ni:c\r\nCSeq:1 INFO\r\nMax-Forwards:1\r\nl:";
    const LEAST: usize = HEAD.len() + b"000\r\n\r\n".len();
    let mut bytes = Vec::with_capacity(len);
    let mut messages = 0;
    while len - bytes.len() >= LEAST {
        let body = (len - bytes.len() - LEAST).min(300);
        bytes.extend_from_slice(HEAD);
        bytes.extend_from_slice(format!("{body:03}\r\n\r\n").as_bytes());
        bytes.resize(bytes.len() + body, b'b');
        messages += 1;
    }
    bytes.resize(len, b'\n');
    (bytes, messages)
}

/// The same on a TLS port, from the connection's first byte and from the middle.
fn tls(bytes: &[u8], cuts: &[usize], limits: &Limits) {
    for known in [true, false] {
        let expected = tls_oracle(bytes, known, limits);
        for cuts in [cuts, &[bytes.len()]] {
            let outcome = Flow::tls(known).take_all(limits, bytes, cuts).outcome();
            assert_eq!(outcome, expected, "TLS, known: {known}, cut by {cuts:?}");
        }
    }
}

/// A datagram gets the oracle's verdict, whole and as the first of several IP fragments; and what starts a good one is
/// never refused.
pub fn datagram(bytes: &[u8]) {
    let mut buffer = Box::new(Buffer::NEW);
    // What an earlier packet left in the window.
    buffer.put(0, &[b':'; CHUNK as usize + 256]);
    for limits in profiles() {
        let mut judge = |bytes: &[u8], whole| {
            decide_datagram(&mut Stream::NEW.clone(), &limits, &mut buffer, bytes, whole)
                .map_err(|malformed| malformed.reason)
        };
        let verdict = judge(bytes, true);
        for whole in [true, false] {
            let expected =
                stun_oracle(bytes, whole).unwrap_or_else(|| datagram_oracle(bytes, whole, &limits));
            assert_eq!(judge(bytes, whole), expected, "whole: {whole}, by {limits:?}");
        }
        let start = judge(&bytes[..bytes.len() / 2], false);
        // A word with filler is at most 64 bytes, which nobody sends in fragments.
        let word = verdict == Ok(Reason::NatPing) && bytes.len() <= 64;
        if !word && matches!(verdict, Ok(Reason::Valid | Reason::NatPing)) {
            assert!(start.is_ok(), "{start:?} for the first half of what is {verdict:?} by {limits:?}");
        }
    }
}
