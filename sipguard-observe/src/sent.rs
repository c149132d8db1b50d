//! What this machine sends: packets on their way out, read from a packet socket of each interface (packet(7)). The filter sees what comes in alone.

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use sipguard_common::Reason;
use sipguard_core::clock::Clock;
use sipguard_core::counters::Action;
use sipguard_core::maps;
use sipguard_core::pins::Pins;
use sipguard_core::presence::{iface_name, own_slots};

use crate::events::SenderFilter;
use crate::header::Header;
use crate::tap::TapPacket;

/// Longest frame that is read: what a card splits into segments by itself is one frame here.
const MOST_BYTES: usize = 1 << 18;
/// Memory of the kernel for packets that were not read yet, for each interface.
const BUFFER_BYTES: usize = 16 << 20;
/// Packets that are read of an interface in one go.
const AT_ONCE: usize = 1024;

/// How often the clocks are read.
const ATTEMPTS: usize = 16;
/// Any wall time of this machine, in nanoseconds since 1970: far enough on that its boot time is no less than 0.
const WALL_NS: i128 = 4_000_000_000_000_000_000;

/// Offset of the packet's type in the kernel's own data, for a filter (`SKF_AD_OFF + SKF_AD_PKTTYPE`).
const PACKET_TYPE: u32 = 0xffff_f004;
/// Lets through what is sent: loads the packet's type, compares, takes all or nothing.
const OUTGOING: [libc::sock_filter; 4] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, PACKET_TYPE),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::PACKET_OUTGOING as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, MOST_BYTES as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
];

/// An instruction that skips so many where its comparison fails.
const fn instruction(code: u32, otherwise: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k }
}

/// Packets of guarded ports on their way out.
pub(crate) struct SentPackets {
    sockets: Vec<(String, OwnedFd)>,
    ports: BTreeSet<u16>,
    to: Option<SenderFilter>,
    buffer: Vec<u8>,
    missed: u64,
}

impl SentPackets {
    /// Of the attached interfaces, from now on; with `to` only what goes there.
    ///
    /// # Errors
    /// When a socket can't be had, as for an interface of another network namespace.
    pub(crate) fn open(pins: &Pins, to: Option<SenderFilter>) -> Result<SentPackets> {
        let ports = maps::ports(pins)?;
        let open = |(_, iface): &(u32, sipguard_common::abi::Iface)| {
            let name = iface_name(iface);
            let socket = of_interface(iface.ifindex).with_context(|| {
                format!(
                    "listening to what goes out by {name}: it must be an interface of this network namespace"
                )
            })?;
            anyhow::Ok((name, socket))
        };
        Ok(SentPackets {
            sockets: own_slots(pins)?.iter().map(open).collect::<Result<_>>()?,
            ports: ports.sip.union(&ports.tls).copied().collect(),
            to,
            buffer: vec![0; MOST_BYTES],
            missed: 0,
        })
    }

    /// What went out since the last time, in no order.
    ///
    /// # Errors
    /// When a socket can't be read.
    pub(crate) fn read(&mut self) -> Result<Vec<TapPacket>> {
        let (mut packets, clock) = (Vec::new(), closest()?);
        for (name, socket) in &self.sockets {
            for _ in 0..AT_ONCE {
                let Some((len, sent_ns)) = receive(socket, &mut self.buffer)? else { break };
                let packet = packet(name, &self.buffer[..len], sent_ns, &clock);
                packets.extend(Some(packet).filter(|packet| is_wanted(packet, &self.ports, self.to)));
            }
        }
        Ok(packets)
    }

    /// Packets that came too fast to be read.
    pub(crate) fn missed(&mut self) -> u64 {
        for (_, socket) in &self.sockets {
            self.missed += dropped(socket);
        }
        self.missed
    }
}

/// The clocks, read as close to each other as some attempts allow: an answer may leave a few microseconds after its request came, and the two are
/// put in order by them. The boot time is read first, so the later it is for the same wall time, the less was between.
fn closest() -> Result<Clock> {
    let mut closest = Clock::now()?;
    for _ in 1..ATTEMPTS {
        let clock = Clock::now()?;
        if clock.boot_exactly(WALL_NS) > closest.boot_exactly(WALL_NS) {
            closest = clock;
        }
    }
    Ok(closest)
}

