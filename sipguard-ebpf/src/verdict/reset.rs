//! A malformed segment becomes a RST for the PBX's socket: the application never reads a malformed byte and its connection closes, and the
//! device gets a RST from the kernel on its next segment (RFC 9293 section 3.5.3).
//!
//! All lengths stay as they are. The payload becomes the data of the RST, which a RST may have (SHLD-2) and which the receiver ignores (section
//! 3.10.7.4). The frame is not shortened, because `bpf_xdp_adjust_tail` panics some kernels when the frame has several buffers, and a new
//! length in the IP header would contradict the kernel's metadata of joined segments (docs/internals/kernels.md).

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::wire::protocol::TCP;
use sipguard_common::wire::tcp::{ACK, CHECKSUM, DATA_OFFSET, RST, SEQ};

use crate::cpu::scratch::{self, Packet};
use crate::packet::bytes;

/// Rewrites the frame in place. On `Err` the frame must be dropped: it is a datagram, or its header is not in the linear part.
#[inline(always)]
pub fn rewrite(ctx: &XdpContext) -> Result<(), Reason> {
    // SAFETY: this CPU's map value, which nothing changes once the verdict is decided.
    let packet = unsafe { &*scratch::packet()? };
    if packet.transport == scratch::UDP {
        return Err(Reason::NotGuarded);
    }
    let tcp_at = packet.l4_at as usize;
    let old_seq = bytes::word(ctx, tcp_at + SEQ)?;
    let old_flags = bytes::half(ctx, tcp_at + DATA_OFFSET)?;
    let old_checksum = bytes::half(ctx, tcp_at + CHECKSUM)?;

    let seq = packet.expected.to_be();
    let data_offset = old_flags & u16::from_ne_bytes([0xf0, 0]);
    let flags = data_offset | u16::from_ne_bytes([0, RST | ACK]);
    bytes::write(ctx, tcp_at + SEQ, seq.to_ne_bytes())?;
    bytes::write(ctx, tcp_at + DATA_OFFSET, flags.to_ne_bytes())?;
    if is_unfinished(packet, old_checksum) {
        // The checksum is completed later, over the rewritten bytes.
        return Ok(());
    }
    // RFC 1624 equation 3. A wrong checksum stays wrong.
    let sum = u64::from(!old_checksum)
        + u64::from(!old_seq)
        + u64::from(seq)
        + u64::from(!old_flags)
        + u64::from(flags);
    bytes::write(ctx, tcp_at + CHECKSUM, fold(sum).to_ne_bytes())
}

/// Whether the checksum field `stored` has only the sum of the pseudo-header: the sender, or a kernel that joined segments (GRO), leaves the rest
/// to the hardware (`CHECKSUM_PARTIAL`).
#[inline(always)]
pub fn is_unfinished(packet: &Packet, stored: u16) -> bool {
    let len = packet.data_at - packet.l4_at + packet.data_len;
    stored == !fold(pseudo_header(packet, len as u16))
}

/// Sum of the pseudo-header of a segment of `len` bytes, over words in network order (RFC 1071: byte order does not matter).
#[inline(always)]
pub fn pseudo_header(packet: &Packet, len: u16) -> u64 {
    let mut sum = u64::from(u16::from(TCP).to_be()) + u64::from(len.to_be());
    for half in [0, 4] {
        // An IPv4 address is in the last word; the prefix of an IPv4-mapped address is not part of the pseudo-header.
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
