//! Incidents, played with a real PBX: an office behind NAT, Kamailio and a trunk, whose calls must not notice what happens beside them.
//!
//! `cargo test -p sipguard-tests --test lab -- --nocapture incident` prints what was seen. docs/guide/incidents.md has the commands as recipes.

mod forged;
mod phone;
mod scanner;
mod transports;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, neighbour, text},
    kamailio::{Complaints, Kamailio, Trunk},
    netns::Netns,
    network::{KAMAILIO, Network, OFFICE, PBX_INTERFACES, PBX_TO_TRUNK, TRUNK, sip},
    question::Question,
    sipp::{Order, Scenario, Sipp, Transport},
};

/// How the office's own network knows the machine with the healthy phones.
const DESKS: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 10);

/// The guarded PBX between office and trunk, and the called side of all calls, on the trunk.
struct Stage {
    // Each goes before what it stands on.
    _called: Sipp,
    kamailio: Kamailio,
    guard: Guard,
    network: Network,
}

/// One side of the PBX.
#[derive(Clone, Copy)]
struct Party<'a> {
    stage: &'a Stage,
    namespace: &'a Netns,
    /// Its address, in its own network and as the PBX sees it.
    own: IpAddr,
    seen: IpAddr,
    pbx: SocketAddr,
}

impl Stage {
    /// Everybody is there, and nobody calls yet. The PBX dials the trunk over `line`.
    fn new(line: Transport) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces and XDP need root: run this test with sudo"
        );
        let network = Network::new()?;
        let guard = Guard::new(&network.pbx, &neighbour("SIPGUARD", "sipguard")?);
        guard.attach(&PBX_INTERFACES)?;
        let addresses = [KAMAILIO, PBX_TO_TRUNK].map(|address| address.to_string());
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let trunk = TRUNK.to_string();
        let outside = Trunk { address: &trunk, transport: line };
        let kamailio = Kamailio::start(&network.pbx, &addresses, Some(outside))?;
        let called = Order {
            local: Some(trunk.clone()),
            timeout: Duration::from_secs(300),
            ..Order::new(Scenario::Uas, line, "")
        };
        Ok(Self { _called: called.start(&network.trunk)?, kamailio, guard, network })
    }

    /// The healthy phones of the office.
    fn office(&self) -> Party<'_> {
        let pbx = sip(KAMAILIO);
        Party { stage: self, namespace: &self.network.phones, own: DESKS.into(), seen: OFFICE.into(), pbx }
    }

    /// The trunk.
    fn trunk(&self) -> Party<'_> {
        let pbx = sip(PBX_TO_TRUNK);
        Party { stage: self, namespace: &self.network.trunk, own: TRUNK.into(), seen: TRUNK.into(), pbx }
    }

    /// Fails when Kamailio was handed anything that it could not use.
    fn expect_no_complaint(&self) -> Result<()> {
        let complaints = self.kamailio.complaints()?;
        ensure!(complaints == Complaints::default(), "Kamailio complains: {complaints:?}");
        Ok(())
    }
}

impl Party<'_> {
    /// Calls through the PBX to the trunk; each is held for a time.
    fn order(&self, transport: Transport, calls: u32, hold: Duration) -> Order {
        Order {
            calls,
            rate: 25,
            hold,
            local: Some(self.own.to_string()),
            timeout: hold + Duration::from_secs(60),
            ..Order::new(Scenario::Uac, transport, &self.pbx.to_string())
        }
    }

    /// Begins such calls.
    fn call(&self, transport: Transport, calls: u32, hold: Duration) -> Result<Sipp> {
        self.order(transport, calls, hold).start(self.namespace)
    }

    /// Waits until it has begun so many calls in all, each of which was answered.
    fn wait_for_calls(&self, calls: usize) -> Result<()> {
        wait_until("the calls are answered", || Ok(self.stage.kamailio.calls("ACK", self.seen)? == calls))
    }

    /// How many of its calls stand.
    fn calls(&self) -> Result<usize> {
        let calls = |method| self.stage.kamailio.calls(method, self.seen);
        Ok(calls("ACK")? - calls("BYE")?)
    }

    /// An OPTIONS of a healthy peer on this side.
    fn question(&self, transport: Transport) -> Question {
        Question::new(transport, self.own, self.pbx, "DeskPhone/3.2")
    }
}

/// Runs a command that must succeed, and returns what it printed.
fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// Whom the guard has banned.
fn banned(guard: &Guard) -> Result<Vec<String>> {
    guard.rows(&["list", "ban"])?.iter().map(|row| text(row, "target")).collect()
}
