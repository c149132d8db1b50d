//! Events in the journal of systemd, by its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL): one datagram an event, a field a line.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sipguard_core::escape::dotted;

use super::{line, protocol};
use crate::redact::RedactedPacket;

/// Where the journal listens.
pub const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog's `notice`: normal, and worth to be seen.
const PRIORITY: &str = "5";

/// The journal.
#[derive(Debug)]
pub struct JournalSocket {
    socket: UnixDatagram,
    path: PathBuf,
    lost: u64,
}

impl JournalSocket {
    /// The journal of this machine.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open() -> Result<JournalSocket> {
        JournalSocket::at(Path::new(JOURNAL))
    }

    /// A journal that listens elsewhere.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn at(path: &Path) -> Result<JournalSocket> {
        let socket = UnixDatagram::unbound().context("making a socket for the journal")?;
        // Nobody waits for a journal that does not read.
        socket.set_nonblocking(true).context("making a socket for the journal")?;
        Ok(JournalSocket { socket, path: path.to_owned(), lost: 0 })
    }

    /// Sends an event; false when the journal takes no more now.
    ///
    /// # Errors
    /// When there is no journal.
    pub fn write(&mut self, packet: &RedactedPacket, rule: Option<&str>) -> Result<bool> {
        let mut datagram = fields(packet, rule);
        let small = datagram.len();
        field(&mut datagram, "SIPGUARD_PAYLOAD", &dotted(packet.payload()));
        for bytes in [&datagram[..], &datagram[..small]] {
            match self.socket.send_to(bytes, &self.path) {
                Ok(_) => return Ok(true),
                // Too large: without the payload.
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("writing to the journal at {}", self.path.display()));
                }
            }
        }
        self.lost += 1;
        Ok(false)
    }

    /// Events that the journal did not take.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

fn fields(packet: &RedactedPacket, rule: Option<&str>) -> Vec<u8> {
    let mut datagram = Vec::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            field(&mut datagram, name, value);
        }
    };
    put("MESSAGE", &line(packet, rule));
    put("PRIORITY", PRIORITY);
    put("SYSLOG_IDENTIFIER", "sipguard");
    put("SIPGUARD_REASON", packet.reason.name());
    put("SIPGUARD_VERDICT", packet.action.name());
    put("SIPGUARD_COUNT", &packet.count.to_string());
    put("SIPGUARD_IFACE", &packet.interface);
    put("SIPGUARD_PROTO", protocol(packet));
    put("SIPGUARD_TRUNK", packet.trunk.as_deref().unwrap_or_default());
    put("SIPGUARD_RULE", rule.unwrap_or_default());
    for (end, name) in [(packet.source(), "SRC"), (packet.destination(), "DEST")] {
        let Some(end) = end else { continue };
        put(&format!("SIPGUARD_{name}"), &end.ip().to_string());
        if end.port() != 0 {
            put(&format!("SIPGUARD_{name}_PORT"), &end.port().to_string());
        }
    }
    datagram
}

/// A field: `NAME=value`, or where the value has a line end its length (64 bits, little endian) before it.
fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend((value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend(value.as_bytes());
    datagram.push(b'\n');
}