/// Whether it is from or to a guarded port, and to whom is asked for.
fn is_wanted(packet: &TapPacket, ports: &BTreeSet<u16>, to: Option<SenderFilter>) -> bool {
    let Some(header) = &packet.header else { return false };
    let is_guarded = header.ends.ports.iter().any(|port| ports.contains(port));
    is_guarded && to.is_none_or(|to| packet.destination().is_some_and(|end| to.has(end)))
}

/// A frame that was sent at a wall time (nanoseconds since 1970). It has no verdict: it passed.
fn packet(interface: &str, frame: &[u8], sent_ns: i128, clock: &Clock) -> TapPacket {
    let time_ns = clock.boot_exactly(sent_ns);
    TapPacket {
        number: 0,
        time_ns,
        time: clock.wall_exactly(time_ns),
        count: 1,
        interface: interface.to_owned(),
        trunk: None,
        reason: Reason::Valid,
        action: Action::Pass,
        client: None,
        header: Header::read(frame),
        frame_len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        frame: frame.to_vec(),
    }
}

/// A socket that has what an interface sends.
fn of_interface(ifindex: u32) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    // Of no protocol: until it is bound it has the packets of no interface.
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, flags, None).context("opening a packet socket")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("asking for times")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).context("asking for memory")?;
    let filter = libc::sock_fprog { len: OUTGOING.len() as u16, filter: OUTGOING.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the instructions, which it does not change, and the structure is as long as it says.
    let attached = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    Errno::result(attached).context("setting its filter")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(ifindex).context("the number of an interface")?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the structure is of the socket's family, and as long as it says.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    Errno::result(bound).context("binding it to its interface")?;
    Ok(socket)
}

/// The next frame: its length in the buffer, and when it was sent (nanoseconds since 1970). `None` where there is none.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(usize, i128)>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(TimeSpec);
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let message = match received {
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
        received => received.context("reading what goes out")?,
    };
    let stamp = |one| match one {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    };
    let sent = message.cmsgs().context("reading when it went out")?.find_map(stamp);
    let sent = sent.context("a packet without its time")?;
    Ok(Some((message.bytes, i128::from(sent.tv_sec()) * 1_000_000_000 + i128::from(sent.tv_nsec()))))
}

/// Packets that the kernel had no room for, since it was asked last.
fn dropped(socket: &OwnedFd) -> u64 {
    let mut told = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of_val(&told) as libc::socklen_t;
    // SAFETY: the structure is the one of this option, and as long as it says.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut told).cast(),
            &raw mut len,
        )
    };
    if asked == 0 { u64::from(told.tp_drops) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_guarded_port_or_for_somebody_else_is_left_out() {
        let clock = Clock::now().unwrap();
        let frame = |from: u16, to: u16| {
            let mut frame = vec![0; 12];
            frame
                .extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 203, 0, 113, 7]);
            frame.extend([from.to_be_bytes(), to.to_be_bytes(), [0, 12], [0, 0]].concat());
            frame.extend(b"SIP/");
            frame
        };
        let now_ns = jiff::Timestamp::now().as_nanosecond();
        let is = |from, to, whom: Option<&str>| {
            let packet = packet("eth0", &frame(from, to), now_ns, &clock);
            assert!(packet.time.as_nanosecond().abs_diff(now_ns) < 1_000_000);
            is_wanted(&packet, &[5060].into(), whom.map(|whom| whom.parse().unwrap()))
        };
        assert!(is(5060, 40_000, None) && is(40_000, 5060, None) && !is(40_000, 40_002, None));
        assert!(is(5060, 4001, Some("203.0.113.7:4001")) && is(5060, 4001, Some("203.0.113.0/24")));
        assert!(!is(5060, 4001, Some("203.0.113.7:4002")) && !is(5060, 4001, Some("192.0.2.1")));
    }
}
