//! Loads, stores and bounds as they must stand for the verifier, which rustc would write otherwise: it removes masks that it can prove to change
//! nothing, rewrites comparisons, and reads single bytes where it does not know the alignment. BPF on this target needs none.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

/// What stands in memory is read again behind this: rustc assumes nothing about it.
#[inline(always)]
pub fn forget_memory() {
    // SAFETY: there is no instruction.
    unsafe { asm!("", options(nostack)) };
}

/// Keeps the bits of `MASK`.
#[inline(always)]
pub fn mask<const MASK: u32>(value: usize) -> usize {
    let mut value = value;
    // SAFETY: no memory is touched.
    unsafe { asm!("{v} &= {m}", v = inout(reg) value, m = const MASK, options(nomem, nostack)) };
    value
}

/// A length of 1 to `MASK + 1`, a power of two: a longer one is cut by the mask, and 0 becomes `MASK + 1`.
#[inline(always)]
pub fn bounded<const MASK: u32>(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: no memory is touched.
    unsafe {
        asm!("{l} += -1", "{l} &= {m}", "{l} += 1", l = inout(reg) len, m = const MASK, options(nomem, nostack));
    }
    len as u32
}

/// One byte.
///
/// # Safety
/// `from` may be read.
#[inline(always)]
pub unsafe fn byte(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u8 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Two bytes, as they stand there.
///
/// # Safety
/// Two bytes at `from` may be read.
#[inline(always)]
pub unsafe fn half(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u16 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Four bytes, as they stand there.
///
/// # Safety
/// Four bytes at `from` may be read.
#[inline(always)]
pub unsafe fn word(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u32 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Four bytes of a kernel object.
///
/// # Safety
/// `object` has a BTF type that has four bytes at `offset`; the verifier checks the offset, a constant of the frozen read-only data.
#[inline(always)]
pub unsafe fn field(object: *const u8, offset: u32) -> u32 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{p} += {o}", "{r} = *(u32 *)({p} + 0)", p = inout(reg) object => _, o = in(reg) u64::from(offset),
             r = lateout(reg) value, options(nostack, readonly));
    }
    value as u32
}

/// Two bytes of a kernel object.
///
/// # Safety
/// As for [`field`], of two bytes.
#[inline(always)]
pub unsafe fn half_field(object: *const u8, offset: u32) -> u16 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{p} += {o}", "{r} = *(u16 *)({p} + 0)", p = inout(reg) object => _, o = in(reg) u64::from(offset),
             r = lateout(reg) value, options(nostack, readonly));
    }
    value as u16
}

/// Eight bytes of a kernel object.
///
/// # Safety
/// As for [`field`], of eight bytes.
#[inline(always)]
pub unsafe fn long_field(object: *const u8, offset: u32) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{p} += {o}", "{r} = *(u64 *)({p} + 0)", p = inout(reg) object => _, o = in(reg) u64::from(offset),
             r = lateout(reg) value, options(nostack, readonly));
    }
    value
}

/// Eight bytes at an offset of the window, which is cut to 13 bits.
///
/// # Safety
/// `window` has 8192 bytes and eight more.
#[inline(always)]
pub unsafe fn window_word(window: *const u8, at: u32) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{o} &= 0x1fff", "{o} += {b}", "{r} = *(u64 *)({o} + 0)", o = inout(reg) u64::from(at) => _,
             b = in(reg) window, r = lateout(reg) value, options(nostack, readonly));
    }
    value
}

/// Writes eight bytes at an offset of the window, which is cut to 13 bits.
///
/// # Safety
/// As for [`window_word`].
#[inline(always)]
pub unsafe fn set_window_word(window: *mut u8, at: u32, word: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("{o} &= 0x1fff", "{o} += {b}", "*(u64 *)({o} + 0) = {w}", o = inout(reg) u64::from(at) => _,
             b = in(reg) window, w = in(reg) word, options(nostack));
    }
}

/// The 64 bytes of a block of the window, whose number is cut to 7 bits. Not `pure`, so that marking and hashing each read the block anew: the
/// words of both at once would be more than the registers hold.
///
/// # Safety
/// `window` has 8192 bytes.
#[inline(always)]
pub unsafe fn window_block(window: *const u8, number: u32) -> *const [u64; 8] {
    let start: *const [u64; 8];
    // SAFETY: the caller's.
    unsafe {
        asm!("{o} &= 0x7f", "{o} <<= 6", "{o} += {b}", o = inout(reg) u64::from(number) => start, b = in(reg) window,
             options(nostack, readonly));
    }
    start
}
