//! Masks of bytes of a kind in the 64 bytes at an offset, one bit each. Only as many words are read as `len` needs, so a short line costs little;
//! bits of bytes behind `len`, up to the end of the last word, may be set too.

use super::value::HEAD;
use super::window::Window;
use super::words::{self, first_bit, gather};

#[inline(always)]
fn mask_of<W: Window>(window: &W, at: u32, len: u32, mut marked: impl FnMut(u64) -> u64) -> u64 {
    let end = if len < HEAD { len } else { HEAD };
    let (mut mask, mut k) = (0, 0);
    while k < end {
        mask |= gather(marked(window.word(at.wrapping_add(k)))) << k;
        k += 8;
    }
    mask
}

/// Bytes that equal `byte`.
#[must_use]
#[inline(always)]
pub fn equal<W: Window>(window: &W, at: u32, len: u32, byte: u8) -> u64 {
    mask_of(window, at, len, |word| words::equal(word, byte))
}

/// Spaces and tabs.
#[must_use]
#[inline(always)]
pub fn blanks<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, |word| words::equal(word, b' ') | words::equal(word, b'\t'))
}

/// CR and LF.
#[must_use]
#[inline(always)]
pub fn line_ends<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, |word| words::equal(word, b'\r') | words::equal(word, b'\n'))
}

/// Bytes that end the host of a URI: `,`, white space, and from `:` to `?` (`;`, `>`; no host has `<` or `=`).
#[must_use]
#[inline(always)]
pub fn host_ends<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, |word| {
        words::below(word, b'!')
            | words::below(word, b'?' + 1) & !words::below(word, b':')
            | words::equal(word, b',')
    })
}

/// Bytes that may be in the user of a URI though they end a host (RFC 3261 section 25.1, user-unreserved).
#[must_use]
#[inline(always)]
pub fn of_users<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, |word| {
        [b',', b';', b'=', b'?'].into_iter().fold(0, |mask, byte| mask | words::equal(word, byte))
    })
}

/// Decimal digits.
#[must_use]
#[inline(always)]
pub fn digits<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, words::digits)
}

/// Bytes that no header name or method has.
#[must_use]
#[inline(always)]
pub fn not_visible<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, words::not_visible)
}

/// Visible bytes that are of no token (RFC 3261 section 25.1).
#[must_use]
#[inline(always)]
pub fn not_of_tokens<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    mask_of(window, at, len, words::not_token)
}

/// Bytes of a header line that a backslash quotes within a quoted string (RFC 3261 section 25.1, quoted-pair; CR and LF can't be
/// quoted), as far as that is known: up to a backslash outside of all quoted strings.
#[must_use]
#[inline(always)]
pub fn quoted_pairs<W: Window>(window: &W, at: u32, len: u32) -> u64 {
    if matches!(window.byte(at), b' ' | b'\t') {
        // A continuation line: a quoted string may have begun in the line before.
        return 0;
    }
    let (mut quotes, mut colons, mut ends, mut k) = (0, 0, 0, 0);
    let backslashes = mask_of(window, at, len, |word| {
        quotes |= gather(words::equal(word, b'"')) << k;
        colons |= gather(words::equal(word, b':')) << k;
        ends |= gather(words::equal(word, b'\r') | words::equal(word, b'\n')) << k;
        k += 8;
        words::equal(word, b'\\')
    });
    // The value is behind the first colon.
    let value = !(colons ^ colons.wrapping_sub(1));
    let backslashes = backslashes & value;
    let escaped = words::escaped(backslashes);
    let inside = words::within(quotes & value & !escaped);
    let stray = backslashes & !inside;
    // A line end ends it, also within a quoted string: the bytes behind are of another line.
    let line = (ends & ends.wrapping_neg()).wrapping_sub(1);
    escaped & inside & (stray ^ stray.wrapping_sub(1)) & line
}

/// What [`name`] returns for a line without a proper name and colon.
pub const BAD_NAME: u32 = u32::MAX;
/// What [`name`] returns where the name continues behind the 64 bytes.
pub const FAR_NAME: u32 = u32::MAX - 1;

/// The length of a header line's name, which ends at white space or its colon, plus 256 times the offset of its colon.
#[must_use]
#[inline(always)]
pub fn name<W: Window>(window: &W, at: u32, len: u32) -> u32 {
    let end = if len < HEAD { len } else { HEAD };
    let (mut odd, mut blank, mut colons, mut k) = (0, 0, 0, 0);
    while k < end {
        let word = window.word(at.wrapping_add(k));
        odd |= gather(words::not_visible(word)) << k;
        blank |= gather(words::equal(word, b' ') | words::equal(word, b'\t')) << k;
        colons = gather(words::equal(word, b':')) << k;
        if colons != 0 {
            break;
        }
        k += 8;
    }
    let colons = colons & words::low_bits(len);
    if colons == 0 {
        return if odd == 0 && len > HEAD { FAR_NAME } else { BAD_NAME };
    }
    let colon = first_bit(colons);
    let odd = odd & words::low_bits(colon);
    let name = if odd == 0 { colon } else { first_bit(odd) };
    let gap = words::low_bits(colon) & !words::low_bits(name);
    if name == 0 || blank & gap != gap { BAD_NAME } else { colon << 8 | name }
}

