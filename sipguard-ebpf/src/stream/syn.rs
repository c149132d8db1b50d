//! A SYN with payload (RFC 7413, TCP Fast Open) goes on without it: the kernel would take the bytes before there is a flow. The PBX acknowledges
//! the SYN alone, and the sender sends its bytes again (section 4.2).

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::wire::{ipv4, ipv6, tcp};

use crate::admit::policy;
use crate::cpu::scratch::Packet;
use crate::message::checksum;
use crate::packet::bytes;
use crate::verdict::reset::{fold, is_unfinished, pseudo_header};

/// Words of four bytes of the longest TCP header.
const WORDS: u32 = 15;

/// Cuts the payload off, by the lengths in the headers: the kernel trims the rest of the frame, and it never joins a SYN with another segment
/// (GRO), which would contradict a new length. `Err` is why the packet is dropped instead; in monitor mode nothing is changed.
// own frame: 48 bytes
#[inline(never)]
pub fn cut_payload(ctx: *mut xdp_md, packet: &mut Packet) -> Result<(), Reason> {
    let ctx = &XdpContext::new(ctx);
    if policy::is_monitored() {
        return Err(Reason::SynData);
    }
    let checksum_at = packet.l4_at as usize + tcp::CHECKSUM;
    let unfinished = is_unfinished(packet, bytes::half(ctx, checksum_at)?);
    if !unfinished && checksum::is_wrong(ctx) {
        return Err(Reason::BadChecksum);
    }
    let header = packet.data_at - packet.l4_at;
    let mut sum = pseudo_header(packet, header as u16);
    bytes::write(ctx, checksum_at, [0; 2])?;
    if unfinished {
        bytes::write(ctx, checksum_at, (!fold(sum)).to_ne_bytes())?;
    } else {
        for word in 0..WORDS {
            if 4 * word < header {
                sum += u64::from(bytes::word(ctx, (packet.l4_at + 4 * word) as usize)?);
            }
        }
        bytes::write(ctx, checksum_at, fold(sum).to_ne_bytes())?;
    }
    let ip_at = packet.ip_at as usize;
    let length_at = ip_at + if packet.v6 != 0 { ipv6::PAYLOAD_LEN } else { ipv4::TOTAL_LEN };
    let old = bytes::half(ctx, length_at)?;
    let new = u16::from_be(old).wrapping_sub(packet.data_len as u16).to_be();
    bytes::write(ctx, length_at, new.to_ne_bytes())?;
    if packet.v6 == 0 {
        // RFC 1624 equation 3.
        let stored = bytes::half(ctx, ip_at + ipv4::CHECKSUM)?;
        let sum = u64::from(!stored) + u64::from(!old) + u64::from(new);
        bytes::write(ctx, ip_at + ipv4::CHECKSUM, fold(sum).to_ne_bytes())?;
    }
    packet.data_len = 0;
    packet.new_len = 0;
    Ok(())
}
