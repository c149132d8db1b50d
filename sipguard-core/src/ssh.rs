//! SSH on this machine: who is at the other end of its sessions, and by which ports they came. Read in the network namespace at hand.
//!
//! A variable of the environment is not enough: `sudo` drops it. So the processes above are asked as well, and the kernel for the connections of
//! SSH servers. The work grows with the processes of the machine and with the connections to SSH ports, not with those of a PBX.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::container;

/// What SSH there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ssh {
    /// Who sits at the session that this process runs in.
    pub own_peers: BTreeSet<IpAddr>,
    /// Who sits at a session.
    pub peers: BTreeSet<IpAddr>,
    /// Ports on which an SSH server listens, and that by which the own session came.
    pub ports: BTreeSet<u16>,
}

/// Names of SSH servers, as `/proc/PID/comm` has them.
const SERVERS: &[&str] = &["sshd", "sshd-session", "sshd-auth", "dropbear"];
/// The port of SSH (RFC 4251 section 4).
const PORT: u16 = 22;
/// Processes above this one that are asked, and bytes of an environment that are read.
const ANCESTORS: usize = 64;
const ENVIRONMENT_BYTES: u64 = 1 << 20;
/// Sockets that are listed of one port, and ports that are not a server's own of which they are.
const SOCKETS: usize = 4096;
const SHARED: usize = 4;

/// Looks for it. What can't be read, such as without privileges, is not found.
#[must_use]
pub(crate) fn find() -> Ssh {
    let mut own: Vec<Session> = environments().iter().filter_map(|value| session(value)).collect();
    if container::chosen().is_some() {
        // The operator's own session is one of the host, unless it ends in the container.
        let addresses: BTreeSet<IpAddr> = addresses().collect();
        own.retain(|session| addresses.contains(&session.server));
    }
    let servers = servers();
    // systemd listens where it starts a server for each connection.
    let of_init: BTreeSet<u32> = inodes(Path::new("/proc/1")).collect();
    let listening = sockets(LISTEN, 0).unwrap_or_default();
    let ports_of = |inodes: &BTreeSet<u32>| -> BTreeSet<u16> {
        listening.iter().filter(|one| inodes.contains(&one.inode)).map(|one| one.port).collect()
    };
    let (of_servers, of_init) = (ports_of(&servers.sockets), ports_of(&of_init));
    let mut ssh = Ssh {
        own_peers: own.iter().map(|session| session.peer).collect(),
        peers: BTreeSet::new(),
        ports: own.iter().map(|session| session.port).chain(of_init.get(&PORT).copied()).collect(),
    };
    let shared: Vec<u16> = ssh.ports.iter().chain(&of_init).copied().collect();
    for port in of_servers.iter().chain(shared.iter().take(SHARED)) {
        for one in sockets(ESTABLISHED, *port).unwrap_or_default() {
            // On a port that others share, such as a multiplexer, only what a server has is SSH.
            let is_ssh = of_servers.contains(port) || servers.sockets.contains(&one.inode);
            // Whoever has not said yet who it is may be one who guesses passwords: it can be blocked.
            if is_ssh && one.inode != 0 && !servers.unauthenticated.contains(&one.inode) {
                ssh.peers.insert(one.peer);
                ssh.ports.insert(*port);
            }
        }
    }
    ssh.ports.extend(of_servers);
    ssh
}

/// What an `SSH_CONNECTION` tells: who sits at the session, and by which address and port of ours it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    peer: IpAddr,
    server: IpAddr,
    port: u16,
}

fn session(value: &str) -> Option<Session> {
    let mut words = value.split_whitespace();
    let peer: IpAddr = words.next()?.parse().ok()?;
    let server: IpAddr = words.nth(1)?.parse().ok()?;
    Some(Session {
        peer: peer.to_canonical(),
        server: server.to_canonical(),
        port: words.next()?.parse().ok()?,
    })
}

/// The addresses of the network namespace at hand.
pub(crate) fn addresses() -> impl Iterator<Item = IpAddr> {
    nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    })
}

/// Every `SSH_CONNECTION` of this process and of those above it, up to init.
fn environments() -> Vec<String> {
    const NAME: &str = "SSH_CONNECTION";
    let mut found: Vec<String> = std::env::var(NAME).into_iter().collect();
    for pid in ancestors() {
        let mut bytes = Vec::new();
        let environment = fs::File::open(format!("/proc/{pid}/environ"));
        let _unreadable = environment.and_then(|file| file.take(ENVIRONMENT_BYTES).read_to_end(&mut bytes));
        let all = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        found.extend(all.filter_map(|one| Some(one.strip_prefix(NAME)?.strip_prefix('=')?.to_owned())));
    }
    found
}

/// The processes above this one, up to init; of a very deep tree the nearest.
pub(crate) fn ancestors() -> impl Iterator<Item = i32> {
    let above = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parent(&stat).filter(|pid| *pid > 0)
    };
    std::iter::successors(Some(nix::unistd::getppid().as_raw()).filter(|pid| *pid > 0), above).take(ANCESTORS)
}

/// The parent in a line of `/proc/PID/stat`: the second field behind the name, which may have spaces and brackets.
pub(crate) fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sockets of SSH servers, by inode.
#[derive(Default)]
struct Servers {
    sockets: BTreeSet<u32>,
    /// Those of connections before a password or key was accepted.
    unauthenticated: BTreeSet<u32>,
}

