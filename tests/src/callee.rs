//! A device that the PBX calls: the TCP of our own at the other end of a connection that the PBX opens.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
};

use crate::{
    application::{PATIENCE, wait_until},
    envelope::Envelope,
    guard::Site,
    lab::{DEVICE, Lab},
    packet::{ACK, RST, SYN},
    segment::Answer,
    sender::Sender,
    witness::Witness,
};

/// A connection that the PBX has begun, and to which nobody has answered yet.
pub struct Call<'a> {
    /// The device's end. It stands behind a handshake that is still to be sent: [`Sender::syn_ack`].
    pub sender: Sender<'a>,
    stream: TcpStream,
}

impl<'a> Call<'a> {
    /// Lets the PBX dial a port of the device, from `local` (0: any). The device's first byte will have sequence number `first`.
    pub fn begin(lab: &'a Lab, family: usize, local: u16, port: u16, first: u32) -> Result<Self> {
        while lab.wire.receive(Instant::now())?.is_some() {}
        let from = SocketAddr::new(lab.address(family), local);
        let to = SocketAddr::new(DEVICE[family], port);
        let stream = lab.pbx().enter(|| dial(from, to))?.with_context(|| format!("dialling {to}"))?;
        let end = Instant::now() + PATIENCE;
        while let Some(frame) = lab.wire.receive(end)? {
            let Some(syn) = Answer::parse(&frame, DEVICE[family]) else { continue };
            if syn.to_port != port || syn.flags & (SYN | ACK | RST) != SYN {
                continue;
            }
            let mut sender = lab.sender(family, first);
            sender.envelope = Envelope::new(DEVICE[family], Site::PBX[family]);
            sender.ports = [port, syn.from_port];
            (sender.ack, sender.echo) = (syn.seq.wrapping_add(1), syn.timestamp);
            return Ok(Self { sender, stream });
        }
        bail!("the PBX does not dial {to}")
    }

    /// Answers, and waits until the PBX has the connection.
    pub fn answer(mut self) -> Result<(Sender<'a>, Witness)> {
        let answer = self.sender.syn_ack();
        self.sender.send(&answer)?;
        self.established()
    }

    /// Waits until the PBX has the connection.
    pub fn established(self) -> Result<(Sender<'a>, Witness)> {
        wait_until("the PBX takes the answer", || {
            Ok(self.stream.peer_addr().is_ok() || self.stream.take_error()?.is_some())
        })?;
        Ok((self.sender, Witness::new(self.stream)?))
    }
}

/// Begins to connect, in the namespace of this thread.
fn dial(from: SocketAddr, to: SocketAddr) -> nix::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno),
    }
}
