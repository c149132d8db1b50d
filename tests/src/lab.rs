//! A PBX with its guard, and a device that sends whatever frames it likes: where evasions are tried.
//!
//! The device's addresses belong to no kernel, so nothing but the [`Sender`] answers for them. A trial sends, waits until the
//! PBX has taken in all that was sent, and looks at what its application then has read.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::{
    Reason,
    abi::{Outcome, REASON_SLOTS, counter_index, names},
};
use sipguard_core::{
    maps::{Counters, Flows, open},
    pins::Pins,
};

use crate::{
    application::{End, PATIENCE, Server, expect_same, sip, udp, uninterrupted},
    envelope::{Envelope, PBX_MAC, SENDER_MAC, datagram},
    guard::Site,
    netns::{Netns, plain_frames},
    sender::Sender,
    setting::{Behind, Setting},
    wire::Wire,
    witness::{Witness, expect_well_formed},
};

/// Addresses of the device.
pub const DEVICE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 0x66)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x66))];
/// Both address families, as indices of [`DEVICE`] and of the addresses of [`Site`].
pub const FAMILIES: [usize; 2] = [0, 1];

/// A port that is not guarded, where the lab itself listens.
const CLOCK_PORT: u16 = 7;

/// The site, the device's wire and the listening applications.
#[derive(Debug)]
pub struct Lab {
    /// The wire at the device's end.
    pub wire: Wire,
    servers: [Server; 2],
    clock: UdpSocket,
    ticks: Cell<u64>,
    ports: Cell<u16>,
    behind: Option<Behind>,
    /// The machines. Last, so that the sockets in them are closed before.
    pub site: Site,
}

/// How packets were counted, by reason.
pub type Counts = BTreeMap<u8, u64>;

impl Lab {
    /// A lab whose guard is attached with these options, and without grace for connections that it has not followed.
    pub fn new(options: &[&str]) -> Result<Self> {
        let lab = Self::unguarded()?;
        lab.attach(&[&["--grace", "1ms"], options].concat())?;
        Ok(lab)
    }

    /// A lab whose guard is not attached yet.
    pub fn unguarded() -> Result<Self> {
        Self::unguarded_in(Setting::Local)
    }

    /// The same with the PBX somewhere. Where that is behind the machine, frames keep their order only while the thread that sends
    /// them stays on one processor: see [`pin`](crate::cpu::pin).
    pub fn unguarded_in(setting: Setting) -> Result<Self> {
        let site = Site::new(false)?;
        let eth = Site::INTERFACE;
        let behind = Behind::new(&site, setting)?;
        // Whoever has the addresses that the device knows: behind a bridge that is the PBX itself.
        let known = match &behind {
            Some(behind) if setting == Setting::Bridge => &behind.pbx,
            _ => &site.pbx,
        };
        known.run(&["ip", "link", "set", eth, "address", &mac(PBX_MAC)])?;
        for address in DEVICE {
            let (address, mac) = (address.to_string(), mac(SENDER_MAC));
            let words = ["ip", "neigh", "replace", &address, "lladdr", &mac, "dev", eth, "nud", "permanent"];
            known.run(&words)?;
        }
        let (pbx, addresses) = match &behind {
            Some(behind) => (&behind.pbx, behind.addresses),
            None => (&site.pbx, Site::PBX),
        };
        let listen = |address| Server::listen(pbx, sip(address));
        let servers = [listen(addresses[0])?, listen(addresses[1])?];
        let clock = udp(pbx, (addresses[0], CLOCK_PORT))?;
        clock.set_read_timeout(Some(PATIENCE)).context("setting a time-out")?;
        let wire = Wire::open(&site.phone, eth)?;
        let (ticks, ports) = (Cell::new(0), Cell::new(20_000));
        let lab = Self { wire, servers, clock, ticks, ports, behind, site };
        // A new link may take a second until IPv6 goes over it.
        FAMILIES.into_iter().try_for_each(|family| lab.connect(family, FIRST).map(drop))?;
        Ok(lab)
    }

    /// Attaches the guard, to the driver itself. A message may take as long as the machine does.
    pub fn attach(&self, options: &[&str]) -> Result<()> {
        let all = [Site::INTERFACE, "--xdp-mode", "native", "--check", "message-ms=0"];
        self.site.guard.attach(&[&all, options].concat())?;
        // With a program a veth has GRO, which holds segments back and lets other packets overtake them.
        plain_frames(&self.site.pbx, Site::INTERFACE)
    }

    /// The namespace of the applications.
    #[must_use]
    pub fn pbx(&self) -> &Netns {
        self.behind.as_ref().map_or(&self.site.pbx, |behind| &behind.pbx)
    }