/// The place in what [`via`] returns where there is no port, or nobody knows which colon is its own.
pub const NO_PORT: u32 = 64;
/// The bit of what [`via`] returns for a ttl of five digits or more.
pub const LONG_TTL: u32 = 1 << 8;

/// What the first 64 bytes show of a Via line whose value is from `from` to `len`: the place behind the colon of the port of the first sent-by (the only
/// colon before the first `;` or `,`, or the first one behind an IPv6 reference), or [`NO_PORT`]; and [`LONG_TTL`].
#[must_use]
#[inline(always)]
pub fn via<W: Window>(window: &W, at: u32, len: u32, from: u32) -> u32 {
    let end = if len < HEAD { len } else { HEAD };
    let (mut colons, mut closed, mut ends, mut k) = (0, 0, 0u64, 0);
    while k < end {
        let word = window.word(at.wrapping_add(k));
        colons |= gather(words::equal(word, b':')) << k;
        closed |= gather(words::equal(word, b']')) << k;
        ends |= gather(words::equal(word, b';') | words::equal(word, b',')) << k;
        if ends != 0 {
            break;
        }
        k += 8;
    }
    let before = if ends == 0 { u64::MAX } else { (ends & ends.wrapping_neg()) - 1 };
    let sent_by = before & words::low_bits(len) & !words::low_bits(from);
    let mut colons = colons & sent_by;
    let closed = closed & sent_by;
    let mut port = NO_PORT;
    if closed != 0 {
        colons &= !words::low_bits(first_bit(closed));
    }
    if colons != 0 && (closed != 0 || colons & colons.wrapping_sub(1) == 0) {
        port = first_bit(colons) + 1;
    }
    // A ttl is behind the first `;`.
    let mut signs = 0;
    while k < end {
        signs |= gather(words::equal(window.word(at.wrapping_add(k)), b'=')) << k;
        k += 8;
    }
    if signs != 0 && has_long_ttl(window, at, end, signs) { port | LONG_TTL } else { port }
}

/// Whether `;ttl=` and five digits are among the first `end` bytes, where `signs` are the places of `=`.
#[inline(always)]
fn has_long_ttl<W: Window>(window: &W, at: u32, end: u32, mut signs: u64) -> bool {
    for _ in 0..HEAD {
        if signs == 0 {
            return false;
        }
        let sign = first_bit(signs);
        // Folded, an ESC would be a `;`.
        let name = window.word(at.wrapping_add(sign).wrapping_sub(4)) as u32 | 0x2020_2000;
        if name == u32::from_le_bytes(*b";ttl") && sign >= 4 && sign + 5 < end {
            let behind = words::not_digits(window.word(at.wrapping_add(sign + 1)));
            if behind & 0xff_ffff_ffff == 0 {
                return true;
            }
        }
        signs &= signs - 1;
    }
    // Nothing has more signs.
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framer::Buffer;

    /// The places of quoted bytes in a line, backslashes left out, by what RFC 3261 says of one byte after the other.
    fn expected(line: &[u8]) -> u64 {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return 0 };
        let (mut mask, mut inside, mut quoted) = (0, false, false);
        for (k, byte) in line.iter().enumerate().skip(colon + 1) {
            match byte {
                b'\r' | b'\n' => break,
                _ if quoted => {
                    quoted = false;
                    if *byte != b'\\' {
                        mask |= 1 << k;
                    }
                }
                b'\\' if inside => quoted = true,
                b'\\' => break,
                b'"' => inside = !inside,
                _ => {}
            }
        }
        mask
    }

    #[test]
    fn every_line_of_a_few_signs() {
        let mut buffer = Buffer::NEW;
        for number in 0..6u32.pow(7) {
            let mut line = *b"a:.......";
            let mut rest = number;
            for byte in &mut line[2..] {
                *byte = b"\\\":\x01\rx"[(rest % 6) as usize];
                rest /= 6;
            }
            buffer.put(60, &line);
            let found = quoted_pairs(&buffer, 60, 9) & words::low_bits(9);
            assert_eq!(found, expected(&line), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_ttl_is_found_wherever_it_is() {
        let mut buffer = Buffer::NEW;
        for (text, expected) in [
            (&b";ttl=12345"[..], true),
            (b";TTL=00001;", true),
            (b";ttl=1234", false),
            (b";ttl=1234;5", false),
            (b";xtl=12345", false),
            (b"\x1bttl=12345", false),
            (b"=;ttl=12345", true),
        ] {
            for place in 0..=64 - text.len() {
                let mut line = [b'='; 96];
                line[0] = b'V';
                line[place..place + text.len()].copy_from_slice(text);
                let end = place + text.len();
                buffer.put(100, &line);
                let found = |len: usize| via(&buffer, 100, len as u32, 1) & LONG_TTL != 0;
                assert_eq!(found(end), expected, "{text:?} at {place}");
                assert_eq!(found(end - 1), expected && text.ends_with(b";"), "{text:?} at {place}");
            }
        }
    }

    #[test]
    fn no_more_words_than_needed() {
        let mut buffer = Buffer::NEW;
        buffer.put(100, &[b':'; 80]);
        for (len, bits) in [(0, 0), (1, 8), (8, 8), (9, 16), (63, 64), (64, 64), (65, 64), (u32::MAX, 64)] {
            assert_eq!(equal(&buffer, 100, len, b':'), words::low_bits(bits), "{len}");
        }
    }
}
