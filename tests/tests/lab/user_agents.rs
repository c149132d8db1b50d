//! Phones of several makers live through a working day behind the guard: they register, renew, call, ping and leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{sip, wait_until},
    guard::{Counter, Site},
    kamailio::{Complaints, Kamailio},
    netns::{Netns, veth},
    sipp::Transport,
    user_agent::{Baresip, Line, Linphone, is_installed},
};

/// Addresses of the PBX on its second cable, and of the phone at the other end.
const PBX_B: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), IpAddr::V6(v6(1))];
const PHONE_B: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2)), IpAddr::V6(v6(2))];

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

const fn v6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, host)
}

/// A PBX behind its guard, with a phone on each of two cables.
struct Office {
    kamailio: Kamailio,
    site: Site,
    phone_b: Netns,
}

impl Office {
    fn open() -> Result<Self> {
        let (site, phone_b) = (Site::new(false)?, Netns::new("phone-b")?);
        veth(&site.pbx, "eth1", "10.78.0.1/24", &phone_b, "eth0", "10.78.0.2/24", false)?;
        site.pbx.add_address("eth1", "fd78::1/64")?;
        phone_b.add_address("eth0", "fd78::2/64")?;
        // The phones hear each other through the PBX.
        site.pbx.forward()?;
        for (phone, gateways) in [(&site.phone, Site::PBX), (&phone_b, PBX_B)] {
            for gateway in gateways {
                phone.add_route("default", &gateway.to_string())?;
            }
        }
        count_pings(&site.pbx)?;
        site.guard.attach(&["eth0", "eth1"])?;
        let addresses: Vec<String> = [Site::PBX, PBX_B].concat().iter().map(ToString::to_string).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let kamailio = Kamailio::start(&site.pbx, &addresses, None)?;
        Ok(Self { kamailio, site, phone_b })
    }

    fn wait_until_registered(&self, user: &str, there: bool) -> Result<()> {
        wait_until(&format!("that {user} is registered is {there}"), || {
            Ok(self.kamailio.users()?.iter().any(|one| one == user) == there)
        })
    }

    fn wait_for_requests(&self, method: &str, source: IpAddr, count: usize) -> Result<()> {
        wait_until(&format!("{count} times {method} from {source}"), || {
            Ok(self.kamailio.requests(method, source)? >= count)
        })
    }

    /// Waits for pings of a kind that came by the guard, more than there were `before`.
    fn wait_for_pings(&self, kind: &str, before: u64) -> Result<()> {
        wait_until(&format!("more than {before} pings: {kind}"), || Ok(pings(&self.site.pbx, kind)? > before))
    }

    /// Nobody who was here did anything wrong. Gaps are TCP's own and no fault of anybody.
    fn expect_no_accusation(&self) -> Result<()> {
        let rows = self.site.guard.counter_rows()?;
        let gap = |row: &Counter| row.reason == Reason::SequenceGap.name();
        let stopped: Vec<&Counter> = rows.iter().filter(|row| row.action != "pass" && !gap(row)).collect();
        ensure!(stopped.is_empty(), "stopped: {stopped:?}");
        let malformed = self.site.guard.malformed()?;
        ensure!(malformed.is_empty(), "counted as malformed: {malformed:?}");
        Ok(())
    }
}

/// Makes the PBX count the pings that reach its kernel: two line ends, and STUN (by its magic cookie).
fn count_pings(pbx: &Netns) -> Result<()> {
    pbx.run(&["nft", "add table inet lab"])?;
    for kind in ["lines", "stun"] {
        pbx.run(&["nft", "add counter inet lab", kind])?;
    }
    pbx.run(&["nft", "add chain inet lab pings { type filter hook input priority 0; }"])?;
    let lines = "meta l4proto { tcp, udp } th dport 5060 @ih,0,32 0x0d0a0d0a counter name lines";
    let stun = "udp dport 5060 @ih,32,32 0x2112a442 counter name stun";
    for rule in [lines, stun] {
        pbx.run(&["nft", &format!("add rule inet lab pings {rule}")])?;
    }
    Ok(())
}

fn pings(pbx: &Netns, kind: &str) -> Result<u64> {
    let listed = pbx.run(&["nft", "-j", "list", "counter", "inet", "lab", kind])?;
    let listed: serde_json::Value = serde_json::from_str(&listed).context("nft printed no JSON")?;
    let mut counters = listed["nftables"].as_array().into_iter().flatten();
    let packets = counters.find_map(|item| item["counter"]["packets"].as_u64());
    packets.with_context(|| format!("no counter in {listed}"))
}

#[test]
fn baresip_lives_over_ipv4() -> Result<()> {
    baresip_lives(0)
}

#[test]
fn baresip_lives_over_ipv6() -> Result<()> {
    baresip_lives(1)
}

