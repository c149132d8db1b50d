//! What is STUN and whether its lengths are true, from RFC 8489 and docs/checks.md.

use sipguard_common::Reason;

/// Attributes that are looked at.
const ATTRIBUTES: usize = 64;
/// Bytes that are looked at.
const LOOKED_AT: usize = 4096;

/// Judges a datagram that is STUN; `None` for any other.
pub fn stun_oracle(bytes: &[u8], whole: bool) -> Option<Result<Reason, Reason>> {
    // RFC 8489 section 5: 20 bytes of header; type, length, cookie, transaction.
    let [kind, _, high, low, cookie @ ..] = bytes else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let classic = *kind < 2 && bytes.len() == 20 + length;
    if bytes.len() < 20 || *kind >= 0x40 || !(cookie.starts_with(&[0x21, 0x12, 0xa4, 0x42]) || classic) {
        return None;
    }
    let good = whole
        && (bytes.len() > LOOKED_AT
            || bytes.len() == 20 + length && length.is_multiple_of(4) && attributes(&bytes[20..]));
    Some(if good { Ok(Reason::Stun) } else { Err(Reason::BadStun) })
}

/// RFC 8489 section 14: type and length, then the value, padded to four bytes.
fn attributes(mut rest: &[u8]) -> bool {
    for _ in 0..ATTRIBUTES {
        let [_, _, high, low, value @ ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
        let Some(behind) = value.get(length..) else { return false };
        rest = behind;
    }
    true
}
