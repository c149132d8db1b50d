//! The framer's window over this CPU's scratch bytes.

use core::arch::asm;

use sipguard_common::framer::Window;

/// The window of the framer: the first bytes of [`Scratch`].
pub struct Bytes(pub *mut u8);

impl Window for Bytes {
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        let value: u64;
        // SAFETY: the mask keeps the offset below WINDOW, and eight bytes more belong to the array. It is asm because rustc
        // removes masks that it can prove to change nothing, and reads single bytes where alignment is unknown.
        unsafe {
            asm!("{o} &= 0x1fff", "{o} += {b}", "{r} = *(u64 *)({o} + 0)", o = inout(reg) u64::from(at) => _,
                 b = in(reg) self.0, r = lateout(reg) value, options(nostack, readonly));
        }
        value
    }

    #[inline(always)]
    fn set_word(&mut self, at: u32, word: u64) {
        // SAFETY: as in `word`.
        unsafe {
            asm!("{o} &= 0x1fff", "{o} += {b}", "*(u64 *)({o} + 0) = {w}", o = inout(reg) u64::from(at) => _,
                 b = in(reg) self.0, w = in(reg) word, options(nostack));
        }
    }

    #[inline(always)]
    fn block(&self, number: u32) -> &[u64; 8] {
        let start: *const [u64; 8];
        // SAFETY: the mask keeps the block within the window; blocks start at multiples of 64 of a map value. Not `pure`, so that
        // marking and hashing each read the block anew: the words of both at once would be more than the registers hold.
        unsafe {
            asm!("{o} &= 0x7f", "{o} <<= 6", "{o} += {b}", o = inout(reg) u64::from(number) => start, b = in(reg) self.0,
                 options(nostack, readonly));
            &*start
        }
    }
}
