//! What is STUN and whether its lengths are true, from RFC 8489 and docs/reference/checks.md.

use sipguard_common::Reason;

/// More attributes than any client sends.
const TOO_MANY: usize = 65;

/// Judges a datagram that is STUN; `None` for any other.
pub fn stun_oracle(bytes: &[u8], whole: bool) -> Option<Result<Reason, Reason>> {
    // RFC 8489 section 5: 20 bytes of header; type, length, cookie, transaction.
    let [kind, _, high, low, cookie @ ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let classic = *kind < 2 && bytes.len() == 20 + length;
    if bytes.len() < 20 || *kind >= 0x40 || !(cookie.starts_with(&[0x21, 0x12, 0xa4, 0x42]) || classic) {
        return None;
    }
    let true_length = bytes.len() == 20 + length && length.is_multiple_of(4);
    let good = whole && true_length && attributes(&bytes[20..]).is_some_and(|count| count < TOO_MANY);
    Some(if good { Ok(Reason::Stun) } else { Err(Reason::BadStun) })
}

/// RFC 8489 section 14: type and length, then the value, padded to four bytes. How many there are, all of them; `None` when one is longer
/// than what is left.
fn attributes(mut rest: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let [_, _, high, low, value @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
        rest = value.get(length..)?;
        count += 1;
    }
    rest.is_empty().then_some(count)
}
