//! Connections that are followed, and how full the table of flows is.
//!
//! The table forgets a connection only when it needs the room for another, so its fill says nothing about how many are there. The kernel's
//! sockets do: the cost is one line of `/proc` each and one look into the table for those of guarded ports.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};

use anyhow::{Context, Result};
use aya::maps::{Array, MapError, MapInfo};
use sipguard_common::abi::{FlowKey, names};

use crate::address::Mapped;
use crate::maps::{self, Flows, Plain, Ports};
use crate::pins::Pins;

/// Of both families, in the network namespace of this thread.
const SOCKETS: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// The state of an established connection in those files.
const ESTABLISHED: &str = "01";

/// As they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Established TCP connections of this host that are followed. `None` where guarded connections were seen that are not this
    /// host's own, such as those of a PBX in a container behind a bridge: their sockets are not here to be counted.
    pub live: Option<usize>,
    /// Entries of the table of flows, those of connections that are gone among them.
    pub flows: usize,
    /// Entries that it has room for.
    pub flows_max: u32,
}

impl Connections {
    /// Reads them.
    ///
    /// # Errors
    /// When a map or `/proc` can't be read.
    pub fn read(pins: &Pins) -> Result<Connections> {
        let flows: Flows = maps::open(pins, names::FLOWS)?;
        let foreign: Array<_, u32> = maps::open(pins, names::FOREIGN)?;
        let is_foreign = foreign.get(&0, 0).context("asking whose the connections are")? != 0;
        let info = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
        let live = if is_foreign { None } else { Some(live(&flows, &maps::ports(pins)?)?) };
        Ok(Connections { live, flows: fill(&flows)?, flows_max: info.max_entries() })
    }
}

fn fill(flows: &Flows) -> Result<usize> {
    flows.keys().try_fold(0, |count, key| key.map(|_| count + 1)).context("counting the flows")
}

fn live(flows: &Flows, ports: &Ports) -> Result<usize> {
    let mut count = 0;
    for path in SOCKETS {
        let file = match File::open(path) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("opening {path}")),
        };
        for line in BufReader::new(file).lines() {
            let line = line.with_context(|| format!("reading {path}"))?;
            let guarded = established(&line).filter(|key| {
                let ends = [key.remote_port, key.local_port].map(u16::from_be_bytes);
                ends.iter().any(|port| ports.sip.contains(port) || ports.tls.contains(port))
            });
            let Some(key) = guarded else { continue };
            match flows.get(&Plain(key), 0) {
                Ok(_) => count += 1,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).context("looking for a flow"),
            }
        }
    }
    Ok(count)
}

/// The flow that an established connection has, by its line; `None` for other lines.
fn established(line: &str) -> Option<FlowKey> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    if state != ESTABLISHED {
        return None;
    }
    let (local, local_port) = end(local)?;
    let (remote, remote_port) = end(remote)?;
    Some(FlowKey { remote, local, remote_port, local_port })
}

/// `0100007F:13C4`: words of the address as the machine has them, and the port.
fn end(text: &str) -> Option<(Mapped, [u8; 2])> {
    let (address, port) = text.split_once(':')?;
    let mut bytes: Mapped = [0; 16];
    match address.len() {
        8 => bytes[10..12].fill(0xff),
        32 => {}
        _ => return None,
    }
    let words = bytes[16 - address.len() / 2..].chunks_exact_mut(4);
    for (word, text) in words.zip((0..).step_by(8).map_while(|at| address.get(at..at + 8))) {
        word.copy_from_slice(&u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
    }
    Some((bytes, u16::from_str_radix(port, 16).ok()?.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpListener, TcpStream};

    use super::*;
    use crate::address::mapped;

    #[test]
    fn sockets_are_found_in_the_kernel_s_list() {
        for address in ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let listener = TcpListener::bind((address, 0)).unwrap();
            let phone = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_pbx, from) = listener.accept().unwrap();
            let key = FlowKey {
                remote: mapped(address),
                local: mapped(address),
                remote_port: from.port().to_be_bytes(),
                local_port: listener.local_addr().unwrap().port().to_be_bytes(),
            };
            let path = SOCKETS[usize::from(address.is_ipv6())];
            let found = || {
                let text = std::fs::read_to_string(path).unwrap();
                text.lines().filter_map(established).filter(|one| *one == key).count()
            };
            assert_eq!(found(), 1, "{key:?} in {path}");
            drop(phone);
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while found() != 0 {
                assert!(std::time::Instant::now() < end, "{key:?} is established no more");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 00000000:13C4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
            "   1: 0100007F 0100007F 01",
            "",
        ] {
            assert_eq!(established(line), None, "{line}");
        }
    }
}
