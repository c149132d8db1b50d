//! The bare wire: whole Ethernet frames to and from an interface (AF_PACKET).

use std::{
    io::{Error, ErrorKind},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use crate::netns::Netns;

/// Longest frame that is received.
const LONGEST: usize = 1 << 17;
/// Frames handed to the kernel with one call.
const BATCH: usize = 64;

/// An interface, frame by frame. It sees what comes in by the interface, whomever it is for, and not what is sent here.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens an interface of a namespace.
    pub fn open(namespace: &Netns, interface: &str) -> Result<Self> {
        namespace.enter(|| Self::open_here(interface))?.with_context(|| format!("opening {interface}"))
    }

    /// The same, where a frame goes by the queue of the processor that sends it.
    pub fn past_queues(namespace: &Netns, interface: &str) -> Result<Self> {
        let wire = Self::open(namespace, interface)?;
        option(&wire.socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        Ok(wire)
    }

    fn open_here(interface: &str) -> Result<Self> {
        let index = if_nametoindex(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol nothing comes in before it is bound.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let all = SockProtocol::EthAll as i32 as u16;
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
        option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // SAFETY: all zeros is an address of this plain struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = index as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address and its size belong together and outlive the call.
        Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
        Ok(Self { socket })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.wait(PollFlags::POLLOUT, Duration::from_secs(1))?
                }
                Err(errno) => return Err(errno).context("sending a frame"),
            };
        }
    }

    /// Sends many frames with few calls.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<()> {
        for batch in frames.chunks(BATCH) {
            let mut parts: Vec<libc::iovec> = batch
                .iter()
                .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
                .collect();
            let mut messages: Vec<libc::mmsghdr> = parts
                .iter_mut()
                .map(|part| {
                    // SAFETY: all zeros is a message without parts.
                    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                    message.msg_hdr.msg_iov = part;
                    message.msg_hdr.msg_iovlen = 1;
                    message
                })
                .collect();
            let mut sent = 0;
            while sent < messages.len() {
                let rest = &mut messages[sent..];
                // SAFETY: the messages, their parts and the frames outlive the call, which only reads the frames.
                let count = unsafe {
                    libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
                };
                match Errno::result(count) {
                    Ok(count) => sent += count as usize,
                    Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                        self.wait(PollFlags::POLLOUT, Duration::from_secs(1))?;
                    }
                    Err(errno) => return Err(errno).context("sending frames"),
                }
            }
        }
        Ok(())
    }

    /// The next frame that comes in until `until`; `None` when none did.
    pub fn receive(&self, until: Instant) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; LONGEST];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno).context("receiving a frame"),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait(PollFlags::POLLIN, left)? {
                return Ok(None);
            }
        }
    }

    /// Whether there is something to receive or room to send within `patience`.
    fn wait(&self, what: PollFlags, patience: Duration) -> Result<bool> {
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout = PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), what)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno).context("waiting for an interface"),
        }
    }
}

/// Waits until one of the wires has a frame, for `patience` at the most.
pub fn wait_for_any(wires: &[&Wire], patience: Duration) -> Result<()> {
    let mut waiting: Vec<_> =
        wires.iter().map(|wire| PollFd::new(wire.socket.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context("waiting for interfaces"),
    }
}

/// Sets a socket option that is an int.
pub fn option(socket: &impl std::os::fd::AsRawFd, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: the kernel reads an int at `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).with_context(|| format!("setting option {name} of level {level}"))
}

/// Whether a non-blocking call only has to be made again later.
#[must_use]
pub fn is_not_yet(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
