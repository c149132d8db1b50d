//! A malformed segment becomes a RST for the PBX's socket: the application never sees a bad byte and its connection closes
//! cleanly, and the device gets a RST from the kernel on its next segment (RFC 9293 section 3.5.3).
//!
//! The frame keeps its length. What is behind the RST is no part of the packet any more, for the IP header says where that ends, and the
//! kernel trims it (`ip_rcv_core`, `ip6_rcv_core`). `bpf_xdp_adjust_tail` is not an option: it panics kernels when the frame has
//! several buffers (docs/kernels.md).

use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;

use crate::bytes;
use crate::ip::TCP;
use crate::scratch::{self, Packet};
use crate::tcp::{ACK, RST};

const TCP_HEADER: usize = 20;

/// Rewrites the frame in place. `Err` leaves a frame that must not pass: a datagram, or one whose headers can't be written.
#[inline(always)]
pub fn rewrite(ctx: &XdpContext) -> Result<(), Reason> {
    let packet = scratch::packet()?;
    if packet.transport == scratch::UDP {
        return Err(Reason::NotGuarded);
    }
    let ip_at = packet.ip_at as usize;
    let tcp_at = packet.l4_at as usize;
    let old_total = bytes::half(ctx, ip_at + 2)?;
    let old_checksum = bytes::half(ctx, ip_at + 10)?;
    let acknowledged = bytes::word(ctx, tcp_at + 8)?;
    let unfinished = is_unfinished(packet, bytes::half(ctx, tcp_at + 16)?);

    let ip_len = (tcp_at + TCP_HEADER - ip_at) as u16;
    if packet.v6 != 0 {
        bytes::write(ctx, ip_at + 4, (ip_len - 40).to_be_bytes())?;
    } else {
        // Only the total length changes: RFC 1624 equation 3.
        let sum = u32::from(!old_checksum) + u32::from(!old_total) + u32::from(ip_len.to_be());
        bytes::write(ctx, ip_at + 2, ip_len.to_be_bytes())?;
        bytes::write(ctx, ip_at + 10, fold(u64::from(sum)).to_ne_bytes())?;
    }

    let flags = [5 << 4, RST | ACK];
    let seq = packet.expected.to_be();
    let pseudo = pseudo_header(packet, TCP_HEADER as u16);
    let sum = pseudo
        + u64::from(packet.key[8])
        + u64::from(seq)
        + u64::from(acknowledged)
        + u64::from(u16::from_ne_bytes(flags));
    let checksum = if unfinished { !fold(pseudo) } else { fold(sum) };
    bytes::write(ctx, tcp_at + 4, seq.to_ne_bytes())?;
    bytes::write(ctx, tcp_at + 12, flags)?;
    bytes::write(ctx, tcp_at + 14, [0, 0])?;
    bytes::write(ctx, tcp_at + 16, checksum.to_ne_bytes())?;
    bytes::write(ctx, tcp_at + 18, [0, 0])
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
