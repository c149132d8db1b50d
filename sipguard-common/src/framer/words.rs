//! Arithmetic on eight bytes at a time. A word has eight bytes, the first in its lowest bits.

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

/// ASCII upper case made lower case, and nothing else changed.
#[inline(always)]
pub const fn lower(word: u64) -> u64 {
    word | (below(word, b'Z' + 1) & !below(word, b'A')) >> 2
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

/// Index of the lowest set bit of a mask that has one.
#[inline(always)]
pub const fn first_bit(mask: u64) -> u32 {
    mask.trailing_zeros()
}

/// Which byte of a word, 0 to 7, has its lowest bit set, when that is the only bit; 0 for none.
#[inline(always)]
pub const fn byte_of(bit: u64) -> u32 {
    (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// Bit 7 of every byte that is no decimal digit.
#[inline(always)]
pub const fn not_digits(word: u64) -> u64 {
    let value = word ^ (LOW * b'0' as u64);
    (((value & SEVEN) + LOW * (128 - 10)) | value) & HIGH
}

/// Bit 7 of every byte that is a decimal digit.
#[inline(always)]
pub const fn digits(word: u64) -> u64 {
    not_digits(word) ^ HIGH
}

/// Bit 7 of every byte that no header name or method has: below 0x21 or above 0x7e.
#[inline(always)]
pub const fn not_visible(word: u64) -> u64 {
    let low = word & SEVEN;
    (!(low + LOW * (128 - 0x21)) | (low + LOW) | word) & HIGH
}

/// Bit 7 of every visible byte that is not of an RFC 3261 section 25.1 token.
pub const fn not_token(word: u64) -> u64 {
    const fn among(word: u64, first: u8, last: u8) -> u64 {
        below(word, last + 1) & !below(word, first)
    }
    among(word, b'"', b'$')
        | equal(word, b'&')
        | among(word, b'(', b')')
        | equal(word, b',')
        | equal(word, b'/')
        | among(word, b':', b'@')
        | among(word, b'[', b'^')
        | among(word, b'{', b'}')
}

/// Which of 64 bytes, backslashes left out, are behind a backslash that is not itself behind one (RFC 3261 section 25.1, quoted-pair).
#[inline(always)]
pub const fn escaped(backslashes: u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    // A run of backslashes that begins at an even place and one at an odd place: the carry of a sum runs to its end.
    let behind = backslashes << 1 | ODD;
    (behind.wrapping_sub(backslashes) ^ ODD) & !backslashes
}

/// Which of 64 bytes are within quotation marks, the opening one included.
#[inline(always)]
pub const fn within(quotes: u64) -> u64 {
    let mut inside = quotes;
    let mut k = 0;
    while k < 6 {
        inside ^= inside << (1 << k);
        k += 1;
    }
    inside
}

/// Keys of the hash that retransmissions are compared by: without them no sender can prepare two segments with the same hash.
pub type HashKeys = [u64; 8];

/// Which bytes of a block are below 0x20, one bit each: line ends, tabs and bytes that are not allowed.
#[inline(always)]
pub const fn control(block: &[u64; 8]) -> u64 {
    // Bits 5 to 7 of each byte: of one word where they are, of another four bits lower.
    const HIGH_THREE: u64 = 0xe0e0_e0e0_e0e0_e0e0;
    const LOW_THREE: u64 = HIGH_THREE >> 4;
    const FOUND: u64 = HIGH | HIGH >> 4;
    let mut text = 0;
    let mut k = 0;
    while k < 4 {
        let three = block[7 - k] & HIGH_THREE | block[3 - k] >> 4 & LOW_THREE;
        // Bit 7 and bit 3 of every byte that has one of its three, then where the transposition has the bits of those words.
        text |= ((three | three << 1 | three << 2) & FOUND) >> k;
        k += 1;
    }
    !transposed(text)
}

/// Sum of a block's words multiplied with the keys (NH: Black and others, UMAC, CRYPTO 1999).
#[inline(always)]
pub const fn sum(block: &[u64; 8], keys: &HashKeys) -> u64 {
    let mut sum = 0u64;
    let mut k = 0;
    while k < 8 {
        let keyed = block[k].wrapping_add(keys[k]);
        sum = sum.wrapping_add((keyed & 0xffff_ffff).wrapping_mul(keyed >> 32));
        k += 1;
    }
    sum
}

/// The hash of earlier blocks, extended by a block with this sum.
#[inline(always)]
pub const fn chain(hash: u64, sum: u64) -> u64 {
    let mixed = (hash ^ sum).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// Bit `i` of byte `k` and bit `k` of byte `i` exchanged (Warren, Hacker's Delight, section 7-3).
#[inline(always)]
const fn transposed(mut bits: u64) -> u64 {
    let swap = (bits ^ bits >> 7) & 0x00aa_00aa_00aa_00aa;
    bits ^= swap ^ swap << 7;
    let swap = (bits ^ bits >> 14) & 0x0000_cccc_0000_cccc;
    bits ^= swap ^ swap << 14;
    let swap = (bits ^ bits >> 28) & 0xf0f0_f0f0;
    bits ^ swap ^ swap << 28
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_place() {
        for place in 0..8 {
            for byte in 0..=255u8 {
                let mut bytes = *b"abcd1234";
                bytes[place] = byte;
                let word = u64::from_le_bytes(bytes);
                let bits = |good: &dyn Fn(u8) -> bool| {
                    bytes.iter().enumerate().fold(0, |mask, (k, byte)| mask | u64::from(good(*byte)) << k)
                };
                for limit in [0x20, 0x21, 0x7f, 0x80, b'0', b'9' + 1] {
                    assert_eq!(gather(below(word, limit)), bits(&|b| b < limit), "{byte} below {limit}");
                }
                assert_eq!(gather(equal(word, b':')), bits(&|b| b == b':'), "{byte}");
                assert_eq!(gather(not_digits(word)), bits(&|b| !b.is_ascii_digit()), "{byte}");
                assert_eq!(gather(not_visible(word)), bits(&|b| !(0x21..0x7f).contains(&b)), "{byte}");
                let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
                let odd = |b: u8| (0x21..0x7f).contains(&b) && !token(b);
                assert_eq!(gather(not_token(word) & !not_visible(word)), bits(&odd), "{byte}");
                let mut block = [u64::from_le_bytes([b'x'; 8]); 8];
                block[place] = word;
                let found = control(&block);
                assert_eq!(found, bits(&|b| b < 0x20) << (8 * place), "{byte} at {place}");
            }
        }
    }

    #[test]
    fn the_hash_sees_every_bit_and_the_order() {
        let keys: HashKeys =
            core::array::from_fn(|k| 0x5851_f42d_4c95_7f2d_u64.wrapping_mul(2 * k as u64 + 3));
        let block: [u64; 8] = core::array::from_fn(|k| 0x2020_6162_6364_6566 + k as u64);
        let whole = chain(7, sum(&block, &keys));
        for word in 0..8 {
            for bit in 0..64 {
                let mut other = block;
                other[word] ^= 1 << bit;
                assert_ne!(chain(7, sum(&other, &keys)), whole, "bit {bit} of word {word}");
            }
            let mut swapped = block;
            swapped.swap(word, (word + 1) % 8);
            assert_ne!(chain(7, sum(&swapped, &keys)), whole, "word {word}");
        }
        assert_ne!(chain(8, sum(&block, &keys)), whole);
    }

    #[test]
    fn a_byte_is_found_by_its_lowest_bit() {
        for byte in 0..8 {
            assert_eq!(byte_of(1 << (8 * byte)), byte);
        }
    }

    #[test]
    fn digits_have_values() {
        assert_eq!(eight_digits(u64::from_le_bytes(*b"12345678")), 12_345_678);
        assert_eq!(eight_digits(u64::from_le_bytes(*b"00000000")), 0);
        assert_eq!(eight_digits(u64::from_le_bytes(*b"99999999")), 99_999_999);
    }
}
