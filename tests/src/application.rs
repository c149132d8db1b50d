//! An application that records all that it reads, and how its connection ended: the witness behind the guard.

use std::{
    fmt::Debug,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns::Netns;

/// How long anything may take that has to happen. Long, because a busy machine is no fault of what is tested; only a failure
/// takes all of it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How the read side of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side closed it (FIN).
    Eof,
    /// `ECONNRESET`.
    Reset,
    /// Another error.
    Other(ErrorKind),
}

/// One end of a TCP connection, with a thread that reads whatever comes. Drop closes it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    record: Arc<Record>,
    reader: Option<JoinHandle<()>>,
}

/// A listening application.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Record {
    read: Mutex<Reading>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Reading {
    bytes: Vec<u8>,
    end: Option<End>,
}

impl Server {
    /// Listens in the namespace.
    pub fn listen(namespace: &Netns, address: SocketAddr) -> Result<Self> {
        let listener = namespace.enter(|| when_free(|| TcpListener::bind(address)))?;
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        // Accepting must not wait for ever when the connection never comes about.
        listener.set_nonblocking(true).context("making a listener non-blocking")?;
        Ok(Self { listener, address })
    }

    /// Connects to it from a namespace, and returns that end and the application's own.
    ///
    /// One at a time, or the two ends may belong to different connections.
    pub fn connect(&self, from: &Netns) -> Result<(Connection, Connection)> {
        let peer = dial(from, self.address)?;
        let stream = self.accept()?;
        stream.set_nonblocking(false).context("making a connection blocking")?;
        Ok((peer, Connection::record(stream)?))
    }

    /// Waits for the next connection and accepts it.
    pub fn accept(&self) -> Result<TcpStream> {
        let mut accepted = None;
        wait_until("the application accepts", || {
            accepted = self.try_accept()?;
            Ok(accepted.is_some())
        })?;
        accepted.context("no connection was accepted")
    }

    /// Accepts a connection that has come about.
    pub fn try_accept(&self) -> Result<Option<TcpStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("accepting a connection"),
        }
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// A UDP socket in the namespace.
pub fn udp(namespace: &Netns, address: impl Into<SocketAddr>) -> Result<UdpSocket> {
    let address = address.into();
    namespace.enter(|| when_free(|| UdpSocket::bind(address)))?.with_context(|| format!("binding {address}"))
}

/// Binds, and again while somebody has the address: a program that another thread starts holds what was just closed here, until
/// it is under way.
fn when_free<T>(bind: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => return bound,
        }
    }
}

