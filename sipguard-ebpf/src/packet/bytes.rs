//! Access to the frame. Every read is checked against the end of the linear part of the frame; data behind it is copied from the other
//! buffers of a multi-buffer frame. Values are in network order.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use sipguard_common::Reason;

use crate::cpu::{asm, scratch};

/// Largest offset of a header that is read: extension headers of IPv6 may fill a frame of 1,500 bytes. The verifier needs the bound, and that of Linux
/// 6.1 takes none that is much larger.
pub const MAX_OFFSET: usize = 0x7ff;

/// A frame: a received one (XDP), or one that is sent (traffic control).
pub trait Frame {
    /// Address of the first byte of the linear part.
    fn start(&self) -> usize;

    /// Address behind the linear part.
    fn end(&self) -> usize;

    /// Reads `size` bytes (1 to 4) at an offset behind the linear part. `Err` is [`Reason::Internal`]: behind the end of the frame, or not supported.
    fn beyond(&self, at: usize, size: usize) -> Result<u64, Reason>;

    /// Copies `size` bytes at an offset, in any buffer. Returns whether they exist.
    ///
    /// # Safety
    /// `into` has `size` bytes.
    unsafe fn load(&self, at: u32, into: *mut u8, size: u32) -> bool;
}

impl Frame for XdpContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn beyond(&self, at: usize, size: usize) -> Result<u64, Reason> {
        match bytes_beyond(self.ctx, at as u32, size as u32) {
            NONE => Err(Reason::Internal),
            value => Ok(value),
        }
    }

    #[inline(always)]
    unsafe fn load(&self, at: u32, into: *mut u8, size: u32) -> bool {
        // SAFETY: the caller's; the context is the one that the kernel gave.
        unsafe { bpf_xdp_load_bytes(self.ctx, at, into.cast(), size) == 0 }
    }
}

/// Headers behind the linear part are not read here.
impl Frame for TcContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn beyond(&self, _: usize, _: usize) -> Result<u64, Reason> {
        Err(Reason::Internal)
    }

    #[inline(always)]
    unsafe fn load(&self, at: u32, into: *mut u8, size: u32) -> bool {
        // SAFETY: the caller's; the context is the one that the kernel gave.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), at, into.cast(), size) == 0 }
    }
}

/// Length of the frame's linear part in bytes.
#[inline(always)]
pub fn linear_len(ctx: &XdpContext) -> u64 {
    (ctx.data_end() - ctx.data()) as u64
}

