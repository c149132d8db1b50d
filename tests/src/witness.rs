//! The application's end of a connection, read when the test wants it: what is there then is all there is.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};
use sipguard_common::framer::{Buffer, Limits, Stream, feed};

use crate::{application::End, wire::is_not_yet};

/// An accepted connection. Drop resets it, so that no orphan goes on sending.
#[derive(Debug)]
pub struct Witness {
    stream: TcpStream,
    bytes: Vec<u8>,
    end: Option<End>,
}

impl Witness {
    /// Takes the application's end.
    pub fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true).context("making a connection non-blocking")?;
        setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 })
            .context("setting SO_LINGER")?;
        Ok(Self { stream, bytes: vec![], end: None })
    }

    /// Reads all that has come in by now, and returns all that was ever read.
    pub fn read(&mut self) -> Result<&[u8]> {
        let mut chunk = [0; 65536];
        while self.end.is_none() {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.end = Some(End::Eof),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_not_yet(&error) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.end = Some(End::Reset),
                Err(error) => self.end = Some(End::Other(error.kind())),
            }
        }
        Ok(&self.bytes)
    }

    /// How it ended, as far as it was read.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// How many bytes were read.
    #[must_use]
    pub fn already_read(&self) -> usize {
        self.bytes.len()
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} B, ", self.bytes.len())?;
        match self.end {
            None => write!(f, "open"),
            Some(end) => write!(f, "{end:?}"),
        }
    }
}

/// Fails when the framer, fed with what an application read from the first byte on, finds it malformed: then a byte was let
/// through that was not validated in its place.
pub fn expect_well_formed(read: &[u8]) -> Result<()> {
    expect_none(read, first_fault(read))
}

/// The same for a connection to a TLS port.
pub fn expect_well_formed_tls(read: &[u8]) -> Result<()> {
    expect_none(read, first_fault_tls(read))
}

fn expect_none(read: &[u8], fault: Option<usize>) -> Result<()> {
    match fault {
        None => Ok(()),
        Some(at) => bail!(
            "the application read a malformed stream, to be seen at byte {at}: {}",
            read[at.saturating_sub(120)..read.len().min(at + 40)].escape_ascii()
        ),
    }
}

/// The first byte at which a stream is known to be malformed.
#[must_use]
pub fn first_fault(stream: &[u8]) -> Option<usize> {
    fault(Stream::NEW, stream)
}

/// The same for a stream to a TLS port: records, or SIP by a sender that was not told of TLS.
#[must_use]
pub fn first_fault_tls(stream: &[u8]) -> Option<usize> {
    let mut state = Stream::NEW;
    state.begin_tls(true);
    fault(state, stream)
}

fn fault(mut state: Stream, stream: &[u8]) -> Option<usize> {
    let (mut buffer, limits) = (Buffer::NEW, Limits::default());
    stream.iter().position(|byte| feed(&mut state, &limits, &mut buffer, &[*byte]).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{invite, negative_length, register};

    #[test]
    fn a_fault_has_a_place() {
        let good = [register(1), invite()].concat();
        assert_eq!(first_fault(&good), None);
        let bad = negative_length().bytes;
        let at = first_fault(&[&good[..], &bad].concat()).unwrap();
        assert!(at > good.len() && at < good.len() + bad.len());
        assert!(expect_well_formed(&bad).is_err());
    }
}
