//! One act: everybody comes on, the errant device does its worst, and the figures are taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    errant::{Errant, USER_AGENT},
    guard::{Counter, Guard, Offender},
    phones::{Phone, Phones},
    say,
    trunk::ErrantTrunk,
};
use crate::{
    fragile::Journal,
    interrupt,
    kamailio::{Complaints, Kamailio, Trunk},
    network::{self, Network, sip},
    scratch::Scratch,
    sipp::{Order, Scenario, Transport},
    supervisor::{Supervisor, Tally},
};

/// Phones that register at Kamailio over each transport.
const REGISTERED: u32 = 20;
/// Phones that keep a connection to the fragile PBX.
pub const LONG_LIVED: usize = 10;
/// Calls a second through Kamailio to the trunk.
const CALLS_PER_SEC: u32 = 2;

/// What both acts share.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    pub network: &'a Network,
    pub scratch: &'a Scratch,
    pub fragile_pbx: &'a Path,
    pub duration: Duration,
}

/// What an act showed.
#[derive(Debug)]
pub struct Figures {
    /// The fragile PBX as a server.
    pub server: Tally,
    /// The fragile PBX as a client of the trunk.
    pub dialler: Tally,
    pub kamailio_survived: bool,
    pub calls: u32,
    pub calls_completed: u64,
    pub call_errors: String,
    /// Contacts of healthy phones at Kamailio.
    pub contacts: usize,
    pub contacts_expected: usize,
    pub phones: Vec<Phone>,
    /// Malformed messages sent by the device and by the trunk.
    pub sent: u32,
    /// Reads of the fragile PBX that held malformed bytes, by fault.
    pub read: BTreeMap<String, u32>,
    pub complaints: Complaints,
    /// Requests of the errant device that Kamailio considered good enough to look into.
    pub accepted: usize,
    /// What sipguard says; `None` without it.
    pub guard: Option<Testimony>,
}

/// What sipguard says about an act.
#[derive(Debug)]
pub struct Testimony {
    pub counters: Vec<Counter>,
    pub offenders: BTreeMap<String, Offender>,
    pub status: Value,
    /// Ports of healthy phones among the accused; there should be none.
    pub wrongly_accused: BTreeSet<u16>,
}

