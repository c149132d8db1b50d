//! Bytes judged eight at a time. A word holds eight bytes, the first in its lowest bits.

const LOW: u64 = 0x0101_0101_0101_0101;
const SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Bit 7 of every byte that is zero. Exact: no borrow runs from one byte into the next.
#[inline(always)]
const fn zero_bytes(word: u64) -> u64 {
    !(((word & SEVEN) + SEVEN) | word | SEVEN)
}

/// Bit 7 of every byte that equals `byte`.
#[inline(always)]
pub const fn equal(word: u64, byte: u8) -> u64 {
    zero_bytes(word ^ (LOW * byte as u64))
}

/// Bit 7 of every byte below `limit`, for limits up to 128.
#[inline(always)]
pub const fn below(word: u64, limit: u8) -> u64 {
    !((word & SEVEN).wrapping_add(LOW * (128 - limit as u64)) | word) & HIGH
}

/// Gathers bit 7 of each byte into the lowest eight bits.
#[inline(always)]
pub const fn gather(mask: u64) -> u64 {
    (mask >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// ASCII upper case made lower case. Other bytes change too (`@` becomes `` ` ``): compare only with letters, digits,
/// `-`, `/`, `.`, `:` and space, each of which has one preimage apart from case or is a control byte, ruled out before.
#[inline(always)]
pub const fn fold(word: u64) -> u64 {
    word | 0x2020_2020_2020_2020
}

/// The first `count` bytes of a word, the others zero; `count` up to 8.
#[inline(always)]
pub const fn first_bytes(word: u64, count: u32) -> u64 {
    if count >= 8 { word } else { word & ((1 << (count * 8)) - 1) }
}

/// The lowest `count` bits set; `count` up to 64.
#[inline(always)]
pub const fn low_bits(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Value of eight ASCII digits, the first the most significant.
#[inline(always)]
pub const fn eight_digits(word: u64) -> u32 {
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(1 + (10 << 8)) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(1 + (100 << 16)) >> 16;
    ((fours & 0x0000_ffff_0000_ffff).wrapping_mul(1 + (10_000 << 32)) >> 32) as u32
}

/// What a block of 64 bytes holds, one bit a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Line feeds.
    pub lf: u64,
    /// Bytes below 0x20 other than LF: control bytes, with CR and HT among them.
    pub odd: u64,
}

/// Marks of one word, eight bits each.
#[inline(always)]
pub const fn mark(word: u64) -> Marks {
    let lf = equal(word, b'\n');
    Marks { lf: gather(lf), odd: gather(below(word, 0x20) & !lf) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_place() {
        for place in 0..8 {
            for byte in 0..=255u8 {
                for other in [0u8, 9, 10, 31, 32, 127, 128, 255] {
                    let mut bytes = [other; 8];
                    bytes[place] = byte;
                    let word = u64::from_le_bytes(bytes);
                    let bits = |f: &dyn Fn(u8) -> bool| {
                        bytes.iter().enumerate().fold(0u64, |m, (i, b)| m | (u64::from(f(*b)) << i))
                    };
                    assert_eq!(gather(equal(word, byte)), bits(&|b| b == byte));
                    assert_eq!(gather(below(word, 0x20)), bits(&|b| b < 0x20));
                    assert_eq!(gather(below(word, 0x21)), bits(&|b| b < 0x21));
                    assert_eq!(gather(below(word, 0x30)), bits(&|b| b < 0x30));
                    assert_eq!(mark(word).lf, bits(&|b| b == b'\n'));
                    assert_eq!(mark(word).odd, bits(&|b| b < 0x20 && b != b'\n'));
                }
            }
        }
    }

    #[test]
    fn digits() {
        assert_eq!(eight_digits(u64::from_le_bytes(*b"00000000")), 0);
        assert_eq!(eight_digits(u64::from_le_bytes(*b"12345678")), 12_345_678);
        assert_eq!(eight_digits(u64::from_le_bytes(*b"99999999")), 99_999_999);
        assert_eq!(first_bytes(u64::MAX, 0), 0);
        assert_eq!(first_bytes(u64::MAX, 3), 0xff_ffff);
        assert_eq!(low_bits(0), 0);
        assert_eq!(low_bits(64), u64::MAX);
    }
}
