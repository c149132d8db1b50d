//! STUN on the SIP port (RFC 8489 section 5): a NAT keep-alive of phones (RFC 5626 section 3.5.2), told apart from SIP by its first
//! two bits.

use super::window::{DATA, Window};

const HEADER: u32 = 20;
const MAGIC_COOKIE: u32 = 0x2112_a442;
/// Attributes that are walked, one a step.
pub const ATTRIBUTES: u32 = 64;

/// Whether a datagram of `len` bytes at [`DATA`] is meant as STUN: its first two bits are zero, and it has the magic cookie, or
/// (RFC 3489, which had none) is as long as it says.
#[must_use]
#[inline(always)]
pub fn is_stun<W: Window>(window: &W, len: u32) -> bool {
    let head = window.word(DATA);
    let cookie = u32::swap_bytes((head >> 32) as u32) == MAGIC_COOKIE;
    head & 0xc0 == 0 && len >= HEADER && (cookie || length(head) == len - HEADER && head as u8 <= 1)
}

#[inline(always)]
fn length(head: u64) -> u32 {
    u32::from(u16::swap_bytes((head >> 16) as u16))
}

/// A walk over the attributes of a STUN message.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stun {
    /// Offset of the next attribute.
    pub at: u32,
    /// End of the message.
    pub end: u32,
}

impl Stun {
    /// Begins the walk. `None` when the length is not true: not that of the datagram, or no multiple of four.
    #[must_use]
    #[inline(always)]
    pub fn begin<W: Window>(window: &W, len: u32) -> Option<Stun> {
        let said = length(window.word(DATA));
        if said + HEADER != len || !said.is_multiple_of(4) {
            return None;
        }
        Some(Stun { at: DATA + HEADER, end: DATA + len })
    }

    /// Goes over one attribute (RFC 8489 section 14: type, length, value padded to four bytes). `Some(true)` is the end,
    /// `Some(false)` says that there is more, `None` that the attribute's length is not true.
    #[must_use]
    #[inline(always)]
    pub fn attribute<W: Window>(&mut self, window: &W) -> Option<bool> {
        if self.at == self.end {
            return Some(true);
        }
        let left = self.end - self.at;
        let length = u32::from(u16::swap_bytes((window.word(self.at) >> 16) as u16));
        if left < 4 || length > left - 4 {
            return None;
        }
        self.at += 4 + ((length + 3) & !3);
        if self.at > self.end { None } else { Some(self.at == self.end) }
    }
}
