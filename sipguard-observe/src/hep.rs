//! HEP3 (EEP rev. 36): SIP messages that were stopped, for Homer, sngrep and whatever else captures VoIP. No crate speaks it; a message
//! is a list of chunks, each vendor, type, length and value in network order.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result};
use sipguard_common::Reason;
use sipguard_core::service::Homer;

use crate::redact::RedactedPacket;

const FAMILY: u16 = 0x01;
const PROTOCOL: u16 = 0x02;
const SOURCE_V4: u16 = 0x03;
const DESTINATION_V4: u16 = 0x04;
const SOURCE_V6: u16 = 0x05;
const DESTINATION_V6: u16 = 0x06;
const SOURCE_PORT: u16 = 0x07;
const DESTINATION_PORT: u16 = 0x08;
const SECONDS: u16 = 0x09;
const MICROSECONDS: u16 = 0x0a;
const KIND: u16 = 0x0b;
const AGENT: u16 = 0x0c;
const PASSWORD: u16 = 0x0e;
const PAYLOAD: u16 = 0x0f;
const NODE: u16 = 0x13;

/// Values of chunks.
const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SIP: u8 = 1;

/// Sends what was stopped to Homer.
#[derive(Debug)]
pub struct Exporter {
    homer: Homer,
    socket: UdpSocket,
}

impl Exporter {
    /// Opens a socket to Homer. Whether anybody is there, UDP does not tell.
    ///
    /// # Errors
    /// When the address can't be reached from here.
    pub fn new(homer: Homer) -> Result<Exporter> {
        let any: IpAddr = if homer.address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).context("opening a socket for HEP")?;
        socket.connect(homer.address).with_context(|| format!("sending HEP to {}", homer.address))?;
        socket.set_nonblocking(true).context("a socket that never waits")?;
        Ok(Exporter { homer, socket })
    }

    /// Sends a packet, where there is a message in it; says whether one was sent. What the socket has no room for is lost, as UDP is.
    ///
    /// # Errors
    /// When the socket refuses it: nobody listens at Homer's port, or there is no way to it.
    pub fn send(&self, packet: &RedactedPacket) -> Result<bool> {
        let Some(message) = message(&self.homer, packet) else { return Ok(false) };
        match self.socket.send(&message) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).with_context(|| format!("sending HEP to {}", self.homer.address)),
        }
    }
}

/// The HEP message of a packet; `None` when there is nothing of SIP in it: no payload, TLS, or headers
/// that can't be read.
#[must_use]
pub fn message(homer: &Homer, packet: &RedactedPacket) -> Option<Vec<u8>> {
    let (source, destination) = (packet.source()?, packet.destination()?);
    let payload = packet.payload();
    if payload.is_empty()
        || matches!(
            packet.reason,
            Reason::NotTls | Reason::BadTlsRecord | Reason::Tls | Reason::Stun | Reason::BadStun
        )
    {
        return None;
    }
    let tcp = packet.header.as_ref()?.tcp;
    let micros = packet.time.as_microsecond();
    let mut out = b"HEP3\0\0".to_vec();
    chunk(&mut out, FAMILY, &[if source.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }]);
    chunk(&mut out, PROTOCOL, &[if tcp { TCP } else { UDP }]);
    for (address, v4, v6) in
        [(source.ip(), SOURCE_V4, SOURCE_V6), (destination.ip(), DESTINATION_V4, DESTINATION_V6)]
    {
        match address {
            IpAddr::V4(address) => chunk(&mut out, v4, &address.octets()),
            IpAddr::V6(address) => chunk(&mut out, v6, &address.octets()),
        }
    }
    chunk(&mut out, SOURCE_PORT, &source.port().to_be_bytes());
    chunk(&mut out, DESTINATION_PORT, &destination.port().to_be_bytes());
    chunk(&mut out, SECONDS, &(micros.div_euclid(1_000_000) as u32).to_be_bytes());
    chunk(&mut out, MICROSECONDS, &(micros.rem_euclid(1_000_000) as u32).to_be_bytes());
    chunk(&mut out, KIND, &[SIP]);
    chunk(&mut out, AGENT, &homer.id.to_be_bytes());
    for (kind, text) in [(PASSWORD, &homer.password), (NODE, &homer.node)] {
        if !text.is_empty() {
            chunk(&mut out, kind, text.as_bytes());
        }
    }
    chunk(&mut out, PAYLOAD, payload);
    let len = u16::try_from(out.len()).ok()?;
    out[4..6].copy_from_slice(&len.to_be_bytes());
    Some(out)
}

/// A chunk of the generic vendor. Its length counts its six bytes of header.
fn chunk(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16 + 6).to_be_bytes());
    out.extend_from_slice(value);
}
