//! One thread's packets through the program.

use std::collections::HashMap;

use anyhow::{Context, Result};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use sipguard_common::abi::ReplayVerdict;
use sipguard_common::{Class, Reason};
use sipguard_observe::header::{Ends, Header};

use super::clients::Clients;
use super::explain::Explainer;
use super::missing::{Broken, Gaps, Waiting};
use super::tally::Tally;

/// Bytes before a frame: when it came, for the program's clock.
pub(crate) const TIME_BYTES: usize = 8;
/// What a packet of IP with two VLAN tags has at the most. Of longer ones the kernel may take none.
const MOST_BYTES: usize = TIME_BYTES + 22 + 65_535;

/// Flows of datagrams to ports that are not guarded, of which that is remembered.
const FLOWS: usize = 1 << 16;

/// A packet that comes in to the PBX.
pub(crate) struct Incoming<'a> {
    /// Its number in the capture.
    pub number: u64,
    /// Its headers; `None` when it is not IP.
    pub header: Option<&'a Header>,
    /// Whether the capture has only a part of it.
    pub cut: bool,
    /// Its time in [`TIME_BYTES`], then the frame.
    pub bytes: &'a [u8],
}

/// The program, and what was found.
pub(crate) struct Decider<'p> {
    program: &'p Xdp,
    broken: Broken,
    gaps: Gaps,
    tally: Tally,
    clients: Option<Clients>,
    explainer: Explainer,
    /// What the program said of flows of voice, which are most of a capture. Nothing that changes while a capture is judged decides about
    /// a plain datagram to a port that is not guarded, so one answer is good for the flow.
    unguarded: HashMap<Ends, ReplayVerdict>,
}

impl<'p> Decider<'p> {
    /// Nothing found yet. The explainer locates the faults of malformed messages.
    #[must_use]
    pub(crate) fn new(program: &'p Xdp, clients: Option<Clients>, explainer: Explainer) -> Decider<'p> {
        Decider {
            program,
            broken: Broken::new(),
            gaps: Gaps::default(),
            tally: Tally::default(),
            clients,
            explainer,
            unguarded: HashMap::new(),
        }
    }

    /// Judges a packet.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub(crate) fn decide(&mut self, packet: &Incoming<'_>) -> Result<()> {
        if packet.cut {
            self.tally.cut += 1;
            packet.header.into_iter().for_each(|header| self.broken.mark(header));
            return Ok(());
        }
        let Some(header) = packet.header else {
            return self.outcome(packet).map(drop);
        };
        if self.broken.has(header) {
            self.tally.lacking += 1;
            return Ok(());
        }
        if header.tcp && header.is_syn() {
            // Another connection of the same ports: what the last one waited for will not come.
            self.tally.lacking += self.gaps.take(&header.ends).len() as u64;
            self.tally.connections += 1;
        }
        let passed = self.outcome(packet)?;
        if passed && header.tcp { self.go_on(header, &packet.bytes[..TIME_BYTES]) } else { Ok(()) }
    }

    /// What was found.
    #[must_use]
    pub(crate) fn end(mut self) -> Tally {
        self.tally.lacking += self.gaps.len();
        (self.tally.explained, self.tally.resets) = self.explainer.end();
        self.tally
    }

    /// Whether it passed.
    fn outcome(&mut self, packet: &Incoming<'_>) -> Result<bool> {
        let plain = packet.header.filter(|header| header.plain);
        if let Some(told) = plain.and_then(|header| self.unguarded.get(&header.ends)) {
            self.tally.count(*told, packet.number, packet.header, None, &packet.bytes[TIME_BYTES..]);
            return Ok(true);
        }
        let Some(told) = self.run(packet.bytes)? else {
            self.tally.no_frame += 1;
            return Ok(false);
        };
        if let Some(header) = plain
            && told.reason() == Reason::NotGuarded.number()
        {
            if self.unguarded.len() == FLOWS {
                self.unguarded.clear();
            }
            self.unguarded.insert(header.ends, told);
        }
        if told.reason() == Reason::SequenceGap.number()
            && let Some(header) = packet.header
        {
            let (number, header, bytes) = (packet.number, header.clone(), packet.bytes.to_vec());
            self.give_up(&header, |gaps, header| {
                gaps.hold(Waiting { number, header: header.clone(), bytes })
            });
            return Ok(false);
        }
        let Some(reason) = Reason::from_number(told.reason()) else { return Ok(false) };
        let clients = self.clients.as_ref().zip(packet.header).filter(|_| reason.class() != Class::Pass);
        let client = clients.and_then(|(clients, header)| clients.of(header));
        self.tally.count(told, packet.number, packet.header, client, &packet.bytes[TIME_BYTES..]);
        if let Some(header) = packet.header {
            let proxied = self.clients.as_ref().is_some_and(|clients| clients.is_balancer(told.trunk()));
            if header.tcp && header.is_syn() {
                self.explainer.begin(header, proxied);
            }
            let sender = client.unwrap_or((header.ends.from, header.ends.ports[0]));
            self.explainer.packet(packet.number, header, sender, &packet.bytes[TIME_BYTES..], reason);
        }
        Ok(reason.class() == Class::Pass)
    }

    /// What waited on the connection, and may be next now: it comes at the time of the packet that it waited for.
    fn go_on(&mut self, header: &Header, time: &[u8]) -> Result<()> {
        for mut waiting in self.gaps.take(&header.ends) {
            waiting.bytes[..TIME_BYTES].copy_from_slice(time);
            let Waiting { number, header, bytes } = &waiting;
            self.outcome(&Incoming { number: *number, header: Some(header), cut: false, bytes })?;
        }
        Ok(())
    }

    /// Connections whose segments wait for too much are not judged any more.
    fn give_up(&mut self, header: &Header, hold: impl FnOnce(&mut Gaps, &Header) -> Vec<Waiting>) {
        let too_many = hold(&mut self.gaps, header);
        if !too_many.is_empty() {
            self.tally.lacking += too_many.len() as u64;
            self.broken.mark(header);
        }
    }

    /// `None` for a frame that the kernel does not take, such as no card would bring.
    fn run(&self, bytes: &[u8]) -> Result<Option<ReplayVerdict>> {
        // `struct xdp_md`: data, data_end, data_meta and three words that stay zero. What stands before `data` is metadata.
        let context: [u32; 6] = [TIME_BYTES as u32, bytes.len() as u32, 0, 0, 0, 0];
        let mut options = TestRunOptions::new();
        options.data_in = Some(bytes);
        options.ctx_in = Some(bytemuck::bytes_of(&context));
        match self.program.test_run(options) {
            Ok(result) => Ok(Some(ReplayVerdict(result.return_value))),
            Err(_) if bytes.len() > MOST_BYTES => Ok(None),
            Err(error) => Err(error).context("running the program on a packet of the capture"),
        }
    }
}
