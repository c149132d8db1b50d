//! Loads, stores and bounds in the form that the verifier accepts. The compiler would change them: it removes masks that it can prove to
//! change nothing, rewrites comparisons, and reads single bytes where it does not know the alignment. BPF needs no alignment.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

/// A compiler barrier: after it, memory is read again.
#[inline(always)]
pub fn compiler_barrier() {
    // SAFETY: there is no instruction.
    unsafe { asm!("", options(nostack)) };
}

/// A number of turns that the compiler does not know, so that it repeats the loop's code instead of copying it for each turn. The verifier
/// knows it.
#[inline(always)]
pub fn rolled<const TURNS: u32>() -> u32 {
    let turns: u64;
    // SAFETY: no memory is touched.
    unsafe { asm!("{t} = {n}", t = lateout(reg) turns, n = const TURNS, options(nomem, nostack, pure)) };
    turns as u32
}

/// Keeps the bits of `MASK`.
#[inline(always)]
pub fn mask<const MASK: u32>(value: usize) -> usize {
    let mut value = value;
    // SAFETY: no memory is touched.
    unsafe { asm!("{v} &= {m}", v = inout(reg) value, m = const MASK, options(nomem, nostack)) };
    value
}

/// Bounds a length to 1 to `MASK + 1`, a power of two. A longer one loses its high bits; 0 becomes `MASK + 1`.
#[inline(always)]
pub fn bounded<const MASK: u32>(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: no memory is touched.
    unsafe {
        asm!("{l} += -1", "{l} &= {m}", "{l} += 1", l = inout(reg) len, m = const MASK, options(nomem, nostack));
    }
    len as u32
}

/// Reads one byte.
///
/// # Safety
/// `from` is readable.
#[inline(always)]
pub unsafe fn byte(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u8 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Reads two bytes in network order.
///
/// # Safety
/// Two bytes at `from` are readable.
#[inline(always)]
pub unsafe fn half(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u16 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Reads four bytes in network order.
///
/// # Safety
/// Four bytes at `from` are readable.
#[inline(always)]
pub unsafe fn word(from: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("{r} = *(u32 *)({p} + 0)", r = lateout(reg) value, p = in(reg) from, options(nostack, readonly));
    };
    value
}

/// Reads four bytes of a kernel object.
///
/// # Safety
/// `object` has a BTF type with four bytes at `offset`. The verifier checks this: the offset is a constant in frozen read-only data.
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

/// Reads two bytes of a kernel object.
///
/// # Safety
/// As for [`field`], with two bytes.
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

/// Reads eight bytes of a kernel object.
///
/// # Safety
/// As for [`field`], with eight bytes.
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

/// Reads eight bytes at an offset of the window; only the low 13 bits of the offset are used.
///
/// # Safety
/// `window` has 8200 bytes.
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

/// Writes eight bytes at an offset of the window; only the low 13 bits of the offset are used.
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

/// The 64 bytes of a block of the window; only the low 7 bits of the number are used. Not `pure`: marking and hashing each read the block,
/// because both sets of words together do not fit into the registers.
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