/// Connects from a namespace.
pub fn dial(from: &Netns, address: SocketAddr) -> Result<Connection> {
    let stream = from.enter(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    Connection::record(stream.with_context(|| format!("connecting to {address}"))?)
}

impl Connection {
    /// Records what a connection reads from now on.
    pub fn record(stream: TcpStream) -> Result<Self> {
        // Each write is to be a segment of its own.
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let record = Arc::new(Record::default());
        let (input, shared) = (stream.try_clone().context("cloning a socket")?, Arc::clone(&record));
        let reader = std::thread::spawn(move || shared.fill(input));
        Ok(Self { stream, record, reader: Some(reader) })
    }

    /// Its own address and port.
    pub fn local(&self) -> Result<SocketAddr> {
        self.stream.local_addr().context("asking a socket for its address")
    }

    /// Sends all of `bytes`.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        (&self.stream).write_all(bytes).with_context(|| format!("sending {} bytes", bytes.len()))
    }

    /// Sends `bytes`, which the other side may refuse with a reset while they are on their way.
    pub fn offer(&self, bytes: &[u8]) -> Result<()> {
        match (&self.stream).write_all(bytes) {
            Err(error) if !is_reset(error.kind()) => Err(error).context("sending"),
            _ => Ok(()),
        }
    }

    /// All that it has read until now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.record.lock().bytes.clone()
    }

    /// How it ended; `None` while it is open.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.record.lock().end
    }

    /// Waits until it has read `count` bytes in all, and returns everything that it has read.
    pub fn wait_for(&self, count: usize) -> Result<Vec<u8>> {
        let reading = self.record.wait_while(|reading| reading.bytes.len() < count && reading.end.is_none());
        let (got, end) = (reading.bytes.len(), reading.end);
        ensure!(got >= count, "{got} of {count} bytes were read, and the connection's end is {end:?}");
        Ok(reading.bytes.clone())
    }

    /// Waits until reading has ended, and says how.
    pub fn wait_for_end(&self) -> Result<End> {
        let reading = self.record.wait_while(|reading| reading.end.is_none());
        reading.end.with_context(|| format!("open still, after {} bytes were read", reading.bytes.len()))
    }

    /// Writes until the kernel says that the connection was reset.
    pub fn wait_until_refused(&self) -> Result<()> {
        wait_until("writing fails with ECONNRESET or EPIPE", || match (&self.stream).write_all(b"\r\n") {
            Ok(()) => Ok(false),
            Err(error) if is_reset(error.kind()) => Ok(true),
            Err(error) => Err(error).context("writing to a connection that should be reset"),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Wakes the reader; a connection that is gone already refuses, which is as good.
        let _gone = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

impl Record {
    fn fill(&self, mut input: TcpStream) {
        let mut chunk = [0; 65536];
        loop {
            let outcome = input.read(&mut chunk);
            let mut reading = self.lock();
            match outcome {
                Ok(0) => reading.end = Some(End::Eof),
                Ok(count) => reading.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => reading.end = Some(End::Reset),
                Err(error) => reading.end = Some(End::Other(error.kind())),
            }
            self.news.notify_all();
            if reading.end.is_some() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, unfinished: impl Fn(&Reading) -> bool) -> MutexGuard<'_, Reading> {
        let waited = self.news.wait_timeout_while(self.lock(), PATIENCE, |reading| unfinished(reading));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn is_reset(kind: ErrorKind) -> bool {
    kind == ErrorKind::ConnectionReset || kind == ErrorKind::BrokenPipe
}

/// A call on a socket that has a deadline, again when it was interrupted: the kernel does not resume it after a signal or a freeze.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Waits until `holds` does; fails with `what` when it takes too long.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    poll(&mut holds, |holds| *holds)?.map(drop).map_err(|_| not_in_time(what))
}

/// Looks until what is there `holds`, and gives it; fails with `what`, and with what was there instead, when it takes too long.
pub fn wait_for<T: Debug>(
    what: &str,
    mut look: impl FnMut() -> Result<T>,
    holds: impl Fn(&T) -> bool,
) -> Result<T> {
    poll(&mut look, holds)?.map_err(|last| not_in_time(what).context(format!("there was {last:?}")))
}

/// What is there once it `holds`, or else what was there last.
fn poll<T>(
    look: &mut impl FnMut() -> Result<T>,
    holds: impl Fn(&T) -> bool,
) -> Result<std::result::Result<T, T>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let there = look()?;
        if holds(&there) {
            return Ok(Ok(there));
        }
        if Instant::now() > until {
            return Ok(Err(there));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn not_in_time(what: &str) -> anyhow::Error {
    anyhow::anyhow!("not within {} s: {what}", PATIENCE.as_secs())
}

/// Fails, and says where, unless `read` is exactly `sent`.
pub fn expect_same(read: &[u8], sent: &[u8]) -> Result<()> {
    if read == sent {
        return Ok(());
    }
    let at = read.iter().zip(sent).take_while(|(a, b)| a == b).count();
    let here =
        |bytes: &[u8]| bytes.iter().skip(at).take(40).copied().collect::<Vec<_>>().escape_ascii().to_string();
    bail!(
        "{} bytes were read and not {}; at {at} \"{}\" and not \"{}\"",
        read.len(),
        sent.len(),
        here(read),
        here(sent)
    );
}

/// The SIP port at an address.
#[must_use]
pub fn sip(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 5060)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_waited_for() -> Result<()> {
        let namespace = Netns::new("busy")?;
        let address = sip([127, 0, 0, 1].into());
        let (first, datagrams) = (Server::listen(&namespace, address)?, udp(&namespace, address)?);
        // As a program has it that is being started.
        let held = (first.listener.try_clone()?, datagrams.try_clone()?);
        drop((first, datagrams));
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        Server::listen(&namespace, address)?;
        udp(&namespace, address)?;
        assert!(later.join().is_ok());
        Ok(())
    }

    #[test]
    fn a_difference_is_named() {
        assert!(expect_same(b"abc", b"abc").is_ok());
        let error = expect_same(b"abX", b"abcd").unwrap_err().to_string();
        assert!(error.contains("at 2 \"X\" and not \"cd\""), "{error}");
    }
}