impl Stage<'_> {
    /// Plays the act; with a path to sipguard it is attached before anybody comes on.
    pub fn play(&self, name: &str, sipguard: Option<&Path>) -> Result<Figures> {
        let Network { pbx, phones, errant, trunk, .. } = self.network;
        let guard =
            sipguard.map(|program| Guard::attach(pbx, program, &network::PBX_INTERFACES)).transpose()?;
        if guard.is_some() {
            say("  sipguard is attached to both interfaces of the PBX");
        }
        let addresses = [network::KAMAILIO.to_string(), network::PBX_TO_TRUNK.to_string()];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let line = network::TRUNK.to_string();
        let line = Trunk { address: &line, transport: Transport::Tcp };
        let mut kamailio = Kamailio::start(pbx, &addresses, Some(line))?;
        let called = self.called().start(trunk)?;
        let errant_trunk = ErrantTrunk::start(trunk, sip(network::ERRANT_TRUNK))?;
        let journal = self.scratch.join(&format!("journal-{name}"));
        let supervise = |role: &str, address| {
            let (address, journal) = (sip(address).to_string(), journal.to_string_lossy().into_owned());
            Supervisor::start(
                pbx,
                self.fragile_pbx,
                &[role, &address, "--journal", &journal, "--memory", "4"],
            )
        };
        let server = supervise("--listen", network::FRAGILE)?;
        self.wait_for(network::FRAGILE)?;
        let desks = Phones::start(phones, sip(network::FRAGILE), LONG_LIVED)?;
        self.register()?;
        say(&format!(
            "  {LONG_LIVED} phones hold TCP connections to the fragile PBX, {} are registered at Kamailio",
            2 * REGISTERED
        ));

        let caller = self.caller()?;
        let calling = caller.start(phones)?;
        let dialler = supervise("--dial", network::ERRANT_TRUNK)?;
        let errant = Errant::start(errant, &[sip(network::FRAGILE), sip(network::KAMAILIO)])?;
        say("  calls run; the errant device and the errant trunk begin to send malformed SIP");
        self.watch(&[&server, &dialler], &errant)?;

        let sent = errant.stop() + errant_trunk.stop();
        let outcome = calling.wait()?;
        called.stop()?;
        // The phones may have just lost their connection; give them the time of one more refresh.
        interrupt::pause(Duration::from_secs(2))?;
        let kamailio_survived = kamailio.expect_alive().is_ok();
        let users = if kamailio_survived { kamailio.users()? } else { vec![] };
        let healthy = |user: &&String| user.starts_with("udp") || user.starts_with("tcp");
        let phones = desks.stop();
        let (server, dialler) = (server.stop()?, dialler.stop()?);
        let mut read = BTreeMap::new();
        for fault in Journal::read(&journal)?.into_iter().filter_map(|entry| entry.fault) {
            *read.entry(fault).or_default() += 1;
        }
        let guard = guard.map(|guard| testimony(&guard, &phones)).transpose()?;
        say(&format!("  the act ends: {} crashes", server.crashes + dialler.crashes));
        Ok(Figures {
            server,
            dialler,
            kamailio_survived,
            calls: caller.calls,
            calls_completed: outcome.successful,
            call_errors: outcome.errors,
            contacts: users.iter().filter(healthy).count(),
            contacts_expected: 2 * REGISTERED as usize,
            phones,
            sent,
            read,
            complaints: kamailio.complaints()?,
            accepted: kamailio.requests_from(USER_AGENT)?,
            guard,
        })
    }

    /// The trunk that takes all calls.
    fn called(&self) -> Order {
        Order {
            local: Some(network::TRUNK.to_string()),
            timeout: self.duration + Duration::from_secs(60),
            ..Order::new(Scenario::Uas, Transport::Tcp, "")
        }
    }

    /// The phones that call through Kamailio, over one TCP connection, for as long as the act lasts.
    fn caller(&self) -> Result<Order> {
        let seconds = u32::try_from(self.duration.as_secs()).context("a very long act")?;
        Ok(Order {
            calls: CALLS_PER_SEC * seconds,
            rate: CALLS_PER_SEC,
            user: "caller".to_owned(),
            hold: Duration::from_millis(500),
            timeout: self.duration + Duration::from_secs(10),
            ..Order::new(Scenario::Uac, Transport::Tcp, &sip(network::KAMAILIO).to_string())
        })
    }

    /// Waits until the PBX listens, so that no phone counts its start as a loss.
    fn wait_for(&self, address: Ipv4Addr) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        while self.network.pbx.enter(|| TcpStream::connect(sip(address)))?.is_err() {
            if Instant::now() > until {
                bail!("nothing listens on {}", sip(address));
            }
            interrupt::pause(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn register(&self) -> Result<()> {
        for (transport, user) in [(Transport::Udp, "udp"), (Transport::TcpPerCall, "tcp")] {
            let order = Order {
                calls: REGISTERED,
                rate: 50,
                user: user.to_owned(),
                ..Order::new(Scenario::Register, transport, &sip(network::KAMAILIO).to_string())
            };
            let outcome = order.run(&self.network.phones)?;
            outcome.expect_all(REGISTERED).with_context(|| format!("registering over {user}"))?;
        }
        Ok(())
    }

    /// Lets the act go on for its time and tells how it stands.
    fn watch(&self, supervisors: &[&Supervisor], errant: &Errant) -> Result<()> {
        const STEP: Duration = Duration::from_secs(5);
        let mut left = self.duration;
        while !left.is_zero() {
            let step = left.min(STEP);
            interrupt::pause(step)?;
            left -= step;
            let sum = |pick: fn(&Tally) -> u64| supervisors.iter().map(|one| pick(&one.tally())).sum::<u64>();
            say(&format!(
                "  {} malformed messages sent by the device; {} crashes, {} MB of core dumps",
                errant.sent(),
                sum(|tally| u64::from(tally.crashes)),
                sum(|tally| tally.core_bytes) / 1_000_000,
            ));
        }
        Ok(())
    }
}

fn testimony(guard: &Guard, phones: &[Phone]) -> Result<Testimony> {
    let offenders = guard.offenders()?;
    // The router keeps a port unless two inside hosts have chosen the same; the phones chose first.
    let healthy: BTreeSet<u16> = phones.iter().flat_map(|phone| phone.ports.iter().copied()).collect();
    let accused = offenders.get(&network::OFFICE.to_string()).map(|offender| &offender.ports);
    let wrongly_accused = accused.map(|ports| ports & &healthy).unwrap_or_default();
    Ok(Testimony { counters: guard.counters()?, offenders, status: guard.status()?, wrongly_accused })
}