fn servers() -> Servers {
    let mut servers = Servers::default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let path = entry.path();
        let comm =
            Some(path.join("comm")).filter(|_| is_process).and_then(|comm| fs::read_to_string(comm).ok());
        let Some(comm) = comm.filter(|comm| SERVERS.contains(&comm.trim_end())) else { continue };
        let title = fs::read(path.join("cmdline")).unwrap_or_default();
        let waits = is_unauthenticated(comm.trim_end(), &String::from_utf8_lossy(&title));
        for inode in inodes(&path) {
            servers.sockets.insert(inode);
            servers.unauthenticated.extend(Some(inode).filter(|_| waits));
        }
    }
    servers
}

/// Sockets of a process.
fn inodes(process: &Path) -> impl Iterator<Item = u32> {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| {
        let link = fs::read_link(fd.path()).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

/// Whether a process serves a connection before its user is known: OpenSSH says so in its title.
fn is_unauthenticated(comm: &str, title: &str) -> bool {
    comm == "sshd-auth" || ["[net]", "[accepted]", "[preauth]"].iter().any(|state| title.contains(state))
}

const ESTABLISHED: u32 = 1;
const LISTEN: u32 = 10;

/// A TCP socket of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SshListener {
    port: u16,
    peer: IpAddr,
    inode: u32,
}

/// The TCP sockets of both families in a state, with a port of their own; 0 is any. The kernel picks them out.
fn sockets(state: u32, port: u16) -> Result<Vec<SshListener>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("opening sock_diag")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(state, port), 0)?;
    let mut found = Vec::new();
    while found.len() < SOCKETS {
        let (answer, _) = socket.recv_from_full()?;
        if !read(&answer, &mut found) {
            break;
        }
    }
    Ok(found)
}

const HEADER: usize = 16;
const REQUEST: usize = HEADER + 60;
const DIAG: usize = 72;

/// `struct nlmsghdr` and `struct inet_diag_req`: the older request, since it is of both families, and the kernel goes through all sockets
/// for each.
fn request(state: u32, port: u16) -> [u8; REQUEST] {
    const TCPDIAG_GETSOCK: u16 = 18;
    const REQUEST_DUMP: u16 = 0x301;
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&TCPDIAG_GETSOCK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    bytes[HEADER + 4..HEADER + 6].copy_from_slice(&port.to_be_bytes());
    bytes[HEADER + 52..HEADER + 56].copy_from_slice(&(1u32 << state).to_ne_bytes());
    bytes
}

/// Takes the sockets of an answer. Whether more may come.
fn read(mut answer: &[u8], found: &mut Vec<SshListener>) -> bool {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let Some(header) = answer.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if kind == ERROR || kind == DONE || length < HEADER || length > answer.len() {
            return false;
        }
        found.extend(answer[HEADER..length].first_chunk().map(listed));
        answer = &answer[length.next_multiple_of(4).min(answer.len())..];
    }
    true
}

/// `struct inet_diag_msg`.
fn listed(bytes: &[u8; DIAG]) -> SshListener {
    let v6: [u8; 16] = std::array::from_fn(|at| bytes[24 + at]);
    let peer = if i32::from(bytes[0]) == nix::libc::AF_INET {
        IpAddr::V4(Ipv4Addr::new(v6[0], v6[1], v6[2], v6[3]))
    } else {
        Ipv6Addr::from(v6).to_canonical()
    };
    SshListener {
        port: u16::from_be_bytes([bytes[4], bytes[5]]),
        peer,
        inode: u32::from_ne_bytes([bytes[68], bytes[69], bytes[70], bytes[71]]),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn reads_what_the_system_says() {
        let [peer, server] = ["192.0.2.9", "10.0.0.1"].map(|text| text.parse().unwrap());
        assert_eq!(session("192.0.2.9 51234 10.0.0.1 2222"), Some(Session { peer, server, port: 2222 }));
        assert_eq!(session("::ffff:192.0.2.9 1 ::1 22").unwrap().peer, peer);
        assert_eq!((session(""), session("192.0.2.9 51234")), (None, None));
        assert_eq!(parent("7 (a) b (c) S 41 7 7 0"), Some(41));
        assert_eq!(parent(""), None);
        for title in ["sshd: [accepted]", "sshd: root [net]", "sshd-session: unknown [preauth]"] {
            assert!(is_unauthenticated("sshd", title), "{title}");
        }
        for title in ["/usr/sbin/sshd -D", "sshd: root@pts/0", "sshd: admin [priv]"] {
            assert!(!is_unauthenticated("sshd", title), "{title}");
        }
    }

    #[test]
    fn the_kernel_tells_sockets_by_port_and_state() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(local).unwrap();
            let here = listener.local_addr().unwrap();
            let listening = sockets(LISTEN, here.port()).unwrap();
            assert_eq!(listening.len(), 1, "{local}");
            assert_eq!(sockets(ESTABLISHED, here.port()).unwrap(), []);
            let _client = TcpStream::connect(here).unwrap();
            let (_server, peer) = listener.accept().unwrap();
            let connected = sockets(ESTABLISHED, here.port()).unwrap();
            assert_eq!(connected.len(), 1, "{local}");
            assert_eq!((connected[0].port, connected[0].peer), (here.port(), peer.ip()));
            assert!(connected[0].inode != 0 && connected[0].inode != listening[0].inode);
            assert!(sockets(LISTEN, 0).unwrap().contains(&listening[0]));
        }
    }
}
