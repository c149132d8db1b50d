//! TCP connections from a port that is known before.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::netns::Netns;

/// How long nobody answers a SYN that is dropped, as far as a test waits. Whoever expects an answer has
/// [`PATIENCE`](crate::application::PATIENCE).
pub const SOON: Duration = Duration::from_millis(700);

/// How long a port may stay taken.
const FREE: Duration = Duration::from_secs(20);

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
    let until = Instant::now() + FREE;
    loop {
        match attempt(local, to, patience) {
            // A program that another thread starts holds the connection that was closed here, until it is under way.
            Err(Errno::EADDRINUSE | Errno::EADDRNOTAVAIL) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            // In progress: the time is over.
            Err(Errno::EINPROGRESS | Errno::EAGAIN | Errno::ETIMEDOUT) => return Ok(None),
            Err(Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                return Ok(None);
            }
            connected => {
                return connected.map(Some).with_context(|| format!("connecting from {local} to {to}"));
            }
        }
    }
}

fn attempt(local: SocketAddr, to: SocketAddr, patience: Duration) -> nix::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // The port is free again at once, also when nobody hears its end.
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    // As of a send: it bounds the connect too.
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(patience.as_millis() as i64))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}