/// One phone over TCP that pings, and one over UDP that pings with STUN and renews all the time.
fn baresip_lives(family: usize) -> Result<()> {
    if !is_installed("baresip", "baresip-core") {
        return Ok(());
    }
    let office = Office::open()?;
    let (a, b) = (Site::PHONE[family], PHONE_B[family]);
    let line_a = Line {
        user: "desk",
        registrar: sip(Site::PBX[family]),
        transport: Transport::Tcp,
        renewal_secs: 600,
    };
    let line_b =
        Line { user: "wall", registrar: sip(PBX_B[family]), transport: Transport::Udp, renewal_secs: 3 };
    let mut desk = Baresip::start(&office.site.phone, &line_a)?;
    let mut wall = Baresip::start(&office.phone_b, &line_b)?;
    office.wait_until_registered("desk", true)?;
    office.wait_until_registered("wall", true)?;

    desk.order("options", &line_a.uri(None))?;
    wall.order("options", &line_b.uri(None))?;
    office.wait_for_requests("OPTIONS", a, 1)?;
    office.wait_for_requests("OPTIONS", b, 1)?;

    call(&mut desk, &line_a.uri(Some("wall")), &mut wall)?;
    call(&mut wall, &line_b.uri(Some("desk")), &mut desk)?;
    office.wait_for_requests("BYE", a, 1)?;
    office.wait_for_requests("BYE", b, 1)?;

    office.wait_for_requests("REGISTER", b, 3)?;
    office.wait_for_pings("stun", 0)?;
    // About every 18 seconds.
    office.wait_for_pings("lines", 0)?;

    desk.quit()?;
    wall.quit()?;
    office.wait_until_registered("desk", false)?;
    office.wait_until_registered("wall", false)?;
    office.expect_no_accusation()
}

/// A call from one phone to another, who answers by itself; the caller hangs up.
fn call(caller: &mut Baresip, uri: &str, called: &mut Baresip) -> Result<()> {
    caller.order("dial", uri)?;
    for phone in [&mut *caller, &mut *called] {
        phone.wait_for("CALL_ESTABLISHED")?;
    }
    caller.order("hangup", "")?;
    for phone in [caller, called] {
        phone.wait_for("CALL_CLOSED")?;
    }
    Ok(())
}

#[test]
fn linphone_lives_over_udp_and_tcp_and_both_families() -> Result<()> {
    if !is_installed("linphone-daemon", "linphone-cli") || !is_installed("baresip", "baresip-core") {
        return Ok(());
    }
    let office = Office::open()?;
    let line = Line { user: "wall", registrar: sip(PBX_B[0]), transport: Transport::Udp, renewal_secs: 600 };
    let mut wall = Baresip::start(&office.phone_b, &line)?;
    office.wait_until_registered("wall", true)?;
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        for transport in BOTH {
            let line = Line { user: "soft", registrar: sip(pbx), transport, renewal_secs: 3 };
            day_of_linphone(&office, &line, phone, &mut wall).with_context(|| line.uri(None))?;
        }
    }
    wall.quit()?;
    // The STUN pings of the other phone aside, which Kamailio does not know, it has no complaint.
    let framing_errors = office.kamailio.complaints()?.framing_errors;
    ensure!(framing_errors == 0, "Kamailio lost the framing {framing_errors} times");
    office.expect_no_accusation()
}

/// It registers, renews and pings; it calls and is called; it leaves.
fn day_of_linphone(office: &Office, line: &Line<'_>, phone: IpAddr, other: &mut Baresip) -> Result<()> {
    let before = office.kamailio.requests("REGISTER", phone)?;
    let mut linphone = Linphone::start(&office.site.phone, line)?;
    office.wait_until_registered(line.user, true)?;
    office.wait_for_requests("REGISTER", phone, before + 2)?;
    office.wait_for_pings("lines", pings(&office.site.pbx, "lines")?)?;

    linphone.order(&format!("call {}", line.uri(Some("wall"))))?;
    linphone.wait_until_said("LinphoneCallStreamsRunning")?;
    other.wait_for("CALL_ESTABLISHED")?;
    linphone.order("terminate")?;
    linphone.wait_until_said("LinphoneCallReleased")?;
    other.wait_for("CALL_CLOSED")?;

    other.order("dial", &format!("sip:{}@sipguard.test", line.user))?;
    other.wait_for("CALL_ESTABLISHED")?;
    other.order("hangup", "")?;
    other.wait_for("CALL_CLOSED")?;

    linphone.order("unregister ALL")?;
    office.wait_until_registered(line.user, false)?;
    linphone.quit()
}

#[test]
fn sipsak_registers_and_asks() -> Result<()> {
    if !is_installed("sipsak", "sipsak") {
        return Ok(());
    }
    let office = Office::open()?;
    let sipsak = |words: &[&str]| {
        let start = ["timeout", "30", "sipsak", "-s", "sip:probe@10.77.0.1"];
        office.site.phone.run(&[&start, words].concat())
    };
    for transport in BOTH.map(Transport::parameter) {
        let contact = format!("sip:probe@10.77.0.2:5062;transport={transport}");
        sipsak(&["-E", transport])?;
        sipsak(&["-E", transport, "-U", "-x", "600", "-C", &contact])?;
        office.wait_until_registered("probe", true)?;
        sipsak(&["-E", transport, "-U", "-x", "0", "-C", &contact])?;
        office.wait_until_registered("probe", false)?;
    }
    ensure!(office.kamailio.complaints()? == Complaints::default(), "{:?}", office.kamailio.complaints()?);
    office.expect_no_accusation()
}

#[test]
fn sofia_asks() -> Result<()> {
    if !is_installed("sip-options", "sofia-sip-bin") {
        return Ok(());
    }
    let office = Office::open()?;
    for (pbx, phone) in Site::PBX.into_iter().zip(Site::PHONE) {
        for (count, transport) in (1..).zip(BOTH) {
            let line = Line { user: "", registrar: sip(pbx), transport, renewal_secs: 0 };
            let answer = office.site.phone.run(&["timeout", "30", "sip-options", &line.uri(None)])?;
            ensure!(answer.contains("SIP/2.0 200"), "no good answer: {answer}");
            office.wait_for_requests("OPTIONS", phone, count)?;
        }
    }
    ensure!(office.kamailio.complaints()? == Complaints::default(), "{:?}", office.kamailio.complaints()?);
    office.expect_no_accusation()
}
