//! Datagrams at a rate, every other one malformed, beside whatever a test does.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    application::udp,
    message::{negative_length, register},
    netns::Netns,
    wire::is_not_yet,
    witness::expect_well_formed,
};

/// How often the sender looks whether it is late.
const TICK: Duration = Duration::from_millis(5);

/// What was sent and what arrived.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Datagrams sent.
    pub sent: u64,
    /// Well-formed ones that the application read; a socket that is full throws others away.
    pub arrived: u64,
    /// For how long.
    pub took: Duration,
}

impl Flood {
    /// Datagrams a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }
}

/// Sends `rate` datagrams a second between two addresses, or as many as the machine can, as long as `work` takes.
///
/// # Errors
/// When something malformed arrived, nothing did, or `work` failed.
pub fn during<T>(
    (pbx, phone): (&Netns, &Netns),
    (here, there): (SocketAddr, SocketAddr),
    rate: u64,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Flood)> {
    let (from, to) = (udp(phone, there)?, udp(pbx, here)?);
    to.set_nonblocking(true)?;
    let stop = &AtomicBool::new(false);
    let began = Instant::now();
    let (worked, sent, arrived) = thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<u64> {
            let messages = [register(1), negative_length().bytes];
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let due = rate * began.elapsed().as_micros() as u64 / 1_000_000;
                // What it is late it does not make up for all at once.
                let until = due.min(sent + rate / 50);
                while sent < until {
                    from.send_to(&messages[sent as usize % 2], here)?;
                    sent += 1;
                }
                thread::sleep(TICK);
            }
            Ok(sent)
        });
        let reader = scope.spawn(|| -> Result<u64> {
            let (mut arrived, mut bytes) = (0, [0; 2048]);
            loop {
                match to.recv(&mut bytes) {
                    Ok(length) => {
                        expect_well_formed(&bytes[..length])?;
                        arrived += 1;
                    }
                    Err(error) if !is_not_yet(&error) => return Err(error).context("reading the flood"),
                    Err(_) if stop.load(Ordering::Relaxed) => return Ok(arrived),
                    Err(_) => thread::sleep(TICK),
                }
            }
        });
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        let panicked = "a thread of the flood panicked";
        (worked, sender.join().expect(panicked), reader.join().expect(panicked))
    });
    let flood = Flood { sent: sent?, arrived: arrived?, took: began.elapsed() };
    let worked = worked?;
    ensure!(flood.arrived > 0, "nothing of the flood arrived: {flood:?}");
    Ok((worked, flood))
}
