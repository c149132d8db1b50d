//! TCP connections from a port that is known before.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::Result;
use nix::{
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
};

use crate::netns::Netns;

/// Long enough for a SYN that nobody drops.
pub const SOON: Duration = Duration::from_millis(700);

/// A connection from `local` (port 0: any) in a namespace; `None` when none came about within `patience`.
///
/// The same port can be used again at once. Closing the connection resets it.
pub fn from(
    namespace: &Netns,
    local: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> Result<Option<TcpStream>> {
    namespace.enter(|| here(local, to, patience))?
}

/// The same in the namespace of this thread.
pub fn here(local: SocketAddr, to: SocketAddr, patience: Duration) -> Result<Option<TcpStream>> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let stream = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&stream, sockopt::ReuseAddr, &true)?;
    bind(stream.as_raw_fd(), &SockaddrStorage::from(local))?;
    let stream = TcpStream::from(stream);
    // The port is free again at once, also when nobody hears its end.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    // As of a send: it bounds the connect too.
    stream.set_write_timeout(Some(patience))?;
    Ok(connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).is_ok().then_some(stream))
}
