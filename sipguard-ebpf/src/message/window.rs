//! The framer's window over this CPU's scratch memory.

use sipguard_common::framer::{Window, scan};

use crate::cpu::{asm, scratch};

/// The window of the framer: the first bytes of [`scratch::Scratch`].
pub struct Bytes(pub *mut u8);

impl Window for Bytes {
    #[inline(always)]
    fn word(&self, at: u32) -> u64 {
        // SAFETY: these are the WINDOW + 8 bytes of the scratch memory.
        unsafe { asm::window_word(self.0, at) }
    }

    #[inline(always)]
    fn set_word(&mut self, at: u32, word: u64) {
        // SAFETY: as in `word`.
        unsafe { asm::set_window_word(self.0, at, word) };
    }

    #[inline(always)]
    fn block(&self, number: u32) -> &[u64; 8] {
        // SAFETY: as in `word`; blocks start at multiples of 64 bytes of a map value.
        unsafe { &*asm::window_block(self.0, number) }
    }

    #[inline(always)]
    fn name(&self, at: u32, len: u32) -> u32 {
        window_name(at, len)
    }

    #[inline(always)]
    fn via(&self, at: u32, len: u32, from: u32) -> u32 {
        window_via(at, len, from)
    }

    #[inline(always)]
    fn equal(&self, at: u32, len: u32, byte: u8) -> u64 {
        window_equal(at, len, u32::from(byte))
    }

    #[inline(always)]
    fn blanks(&self, at: u32, len: u32) -> u64 {
        window_blanks(at, len)
    }

    #[inline(always)]
    fn line_ends(&self, at: u32, len: u32) -> u64 {
        window_line_ends(at, len)
    }

    #[inline(always)]
    fn host_ends(&self, at: u32, len: u32) -> u64 {
        window_host_ends(at, len)
    }

    #[inline(always)]
    fn of_users(&self, at: u32, len: u32) -> u64 {
        window_of_users(at, len)
    }

    #[inline(always)]
    fn digits(&self, at: u32, len: u32) -> u64 {
        window_digits(at, len)
    }

    #[inline(always)]
    fn not_visible(&self, at: u32, len: u32) -> u64 {
        window_not_visible(at, len)
    }

    #[inline(always)]
    fn not_of_tokens(&self, at: u32, len: u32) -> u64 {
        window_not_of_tokens(at, len)
    }

    #[inline(always)]
    fn quoted_pairs(&self, at: u32, len: u32) -> u64 {
        window_quoted_pairs(at, len)
    }
}

/// The only window of this CPU.
#[inline(always)]
fn window() -> Option<Bytes> {
    // SAFETY: this CPU's map value.
    scratch::get().ok().map(|scratch| Bytes(unsafe { (*scratch).window.as_mut_ptr() }))
}

/// A global function: verified once, for any line.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn window_equal(at: u32, len: u32, byte: u32) -> u64 {
    window().map_or(0, |window| scan::equal(&window, at, len, byte as u8))
}

/// A global function like [`window_equal`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn window_name(at: u32, len: u32) -> u32 {
    window().map_or(scan::BAD_NAME, |window| scan::name(&window, at, len))
}

/// A global function like [`window_equal`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn window_via(at: u32, len: u32, from: u32) -> u32 {
    window().map_or(scan::NO_PORT, |window| scan::via(&window, at, len, from))
}

macro_rules! scans {
    ($($name:ident $function:ident;)*) => {$(
        /// A global function like [`window_equal`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $function(at: u32, len: u32) -> u64 {
            window().map_or(0, |window| scan::$name(&window, at, len))
        }
    )*};
}

scans! {
    blanks window_blanks;
    line_ends window_line_ends;
    host_ends window_host_ends;
    of_users window_of_users;
    digits window_digits;
    not_visible window_not_visible;
    not_of_tokens window_not_of_tokens;
    quoted_pairs window_quoted_pairs;
}
