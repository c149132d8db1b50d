//! Atomic operations of BPF on 64-bit words in map values; `core` has none for this target.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

/// Adds to a word.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, more: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) word, v = in(reg) more, options(nostack)) };
}

/// Sets bits of a word.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn or(word: *mut u64, bits: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("lock *(u64 *)({p} + 0) |= {v}", p = in(reg) word, v = in(reg) bits, options(nostack)) };
}

/// Adds to a word and returns the old value.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: the caller's.
    unsafe {
        asm!("{v} = atomic_fetch_add((u64 *)({p} + 0), {v})", p = in(reg) word, v = inout(reg) value, options(nostack));
    }
    value
}

/// Replaces a word and returns the old value. A full memory barrier.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: the caller's.
    unsafe { asm!("{v} = xchg_64({p} + 0, {v})", p = in(reg) word, v = inout(reg) value, options(nostack)) };
    value
}

/// [`exchange`] of a word of 32 bits.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn exchange_half(word: *mut u32, value: u32) -> u32 {
    let mut value = value;
    // SAFETY: the caller's.
    unsafe {
        asm!("{v} = xchg32_32({p} + 0, {v})", p = in(reg) word, v = inout(wreg) value, options(nostack));
    };
    value
}

/// Compare and swap: replaces `old` by `new`. Returns whether the word was `old`.
///
/// # Safety
/// `word` points into a live map value.
#[inline(always)]
pub unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", p = in(reg) word, n = in(reg) new, inout("r0") old => found,
             options(nostack));
    }
    found == old
}