/// Length of the whole frame in bytes, with all buffers of a multi-buffer frame.
#[inline(always)]
pub fn frame_len(ctx: &XdpContext) -> u64 {
    // SAFETY: the context pointer is the one that the kernel gave.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// The eight bytes of metadata in front of the frame: in a replay, the time of the packet in nanoseconds. 0 without metadata.
#[inline(always)]
pub fn time_before(ctx: &XdpContext) -> u64 {
    let (time, end) = (ctx.metadata(), ctx.metadata_end());
    // SAFETY: checked against the end of the metadata.
    if time + 8 > end { 0 } else { unsafe { (time as *const u64).read() } }
}

/// Pointer to `size` bytes at offset `at`. `Err` unless all are in the linear part.
#[inline(always)]
pub fn pointer(frame: &impl Frame, at: usize, size: usize) -> Result<*mut u8, Reason> {
    let start = frame.start() + asm::mask::<{ MAX_OFFSET as u32 }>(at);
    if start + size > frame.end() {
        return Err(Reason::Internal);
    }
    Ok(start as *mut u8)
}

macro_rules! read {
    ($name:ident, $type:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub fn $name(frame: &impl Frame, at: usize) -> Result<$type, Reason> {
            let value = match pointer(frame, at, size_of::<$type>()) {
                // SAFETY: `pointer` is checked against the end of the linear part.
                Ok(pointer) => unsafe { asm::$name(pointer) },
                Err(_) => frame.beyond(at, size_of::<$type>())?,
            };
            Ok(value as $type)
        }
    };
}

read!(byte, u8, "The byte at an offset.");
read!(half, u16, "Two bytes at an offset, in network order.");
read!(word, u32, "Four bytes at an offset, in network order.");

/// Reads words at an offset, in network order, with one check for all of them.
#[inline(always)]
pub fn words<const N: usize>(ctx: &XdpContext, at: usize, words: &mut [u32; N]) -> Result<(), Reason> {
    if let Ok(pointer) = pointer(ctx, at, 4 * N) {
        let mut k = 0;
        while k < N {
            // SAFETY: as in the reads of one word.
            words[k] = unsafe { asm::word(pointer.add(4 * k)) } as u32;
            k += 1;
        }
        return Ok(());
    }
    let scratch = scratch::get()?;
    if bytes_words_beyond(ctx.ctx, at as u32, 4 * N as u32) != 0 {
        return Err(Reason::Internal);
    }
    let mut k = 0;
    while k < N {
        // SAFETY: this CPU's map value.
        words[k] = unsafe { (&raw const (*scratch).header).cast::<u32>().add(k).read() };
        k += 1;
    }
    Ok(())
}

/// What [`bytes_beyond`] returns behind the end of the frame.
const NONE: u64 = u64::MAX;

/// Reads `size` bytes (1 to 4) at an offset, in any buffer. A global function: verified once, for any read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bytes_beyond(ctx: *mut xdp_md, at: u32, size: u32) -> u64 {
    let mut value = 0u64;
    // SAFETY: at most eight bytes, the size of `value`.
    if unsafe { copy::<7>(&XdpContext::new(ctx), at, size, (&raw mut value).cast()) } { value } else { NONE }
}

/// A global function like [`bytes_beyond`]: copies `size` bytes (1 to 64) into [`scratch::Scratch::header`]. 0 is success.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bytes_words_beyond(ctx: *mut xdp_md, at: u32, size: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return 1 };
    // SAFETY: this CPU's map value, a field of 64 bytes.
    unsafe {
        (*scratch).frame_len = bpf_xdp_get_buff_len(ctx);
        u32::from(!copy::<63>(&XdpContext::new(ctx), at, size, (&raw mut (*scratch).header).cast()))
    }
}

/// Writes bytes at an offset of the linear part.
#[inline(always)]
pub fn write<const N: usize>(ctx: &XdpContext, at: usize, bytes: [u8; N]) -> Result<(), Reason> {
    let pointer = pointer(ctx, at, N)?;
    // SAFETY: `pointer` is checked against the end of the frame, and a byte array has no alignment.
    unsafe { pointer.cast::<[u8; N]>().write(bytes) };
    Ok(())
}

/// Copies `len` bytes at offset `at` of the frame, in any buffer. Returns whether they exist. `MASK + 1` is the size of `into`, a power of
/// two, and bounds `len` as [`asm::bounded`] does.
///
/// # Safety
/// `into` has `MASK + 1` bytes.
#[inline(always)]
pub unsafe fn copy<const MASK: u32>(frame: &impl Frame, at: u32, len: u32, into: *mut u8) -> bool {
    // SAFETY: the caller's, for a length of 1 to MASK + 1.
    unsafe { frame.load(at, into, asm::bounded::<MASK>(len)) }
}

/// The first 24 of `len` bytes (at least 1) at offset `at` of the frame, zero padded.
#[inline(always)]
pub fn head(frame: &impl Frame, at: u32, len: u32) -> Option<[u64; 3]> {
    let mut head = [0u64; 4];
    let len = if len < 24 { len } else { 24 };
    // SAFETY: at most 24 bytes into a buffer of 32.
    let loaded = unsafe { copy::<31>(frame, at, len, head.as_mut_ptr().cast()) };
    loaded.then_some([head[0], head[1], head[2]])
}
