//! Ends a TCP connection of this host: the kernel resets it towards its peer, and the application's next call fails with `ECONNABORTED`
//! (`SOCK_DESTROY` of `linux/sock_diag.h`, Linux 4.5 with `CONFIG_INET_DIAG_DESTROY`; `CAP_NET_ADMIN`).

use anyhow::{Context, Result, bail};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP};
use sipguard_common::abi::FlowKey;

/// `SOCK_DIAG_BY_FAMILY`, with `NLM_F_REQUEST`.
const FIND: (u16, u16) = (20, 1);
/// `SOCK_DESTROY`, with `NLM_F_REQUEST | NLM_F_ACK`.
const DESTROY: (u16, u16) = (21, 5);
/// `INET_DIAG_NOCOOKIE`: whichever socket it is.
const ANY: [u8; 8] = [0xff; 8];
/// States of a socket that has a peer: all but the listening (10) and closed (7), and what is none yet or no more (3, 6, 12).
const CONNECTED: [u8; 7] = [1, 2, 4, 5, 8, 9, 11];
/// `NLMSG_ERROR`, which a success is as well.
const ERROR: u16 = 2;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` behind it.
const REQUEST: usize = HEADER + 56;

/// A socket for such requests.
pub(crate) struct Destroyer(Socket);

impl Destroyer {
    /// Opens it, for the network namespace at hand.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) fn new() -> Result<Destroyer> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("opening sock_diag")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Destroyer(socket))
    }

    /// Ends the connection of a flow. Whether there was one.
    ///
    /// For a connection that is gone the kernel finds the listener of its port, and would end that. So it is asked first which socket it finds,
    /// and ends the one with that cookie alone.
    ///
    /// # Errors
    /// When the kernel can't or may not.
    pub(crate) fn end(&self, key: &FlowKey) -> Result<bool> {
        let Some(found) = self.ask(&request(key, FIND, ANY))? else { return Ok(false) };
        let Some(cookie) = cookie(&found, key) else { return Ok(false) };
        Ok(self.ask(&request(key, DESTROY, cookie))?.is_some())
    }

    /// What the kernel answers, without its header; `None` when there is no such socket.
    fn ask(&self, request: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.send(request, 0)?;
        let (mut answer, _) = self.0.recv_from_full()?;
        let Some(header) = answer.first_chunk::<HEADER>() else {
            bail!("the kernel's answer has {} bytes", answer.len());
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = answer.split_off(HEADER);
        if kind != ERROR {
            return Ok(Some(body));
        }
        let error = body.first_chunk::<4>().map_or(0, |error| -i32::from_ne_bytes(*error));
        match Errno::from_raw(error) {
            _ if error == 0 => Ok(Some(body)),
            Errno::ENOENT => Ok(None),
            error => Err(error).context("ending a connection"),
        }
    }
}

/// The cookie of a socket that the kernel found (`struct inet_diag_msg`), if it is that of the connection.
fn cookie(found: &[u8], key: &FlowKey) -> Option<[u8; 8]> {
    let (state, id) = (*found.get(1)?, found.get(4..52)?);
    let is_its = CONNECTED.contains(&state) && id[..2] == key.local_port && id[2..4] == key.remote_port;
    if is_its { id[40..48].try_into().ok() } else { None }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(key: &FlowKey, (kind, flags): (u16, u16), cookie: [u8; 8]) -> [u8; REQUEST] {
    let is_ipv4 = key.remote[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let family = if is_ipv4 { AF_INET } else { AF_INET6 };
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[HEADER] = family as u8;
    bytes[HEADER + 1] = IPPROTO_TCP as u8;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&u32::MAX.to_ne_bytes());
    let id = &mut bytes[HEADER + 8..];
    id[..2].copy_from_slice(&key.local_port);
    id[2..4].copy_from_slice(&key.remote_port);
    let from = if is_ipv4 { 12 } else { 0 };
    id[4..20 - from].copy_from_slice(&key.local[from..]);
    id[20..36 - from].copy_from_slice(&key.remote[from..]);
    id[40..48].copy_from_slice(&cookie);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::address::mapped;

    #[test]
    fn a_connection_is_ended_on_both_sides_and_no_other() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let dial = || {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap())
            };
            let ((mut client, (mut server, peer)), (other, (_theirs, _))) = (dial(), dial());
            let here = server.local_addr().unwrap();
            let key = FlowKey {
                remote: mapped(peer.ip()),
                local: mapped(here.ip()),
                remote_port: peer.port().to_be_bytes(),
                local_port: here.port().to_be_bytes(),
            };
            let destroyer = Destroyer::new().unwrap();
            assert!(destroyer.end(&key).unwrap(), "{address}");
            assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
            // The kernel finds the listener now, which is not to be ended.
            assert!(!destroyer.end(&key).unwrap(), "it is gone");
            drop(dial());
            let never = FlowKey { remote_port: [0, 9], ..key };
            assert!(!destroyer.end(&never).unwrap(), "it never was");
            drop(dial());
            other.set_nonblocking(true).unwrap();
            assert_eq!((&other).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }
}
