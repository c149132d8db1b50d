//! A malformed segment becomes a RST for the PBX's socket: the application never sees a bad byte and its connection closes
//! cleanly, and the device gets a RST from the kernel on its next segment (RFC 9293 section 3.5.3).
//!
//! Every length stays as it is, and the bytes become the data of a RST, which may have some (SHLD-2) and whose receiver looks at none (section 3.10.7.4).
//! `bpf_xdp_adjust_tail` panics kernels when the frame has several buffers, and a new length in the IP header does not fit what the
//! kernel knows of joined segments (docs/internals/kernels.md).

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use crate::cpu::scratch::{self, Packet};
use crate::packet::bytes;
use crate::packet::ip::TCP;
use crate::packet::tcp::{ACK, RST};

/// Rewrites the frame in place. `Err` leaves a frame that must not pass: a datagram, or one whose header can't be written.
#[inline(always)]
pub fn rewrite(ctx: &XdpContext) -> Result<(), Reason> {
    // SAFETY: this CPU's map value, which nothing changes once the verdict is spoken.
    let packet = unsafe { &*scratch::packet()? };
    if packet.transport == scratch::UDP {
        return Err(Reason::NotGuarded);
    }
    let tcp_at = packet.l4_at as usize;
    let old_seq = bytes::word(ctx, tcp_at + 4)?;
    let old_flags = bytes::half(ctx, tcp_at + 12)?;
    let old_checksum = bytes::half(ctx, tcp_at + 16)?;

    let seq = packet.expected.to_be();
    let data_offset = old_flags & u16::from_ne_bytes([0xf0, 0]);
    let flags = data_offset | u16::from_ne_bytes([0, RST | ACK]);
    bytes::write(ctx, tcp_at + 4, seq.to_ne_bytes())?;
    bytes::write(ctx, tcp_at + 12, flags.to_ne_bytes())?;
    if is_unfinished(packet, old_checksum) {
        // Whoever finishes it sums what stands there then.
        return Ok(());
    }
    // RFC 1624 equation 3. A damaged segment stays one.
    let sum = u64::from(!old_checksum)
        + u64::from(!old_seq)
        + u64::from(seq)
        + u64::from(!old_flags)
        + u64::from(flags);
    bytes::write(ctx, tcp_at + 16, fold(sum).to_ne_bytes())
}

/// Whether the checksum of the segment is only begun: `said` is the sum of the pseudo-header alone. The sender, or the kernel that joined segments
/// (GRO), leaves the rest to the hardware (`CHECKSUM_PARTIAL`), and whoever sends such a frame on goes on from there.
#[inline(always)]
pub fn is_unfinished(packet: &Packet, said: u16) -> bool {
    let len = packet.data_at - packet.l4_at + packet.data_len;
    said == !fold(pseudo_header(packet, len as u16))
}

/// Sum of the pseudo-header of a segment of `len` bytes, in words as they lie in memory (RFC 1071: byte order does not matter).
#[inline(always)]
pub fn pseudo_header(packet: &Packet, len: u16) -> u64 {
    let mut sum = u64::from(u16::from(TCP).to_be()) + u64::from(len.to_be());
    for half in [0, 4] {
        // An IPv4 address stands in the last word; the mapped prefix is not part of the pseudo-header.
        sum += u64::from(packet.key[half + 3]);
        if packet.v6 != 0 {
            sum += u64::from(packet.key[half])
                + u64::from(packet.key[half + 1])
                + u64::from(packet.key[half + 2]);
        }
    }
    sum
}

/// The complement of a ones' complement sum, folded to 16 bits.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
