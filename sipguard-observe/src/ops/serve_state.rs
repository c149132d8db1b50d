//! Whether `serve` runs, and where: where the configuration lets it listen, and else where a process of it does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sipguard_core::config;
use sipguard_core::container::{self, ContainerName};
use sipguard_core::service::Listen;

/// How long `serve` may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// State of a listening socket in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Whether `serve` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServeState {
    /// Where it was found, else where it was looked for first: where the configuration file lets it listen, or the default.
    pub listen: String,
    /// Whether something answers there as it does.
    pub is_up: bool,
}

/// Looks for it.
#[must_use]
pub(super) fn read() -> ServeState {
    // It listens where the host does, also for a container.
    container::outside(|| read_here(container::chosen().map(ContainerName::label)))
}

fn read_here(container: Option<&str>) -> ServeState {
    let configured = config::load(None).ok().and_then(|loaded| loaded.config.serve.listen);
    let Listen(listen) = configured.unwrap_or_default();
    let is_up = |address: SocketAddr| answers(address).unwrap_or(false);
    // Where the configuration lets it listen, that of the host does.
    if container.is_none() && listen.to_socket_addrs().into_iter().flatten().any(is_up) {
        return ServeState { listen, is_up: true };
    }
    match listening(Path::new("/proc"), container).into_iter().find(|address| is_up(*address)) {
        Some(address) => ServeState { listen: address.to_string(), is_up: true },
        None => ServeState { listen, is_up: false },
    }
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // What takes longer than the patience is no answer in full.
    let _partly = stream.take(1 << 16).read_to_string(&mut answer);
    Ok(answer.starts_with("HTTP/1.1 ") && answer.contains("sipguard.health/"))
}

/// Where processes of `sipguard serve` of this network namespace listen that are of the host, or of a container; of files as in `/proc`.
fn listening(proc: &Path, container: Option<&str>) -> BTreeSet<SocketAddr> {
    let own = fs::read_link(proc.join("thread-self/ns/net")).ok();
    let processes = fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let serving = processes.filter(|process| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let is_ours = words.first().is_some_and(|program| program.ends_with("sipguard"));
        let next = words.iter().skip(1).map(AsRef::as_ref).chain([""]);
        let of = words.iter().zip(next).find_map(|(option, next)| {
            let of = option.strip_prefix("--container")?;
            Some(if of.is_empty() { next } else { of.trim_start_matches('=') })
        });
        let of = of.and_then(|name| name.parse::<ContainerName>().ok());
        let is_its = of.as_ref().map(ContainerName::label) == container;
        is_ours
            && is_its
            && words.iter().any(|word| word == "serve")
            && fs::read_link(process.join("ns/net")).ok() == own
    });
    serving.flat_map(|process| sockets(&process)).collect()
}

/// Where a process listens for TCP.
fn sockets(process: &Path) -> Vec<SocketAddr> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    let inode = |target: std::path::PathBuf| {
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let inodes: BTreeSet<String> = targets.filter_map(inode).collect();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(process.join("net").join(name)));
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines.filter_map(|line| listener(line, &inodes)).collect()
}

/// The address of a line of `/proc/net/tcp`, when it listens with one of these inodes.
fn listener(line: &str, inodes: &BTreeSet<String>) -> Option<SocketAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTENS || !inodes.contains(*inode) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        // Each word has the order of the machine's bytes.
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes = words.collect::<Option<Vec<[u8; 4]>>>()?.concat();
    let address = match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::from(Ipv6Addr::from(bytes)),
        Err(_) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?).into(),
    };
    // Who listens everywhere is asked on this host.
    let address = match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_not_serve() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for body in ["{\"schema\":\"sipguard.health/1\"}", "hello"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                assert!(stream.read(&mut request).unwrap() > 0);
                write!(stream, "HTTP/1.1 503 x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        assert!(answers(address).unwrap(), "it is up, whatever its health");
        assert!(!answers(address).unwrap());
        server.join().unwrap();
        assert!(answers(address).is_err());
    }

    #[test]
    fn a_socket_that_listens_is_found_among_those_of_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = TcpStream::connect(address).unwrap();
        let found = sockets(Path::new("/proc/self"));
        assert!(found.contains(&address), "{found:?}");
        assert!(!found.contains(&peer.local_addr().unwrap()), "{found:?}");
        let six = std::net::TcpListener::bind("[::1]:0").unwrap();
        assert!(sockets(Path::new("/proc/self")).contains(&six.local_addr().unwrap()));
        assert!(listening(Path::new("/proc/self/fdinfo"), None).is_empty());
    }
}
