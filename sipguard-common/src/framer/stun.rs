//! STUN on the SIP port (RFC 8489 section 5): a NAT keep-alive of phones (RFC 5626 section 3.5.2), distinguished from SIP by its
//! first two bits. Of a datagram only its first eight bytes and the first four of each attribute are read, whatever its size.

const HEADER: u32 = 20;
const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Bytes that are needed to recognise STUN.
pub const STUN_HEAD: u32 = 8;
/// Most attributes of a message; a client sends at most a dozen.
pub const ATTRIBUTES: u32 = 64;

/// Whether a datagram of `len` bytes is meant as STUN, by its first eight (the first in the lowest bits): its first two bits are zero, and
/// it has the magic cookie, or (RFC 3489, which had none) is as long as it says.
#[must_use]
#[inline(always)]
pub const fn is_stun(head: u64, len: u32) -> bool {
    let cookie = u32::swap_bytes((head >> 32) as u32) == MAGIC_COOKIE;
    head & 0xc0 == 0 && len >= HEADER && (cookie || length(head as u32) == len - HEADER && head as u8 <= 1)
}

/// The second two bytes of a header.
#[inline(always)]
const fn length(head: u32) -> u32 {
    u16::swap_bytes((head >> 16) as u16) as u32
}

/// Position in the attributes of a STUN message.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stun {
    /// Offset of the next attribute in the datagram.
    pub at: u32,
    /// Length of the datagram.
    pub end: u32,
    /// Attributes so far.
    pub count: u32,
}

impl Stun {
    /// The position before the first attribute. `None` when the stated length is not that of the datagram, or no multiple of four.
    #[must_use]
    #[inline(always)]
    pub const fn begin(head: u64, len: u32) -> Option<Stun> {
        let stated = length(head as u32);
        if stated + HEADER != len || !stated.is_multiple_of(4) {
            return None;
        }
        Some(Stun { at: HEADER, end: len, count: 0 })
    }

    /// Whether every attribute was checked.
    #[must_use]
    #[inline(always)]
    pub const fn has_ended(&self) -> bool {
        self.at == self.end
    }

    /// Checks one attribute (RFC 8489 section 14: type, length, value padded to four bytes), whose first four bytes are `head`. `false`
    /// when its length is wrong, or when there are more than [`ATTRIBUTES`].
    #[must_use]
    #[inline(always)]
    pub const fn attribute(&mut self, head: u32) -> bool {
        let (left, length) = (self.end - self.at, length(head));
        self.count += 1;
        if self.count > ATTRIBUTES || left < 4 || length > left - 4 {
            return false;
        }
        self.at += 4 + ((length + 3) & !3);
        self.at <= self.end
    }
}
