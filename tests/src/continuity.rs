//! Traffic that notices each gap of the filter and each call that is cut: while programs are replaced, or a package is.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    application::{Connection, End, PATIENCE, Server, expect_same, udp, uninterrupted, wait_until},
    message::{negative_length, register},
    netns::Netns,
};

/// What was sent and went as it should.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Connections that sent something malformed, and were reset.
    pub connections: usize,
    /// Datagrams that arrived, each after a malformed one that did not.
    pub datagrams: usize,
    /// Bytes of the call that was not cut.
    pub call_bytes: usize,
}

impl Traffic {
    /// Malformed messages, each of which was stopped.
    #[must_use]
    pub fn malformed(&self) -> usize {
        self.connections + self.datagrams
    }
}

/// What a malformed connection gets through to the application, before it is reset; nothing is as it should be.
///
/// # Errors
/// When it is not reset.
pub fn malformed(server: &Server, phone: &Netns) -> Result<Vec<u8>> {
    let (phone, application) = server.connect(phone)?;
    phone.offer(&negative_length().bytes)?;
    ensure!(application.wait_for_end()? == End::Reset, "it was not reset");
    Ok(application.bytes())
}

/// Sends a call, good and malformed datagrams, and malformed connections to the server, as long as `work` takes. `work` is given a function that
/// waits for one more malformed connection.
///
/// # Errors
/// When a malformed byte reached the application, when the call was cut, and when `work` failed.
pub fn during(
    server: &Server,
    (pbx, phone): (&Netns, &Netns),
    (here, there): (SocketAddr, SocketAddr),
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<Traffic> {
    let (caller, application) = &server.connect(phone)?;
    let (from, to) = (udp(phone, there)?, udp(pbx, here)?);
    to.set_read_timeout(Some(PATIENCE))?;
    let (stop, attempts) = (&AtomicBool::new(false), &AtomicUsize::new(0));
    let (call, datagrams, through) = thread::scope(|scope| -> Result<_> {
        let call = scope.spawn(|| talk(caller, application, stop));
        let datagrams = scope.spawn(|| alternate(&from, &to, stop));
        let offender = scope.spawn(|| -> Result<Vec<u8>> {
            let mut through = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                through.extend(malformed(server, phone)?);
                attempts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(through)
        });
        let worked = work(&|| {
            let so_far = attempts.load(Ordering::Relaxed);
            wait_until("an attempt", || {
                Ok(attempts.load(Ordering::Relaxed) > so_far || offender.is_finished())
            })
        });
        stop.store(true, Ordering::Relaxed);
        let panicked = "a sender panicked";
        let call = call.join().expect(panicked);
        let (datagrams, through) = (datagrams.join().expect(panicked), offender.join().expect(panicked));
        worked?;
        Ok((call?, datagrams?, through?))
    })?;
    ensure!(through.is_empty(), "{} malformed bytes reached the application", through.len());
    expect_same(&application.bytes(), &call)?;
    ensure!(application.end().is_none(), "the call was cut");
    Ok(Traffic { connections: attempts.load(Ordering::Relaxed), datagrams, call_bytes: call.len() })
}

/// Sends a message in two pieces, again and again, until `stop`: each time the second is sent when the first was read. Gives all.
fn talk(phone: &Connection, application: &Connection, stop: &AtomicBool) -> Result<Vec<u8>> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let message = register(sent.len());
        for piece in [&message[..message.len() / 2], &message[message.len() / 2..]] {
            phone.write(piece)?;
            sent.extend_from_slice(piece);
            application.wait_for(sent.len())?;
        }
    }
    Ok(sent)
}

/// Datagrams, by turns malformed and good, until `stop`; how many good ones there were. Each is answered by a look at what arrived.
fn alternate(phone: &UdpSocket, server: &UdpSocket, stop: &AtomicBool) -> Result<usize> {
    let bad = negative_length().bytes;
    let mut sent = 0;
    let mut got = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let good = register(sent);
        phone.send_to(&bad, server.local_addr()?)?;
        phone.send_to(&good, server.local_addr()?)?;
        let length = uninterrupted(|| server.recv(&mut got)).context("a good datagram did not arrive")?;
        expect_same(&got[..length], &good)?;
        sent += 1;
    }
    Ok(sent)
}
