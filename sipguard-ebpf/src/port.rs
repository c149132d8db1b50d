//! Is it ours: TCP or UDP with a guarded port on either side. With a TCP trunk that the PBX dials, the peer's segments come
//! *from* port 5060.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{PORT_WORDS, port_bit};

use crate::bytes;
use crate::ip::{self, Ip};

#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

pub enum Transport {
    Tcp,
    Udp,
}

#[inline(always)]
pub fn guarded(ctx: &XdpContext, ip: &Ip) -> Result<Transport, Reason> {
    let transport = match ip.protocol {
        ip::TCP => Transport::Tcp,
        ip::UDP => Transport::Udp,
        _ => return Err(Reason::NotGuarded),
    };
    let tcp = matches!(transport, Transport::Tcp);
    if ip.fragment_offset != 0 {
        // A later fragment has no ports. One that would overwrite the TCP header is an attack (RFC 3128).
        return Err(if tcp && ip.fragment_offset == 1 { Reason::TcpFragment } else { Reason::NotGuarded });
    }
    if ip.more_fragments && tcp && ip.l4_len < 20 {
        return Err(Reason::TcpFragment);
    }
    if ip.l4_len < 4 {
        return Err(Reason::NotGuarded);
    }
    let ports = bytes::word(ctx, ip.l4_at)?;
    let remote = u16::from_be(ports as u16);
    let local = u16::from_be((ports >> 16) as u16);
    if !is_guarded(local) && !is_guarded(remote) {
        return Err(Reason::NotGuarded);
    }
    if ip.more_fragments && tcp {
        return Err(Reason::TcpFragment);
    }
    Ok(transport)
}

#[inline(always)]
fn is_guarded(port: u16) -> bool {
    let (word, bit) = port_bit(port);
    PORTS.get(word).is_some_and(|ports| ports & bit != 0)
}