    /// The address of the applications, which is not the one that devices know where that is translated.
    #[must_use]
    pub fn address(&self, family: usize) -> IpAddr {
        self.behind.as_ref().map_or(Site::PBX, |behind| behind.addresses)[family]
    }

    /// The application of a family.
    #[must_use]
    pub fn server(&self, family: usize) -> &Server {
        &self.servers[family]
    }

    /// A connection whose first byte has sequence number `first`, and the application's end of it.
    pub fn connect(&self, family: usize, first: u32) -> Result<(Sender<'_>, Witness)> {
        let mut sender = self.sender(family, first);
        sender.shake_hands()?;
        Ok((sender, self.accept(family)?))
    }

    /// A sender that has sent nothing yet.
    #[must_use]
    pub fn sender(&self, family: usize, first: u32) -> Sender<'_> {
        let port = self.ports.get();
        self.ports.set(port + 1);
        let envelope = Envelope::new(DEVICE[family], Site::PBX[family]);
        Sender::new(self, envelope, port, first)
    }

    /// The application's end of a connection that came about.
    pub fn accept(&self, family: usize) -> Result<Witness> {
        Witness::new(self.servers[family].accept()?)
    }

    /// Waits until the PBX has taken in every frame that was sent. The wire keeps their order.
    pub fn settle(&self) -> Result<()> {
        let tick = self.ticks.get() + 1;
        self.ticks.set(tick);
        let envelope = Envelope::new(DEVICE[0], Site::PBX[0]);
        self.wire.send(&datagram(&envelope, CLOCK_PORT, CLOCK_PORT, &tick.to_be_bytes()))?;
        let mut got = [0; 8];
        while got != tick.to_be_bytes() {
            uninterrupted(|| self.clock.recv(&mut got))
                .context("the wire is silent: a datagram did not arrive")?;
        }
        Ok(())
    }

    /// A UDP socket of the PBX that does not wait.
    pub fn udp(&self, family: usize) -> Result<UdpSocket> {
        let socket = udp(self.pbx(), sip(self.address(family)))?;
        socket.set_nonblocking(true).context("making a socket non-blocking")?;
        Ok(socket)
    }

    /// How packets were counted until now.
    pub fn counts(&self) -> Result<Counts> {
        let map: Counters = open(&Pins::new(self.site.guard.pins()), names::COUNTERS)?;
        let mut counts = Counts::new();
        for number in 0..REASON_SLOTS as u8 {
            let mut packets = 0;
            for outcome in [Outcome::Plain, Outcome::Reset] {
                let values = map.get(&counter_index(0, outcome, number), 0).context("reading a counter")?;
                packets += values.iter().map(|value| value.0.packets).sum::<u64>();
            }
            if packets > 0 {
                counts.insert(number, packets);
            }
        }
        Ok(counts)
    }

    /// How many connections are followed.
    pub fn flows(&self) -> Result<usize> {
        let map: Flows = open(&Pins::new(self.site.guard.pins()), names::FLOWS)?;
        Ok(map.keys().count())
    }

    /// Tries something legal over both families: everything arrives, the connection stays open, and nothing is judged
    /// malformed. `act` sends and returns what the application has to read.
    pub fn legal(&self, technique: &str, act: impl Fn(&mut Sender<'_>) -> Result<Vec<u8>>) -> Result<()> {
        FAMILIES.into_iter().try_for_each(|family| self.legal_over(family, technique, &act))
    }

    /// The same over one family.
    pub fn legal_over(
        &self,
        family: usize,
        technique: &str,
        act: impl FnOnce(&mut Sender<'_>) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let before = self.counts()?;
        let (mut sender, mut witness) = self.connect(family, FIRST)?;
        let attempt = act(&mut sender).and_then(|sent| {
            self.settle()?;
            expect_same(witness.read()?, &sent)?;
            ensure!(witness.end().is_none(), "the connection ended: {:?}", witness.end());
            self.expect_nothing_malformed(&before)
        });
        self.note(technique, "legal", family, &witness.to_string(), &before)?;
        attempt.with_context(|| format!("{technique}, legal, to {}", Site::PBX[family]))
    }

    /// The same many times, each on a connection of its own and with one row in the table.
    pub fn each_legal<T>(
        &self,
        family: usize,
        technique: &str,
        variants: impl IntoIterator<Item = T>,
        act: impl Fn(&mut Sender<'_>, &T) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let (before, mut tries, mut read) = (self.counts()?, 0, 0);
        for variant in variants {
            let (mut sender, mut witness) = self.connect(family, FIRST)?;
            let attempt = act(&mut sender, &variant).and_then(|sent| {
                self.settle()?;
                expect_same(witness.read()?, &sent)
            });
            attempt.with_context(|| format!("{technique}, try {tries}, legal, to {}", Site::PBX[family]))?;
            tries += 1;
            read += witness.already_read();
        }
        self.note(&format!("{technique} ({tries} times)"), "legal", family, &format!("{read} B"), &before)?;
        self.expect_nothing_malformed(&before).with_context(|| format!("{technique}, legal"))
    }

    /// Tries something malicious over both families: whatever the application reads is well-formed.
    pub fn malicious(&self, technique: &str, act: impl Fn(&mut Sender<'_>) -> Result<()>) -> Result<()> {
        FAMILIES.into_iter().try_for_each(|family| self.malicious_over(family, technique, &act).map(drop))
    }

    /// The same over one family; returns how the connection ended.
    pub fn malicious_over(
        &self,
        family: usize,
        technique: &str,
        act: impl FnOnce(&mut Sender<'_>) -> Result<()>,
    ) -> Result<Option<End>> {
        let before = self.counts()?;
        let (sender, mut witness) = self.connect(family, FIRST)?;
        let attempt = self.attempt(sender, &mut witness, act);
        self.note(technique, "malicious", family, &witness.to_string(), &before)?;
        attempt.with_context(|| format!("{technique}, malicious, to {}", Site::PBX[family]))?;
        Ok(witness.end())
    }

    /// The same many times, each on a connection of its own and with one row in the table. With `reset`, every connection has
    /// to end with one.
    pub fn each_malicious<T>(
        &self,
        family: usize,
        technique: &str,
        reset: bool,
        variants: impl IntoIterator<Item = T>,
        act: impl Fn(&mut Sender<'_>, &T) -> Result<()>,
    ) -> Result<()> {
        let (before, mut read, mut resets, mut tries) = (self.counts()?, 0, 0, 0);
        for variant in variants {
            let (sender, mut witness) = self.connect(family, FIRST)?;
            let attempt = self.attempt(sender, &mut witness, |sender| act(sender, &variant));
            attempt.with_context(|| format!("{technique}, try {tries}, to {}", Site::PBX[family]))?;
            tries += 1;
            read += witness.already_read();
            resets += usize::from(witness.end() == Some(End::Reset));
        }
        self.note(
            &format!("{technique} ({tries} times)"),
            "malicious",
            family,
            &format!("{read} B, {resets} resets"),
            &before,
        )?;
        ensure!(!reset || resets == tries, "{technique}: {resets} of {tries} connections were reset");
        Ok(())
    }

    fn attempt(
        &self,
        mut sender: Sender<'_>,
        witness: &mut Witness,
        act: impl FnOnce(&mut Sender<'_>) -> Result<()>,
    ) -> Result<()> {
        act(&mut sender)?;
        self.settle()?;
        expect_well_formed(witness.read()?)
    }

    /// Fails when anything was judged malformed since `before`.
    pub fn expect_nothing_malformed(&self, before: &Counts) -> Result<()> {
        let malformed = |number: u8| Reason::from_number(number).is_some_and(Reason::is_malformed);
        let wrong: Vec<_> = self.since(before)?.into_keys().filter(|number| malformed(*number)).collect();
        ensure!(wrong.is_empty(), "judged malformed: {}", words(&wrong.iter().map(|n| (*n, 1)).collect()));
        Ok(())
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Counts) -> Result<Counts> {
        let mut counts = self.counts()?;
        counts.retain(|number, count| {
            *count -= before.get(number).copied().unwrap_or(0);
            *count > 0
        });
        Ok(counts)
    }

    /// One row of the table: the technique, what was sent, what the application read, what was counted.
    pub fn note(
        &self,
        technique: &str,
        what: &str,
        family: usize,
        read: &str,
        before: &Counts,
    ) -> Result<()> {
        let version = if family == 0 { "IPv4" } else { "IPv6" };
        let counted = words(&self.since(before)?);
        println!("| {technique:<60} | {what:<9} {version} | {read:<16} | {counted} |");
        Ok(())
    }
}

/// The sequence number of the first byte, where nothing depends on it.
pub const FIRST: u32 = 100_000;

fn words(counts: &Counts) -> String {
    let mut text = String::new();
    for (number, count) in counts {
        let word = Reason::from_number(*number).map_or("?", Reason::name);
        // Every trial waits with a datagram, and shakes hands; neither tells anything.
        if !matches!(word, "not-guarded" | "tcp-control" | "not-ip") {
            let _never = write!(text, "{word} {count}, ");
        }
    }
    text.trim_end_matches(", ").to_owned()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
