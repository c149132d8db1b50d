//! Balancers that say whose connection it is (PROXY protocol), through the loaded program.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    CLASS_DEVICES, CLASS_TRUNKS, CONNECTIONS, FlowState, INVITES, MESSAGES, MODE_MONITOR, Outcome, Rate,
    Rule, TCP, TRUNK_MONITORS, Trunk, rule_flags,
};
use sipguard_common::framer::methods;
use sipguard_core::address::unmapped;
use sipguard_tests::cases::{Expected, cases};
use sipguard_tests::message::{OPTIONS, good_call};
use sipguard_tests::packet::{ACK, PSH, Peer, RST};
use sipguard_tests::program::{PERMANENTLY, Program, Run, Shared, XDP_DROP, XDP_PASS};

const PBX: &str = "198.51.100.1:5060";
const PBX_TLS: &str = "198.51.100.1:5061";
const PBX6: &str = "[2001:db8:1::1]:5060";
const PHONE: &str = "203.0.113.9:40123";
const OTHER: &str = "203.0.113.10:40123";
const MALFORMED: &[u8] = b"OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom\x01: <sip:a@h>\r\n\r\n";
/// So slow that nothing comes back while a test runs.
const FIVE: Rate = Rate { interval_ns: 3_600_000_000_000, tolerance_ns: 5 * 3_600_000_000_000 };
const LB: u32 = 3;

/// A program with a trunk of balancers.
fn balanced() -> Result<Shared> {
    let mut program = Program::shared()?;
    for peer in ["192.0.2.0/28", "2001:db8:5::/48"] {
        program.rule(peer, Rule { trunk: LB as u16, ..Rule::zeroed() })?;
    }
    program.trunk(LB, Trunk { proxy_protocol: 1, ..Trunk::zeroed() })?;
    Ok(program)
}

fn balancer(port: u16) -> Peer {
    Peer::new(&format!("192.0.2.5:{port}"), PBX)
}

/// Version 1.
fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, to) = if client.is_ipv4() { ("TCP4", "203.0.113.1") } else { ("TCP6", "2001:db8::1") };
    format!("PROXY {family} {} {to} {} 5060\r\n", client.ip(), client.port()).into_bytes()
}

/// Version 2, with a TLV behind the addresses.
fn v2(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, mut rest) = match client.ip() {
        IpAddr::V4(address) => (0x11, [address.octets(), [203, 0, 113, 1]].concat()),
        IpAddr::V6(address) => (0x21, [address.octets(), [7; 16]].concat()),
    };
    rest.extend(client.port().to_be_bytes());
    rest.extend(5060u16.to_be_bytes());
    rest.extend([0x04, 0, 3, 1, 2, 3]);
    binary(0x21, family, &rest)
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

/// A connection, and where it is.
struct Connection {
    peer: Peer,
    next: u32,
}

impl Connection {
    fn open(program: &mut Program, peer: Peer) -> Result<Connection> {
        program.connect(&peer, 1000)?;
        Ok(Connection { peer, next: 1000 })
    }

    fn send(&mut self, program: &mut Program, bytes: &[u8]) -> Result<Run> {
        let run = program.run(&self.peer.tcp(ACK | PSH, self.next, bytes))?;
        if run.action == XDP_PASS {
            self.next = self.next.wrapping_add(bytes.len() as u32);
        }
        Ok(run)
    }

    /// A connection of a client that has said who it is.
    fn of(program: &mut Program, port: u16, header: &[u8]) -> Result<Connection> {
        let mut connection = Connection::open(program, balancer(port))?;
        assert_eq!(connection.send(program, header)?.reason, Reason::Valid);
        Ok(connection)
    }
}

/// Whom the flow says that its client is.
fn client(program: &mut Program, peer: &Peer) -> Result<Option<SocketAddr>> {
    let flow = program.flow(peer)?.expect("a flow");
    let address = unmapped(bytemuck::cast(flow.client));
    let known = flow.flags & sipguard_common::abi::flow_flags::CLIENT != 0;
    Ok(known.then(|| SocketAddr::new(address, u16::from_be(flow.client_port as u16))))
}

fn offenders(program: &mut Program) -> Result<Vec<(SocketAddr, Reason)>> {
    let mut all: Vec<_> = program
        .offenders()?
        .into_iter()
        .map(|(key, _)| {
            let end = SocketAddr::new(unmapped(key.address), u16::from_be_bytes(key.port));
            (end, Reason::from_number(key.reason).unwrap())
        })
        .collect();
    all.sort_by_key(|(end, _)| *end);
    Ok(all)
}

fn is_reset(run: &Run, reason: Reason) {
    assert_eq!((run.reason, run.outcome, run.action), (reason, Outcome::Reset, XDP_PASS));
}

#[test]
fn the_client_is_named_wherever_the_header_is_cut() -> Result<()> {
    let mut program = balanced()?;
    for (number, header) in [v1(PHONE), v2(PHONE)].into_iter().enumerate() {
        let bytes = [&header[..], OPTIONS].concat();
        for cut in 1..header.len() + 2 {
            let mut connection =
                Connection::open(&mut program, balancer(20_000 + 1000 * number as u16 + cut as u16))?;
            for piece in [&bytes[..cut], &bytes[cut..], OPTIONS] {
                assert_eq!(connection.send(&mut program, piece)?.reason, Reason::Valid, "cut at {cut}");
            }
            assert_eq!(client(&mut program, &connection.peer)?, Some(PHONE.parse()?), "cut at {cut}");
        }
        let mut connection = Connection::open(&mut program, balancer(40_000 + number as u16))?;
        for byte in &bytes {
            assert_eq!(connection.send(&mut program, &[*byte])?.reason, Reason::Valid);
        }
        // What was sent before may come again, and nothing else.
        let again = program.run(&connection.peer.tcp(ACK, connection.next - 4, &bytes[bytes.len() - 4..]))?;
        assert_eq!(again.reason, Reason::Retransmission);
    }
    // The header and what follows it in one segment, which comes again.
    let connection = Connection::open(&mut program, balancer(41_000))?;
    let bytes = [&v2(PHONE)[..], OPTIONS].concat();
    let frame = connection.peer.tcp(ACK, 1000, &bytes);
    let runs = [program.run(&frame)?.reason, program.run(&frame)?.reason];
    assert_eq!(runs, [Reason::Valid, Reason::Retransmission]);
    let mut other = bytes.clone();
    other[20] ^= 1;
    assert_eq!(program.run(&connection.peer.tcp(ACK, 1000, &other))?.reason, Reason::Conflict);
    assert_eq!(offenders(&mut program)?, []);
    Ok(())
}

#[test]
fn families_of_client_and_balancer_are_independent() -> Result<()> {
    let mut program = balanced()?;
    let balancer6 = Peer::new("[2001:db8:5::7]:30000", PBX6);
    for peer in [balancer(30_000), balancer6] {
        for named in [PHONE, "[2001:db8:9::9]:40123"] {
            for header in [v1(named), v2(named)] {
                let mut connection = Connection::open(&mut program, peer.clone())?;
                let bytes = [&header[..], MALFORMED].concat();
                is_reset(&connection.send(&mut program, &bytes)?, Reason::ControlByte);
                assert_eq!(client(&mut program, &peer)?, Some(named.parse()?));
                assert_eq!(offenders(&mut program)?, [(named.parse()?, Reason::ControlByte)]);
                program.reset()?;
                program = rebuilt(program)?;
            }
        }
    }
    Ok(())
}

/// The rules of [`balanced`] in an emptied program.
fn rebuilt(mut program: Shared) -> Result<Shared> {
    for peer in ["192.0.2.0/28", "2001:db8:5::/48"] {
        program.rule(peer, Rule { trunk: LB as u16, ..Rule::zeroed() })?;
    }
    program.trunk(LB, Trunk { proxy_protocol: 1, ..Trunk::zeroed() })?;
    Ok(program)
}

#[test]
fn tls_follows_on_a_tls_port() -> Result<()> {
    let mut program = balanced()?;
    let hello = [&[0x16, 3, 1, 0, 200, 1][..], &[0; 199]].concat();
    for (port, header) in [(30_000, v1(PHONE)), (30_001, v2(PHONE))] {
        let peer = Peer::new(&format!("192.0.2.5:{port}"), PBX_TLS);
        let mut connection = Connection::open(&mut program, peer.clone())?;
        let bytes = [&header[..], &hello].concat();
        for piece in bytes.chunks(7) {
            assert_eq!(connection.send(&mut program, piece)?.reason, Reason::Tls);
        }
        is_reset(&connection.send(&mut program, b"GET / HTTP/1.1\r\n")?, Reason::BadTlsRecord);
        let mut connection = Connection::open(&mut program, peer)?;
        is_reset(&connection.send(&mut program, &[&header[..], b"\x80\x2e\x01"].concat())?, Reason::NotTls);
    }
    assert!(offenders(&mut program)?.iter().all(|(end, _)| end.to_string() == PHONE));
    Ok(())
}

#[test]
fn a_header_is_required_of_a_balancer_and_taken_from_nobody_else() -> Result<()> {
    let mut program = balanced()?;
    for first in [OPTIONS, b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 5060\r\n", &binary(0x31, 0x11, &[0; 12])] {
        let mut connection = Connection::open(&mut program, balancer(30_000))?;
        is_reset(&connection.send(&mut program, first)?, Reason::BadProxyHeader);
    }
    assert_eq!(offenders(&mut program)?, [("192.0.2.5:30000".parse()?, Reason::BadProxyHeader)]);
    let stranger = Peer::new("192.0.2.99:30000", PBX);
    for header in [v1(PHONE), v2(PHONE)] {
        let mut connection = Connection::open(&mut program, stranger.clone())?;
        is_reset(&connection.send(&mut program, &header)?, Reason::BadStartLine);
    }
    assert!(offenders(&mut program)?.contains(&(stranger.remote, Reason::BadStartLine)));
    // Without the flag the trunk's peers send none.
    program.trunk(LB, Trunk::zeroed())?;
    let mut connection = Connection::open(&mut program, balancer(30_001))?;
    assert_eq!(connection.send(&mut program, OPTIONS)?.reason, Reason::Valid);
    let mut connection = Connection::open(&mut program, balancer(30_002))?;
    is_reset(&connection.send(&mut program, &v1(PHONE))?, Reason::BadStartLine);
    Ok(())
}

#[test]
fn a_damaged_header_accuses_nobody() -> Result<()> {
    let mut program = balanced()?;
    program.block("203.0.113.9", u64::MAX)?;
    let mut connection = Connection::open(&mut program, balancer(30_000))?;
    let (good, damaged) = (v1(OTHER), v1(PHONE));
    let mut frame = connection.peer.tcp(ACK, 1000, &good);
    let at = frame.len() - good.len();
    frame[at..at + damaged.len()].copy_from_slice(&damaged);
    let run = program.run(&frame)?;
    assert_eq!((run.reason, run.action), (Reason::BadChecksum, XDP_DROP));
    frame[at] = b'X';
    assert_eq!(program.run(&frame)?.reason, Reason::BadChecksum);
    assert_eq!(connection.send(&mut program, &good)?.reason, Reason::Valid);
    assert_eq!(connection.send(&mut program, OPTIONS)?.reason, Reason::Valid);
    assert_eq!(client(&mut program, &connection.peer)?, Some(OTHER.parse()?));
    Ok(())
}

#[test]
fn who_names_no_client_is_the_balancer() -> Result<()> {
    let mut program = balanced()?;
    program.limit(MESSAGES, FIVE)?;
    let long = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".as_bytes();
    let local = binary(0x20, 0x11, &[203, 0, 113, 9, 203, 0, 113, 1, 1, 2, 3, 4]);
    for (port, header) in
        [b"PROXY UNKNOWN\r\n", long, &local, &binary(0x20, 0, &[]), &binary(0x21, 0, &[4, 0, 1, 9])]
            .into_iter()
            .enumerate()
    {
        let mut connection = Connection::of(&mut program, 30_000 + port as u16, header)?;
        assert_eq!(client(&mut program, &connection.peer)?, None);
        for _ in 0..10 {
            assert_eq!(
                connection.send(&mut program, OPTIONS)?.reason,
                Reason::Valid,
                "a trunk without limits"
            );
        }
        is_reset(&connection.send(&mut program, MALFORMED)?, Reason::ControlByte);
    }
    assert!(offenders(&mut program)?.iter().all(|(end, _)| end.ip().to_string() == "192.0.2.5"));
    // A health check closes without a word.
    let check = Connection::open(&mut program, balancer(31_000))?;
    let fin = program.run(&check.peer.tcp(ACK | sipguard_tests::packet::FIN, 1000, b""))?;
    assert_eq!(fin.reason, Reason::TcpControl);
    Ok(())
}

#[test]
fn a_blocked_client_is_cut_and_the_others_go_on() -> Result<()> {
    type Forbid = fn(&mut Program) -> Result<()>;
    let block: Forbid = |program| program.block("203.0.113.9", u64::MAX);
    let prefix: Forbid = |program| program.block("203.0.113.8/31", u64::MAX);
    let device: Forbid = |program| program.device(PHONE, Rule { flags: rule_flags::BLOCK, ..PERMANENTLY });
    let ban_device: Forbid = |program| program.ban(PHONE, u64::MAX);
    let ban_address: Forbid = |program| program.ban("203.0.113.9:0", u64::MAX);
    for (forbid, reason) in [
        (block, Reason::BlockedHost),
        (prefix, Reason::BlockedPrefix),
        (device, Reason::BlockedDevice),
        (ban_device, Reason::BannedDevice),
        (ban_address, Reason::BannedAddress),
    ] {
        let mut program = balanced()?;
        let mut before = Connection::of(&mut program, 30_000, &v1(PHONE))?;
        let mut other = Connection::of(&mut program, 30_001, &v2(OTHER))?;
        forbid(&mut program)?;
        // A connection that is there, by a request and by an acknowledgement; and a new one, in the header's segment.
        is_reset(&before.send(&mut program, OPTIONS)?, reason);
        let flow = program.flow(&before.peer)?.expect("a flow");
        assert_eq!((flow.state, flow.reason), (FlowState::Rejected as u32, reason.number()));
        is_reset(&program.run(&before.peer.tcp(ACK, before.next, OPTIONS))?, reason);
        for header in [v1(PHONE), v2(PHONE)] {
            let mut new = Connection::open(&mut program, balancer(30_002))?;
            let run = new.send(&mut program, &header)?;
            is_reset(&run, reason);
            assert_eq!(run.frame[47] & RST, RST);
            is_reset(&new.send(&mut program, OPTIONS)?, reason);
        }
        for _ in 0..3 {
            assert_eq!(other.send(&mut program, OPTIONS)?.reason, Reason::Valid);
        }
        assert_eq!(offenders(&mut program)?, [], "a rule accuses nobody");
        // The balancer's own RST ends what it likes.
        let rst = program.run(&before.peer.tcp(RST | ACK, before.next, b""))?;
        assert_eq!((rst.reason, rst.action), (Reason::TcpControl, XDP_PASS));
    }
    Ok(())
}

#[test]
fn monitor_mode_lets_a_blocked_client_pass() -> Result<()> {
    let mut program = balanced()?;
    program.block("203.0.113.9", u64::MAX)?;
    for of_trunk in [false, true] {
        if of_trunk {
            program.change(|settings| settings.mode = 0)?;
            program.trunk(LB, Trunk { proxy_protocol: 1, mode: TRUNK_MONITORS, ..Trunk::zeroed() })?;
        } else {
            program.change(|settings| settings.mode = MODE_MONITOR)?;
        }
        let mut connection = Connection::open(&mut program, balancer(30_000))?;
        let first = [&v1(PHONE)[..], OPTIONS].concat();
        for bytes in [&first, OPTIONS, OPTIONS] {
            let run = connection.send(&mut program, bytes)?;
            assert_eq!(run.action, XDP_PASS);
            assert!(run.let_pass || run.reason == Reason::Valid, "{run:?}");
        }
        let flow = program.flow(&connection.peer)?.expect("a flow");
        assert_ne!(flow.state, FlowState::Rejected as u32);
    }
    assert!(program.count_let_pass(Reason::BlockedHost)? >= 4);
    assert_eq!(program.count(Reason::BlockedHost)?, 0);
    Ok(())
}

#[test]
fn clients_have_the_limits_of_sources() -> Result<()> {
    let mut program = balanced()?;
    program.limit(MESSAGES, FIVE)?;
    let passed = |program: &mut Program, port: u16, named: &str| -> Result<usize> {
        let mut connection = Connection::of(program, port, &v2(named))?;
        let runs: Vec<Run> = (0..10).map(|_| connection.send(program, OPTIONS)).collect::<Result<_>>()?;
        assert!(runs.iter().all(|run| [Reason::Valid, Reason::RateMessages].contains(&run.reason)));
        Ok(runs.iter().filter(|run| run.reason == Reason::Valid).count())
    };
    assert_eq!(passed(&mut program, 30_000, PHONE)?, 5);
    assert_eq!(passed(&mut program, 30_001, OTHER)?, 5);
    assert_eq!(passed(&mut program, 30_002, "203.0.113.9:999")?, 0, "by address");
    assert_eq!(passed(&mut program, 30_003, "[2001:db8:9::9]:40123")?, 5);
    assert_eq!(passed(&mut program, 30_004, "[2001:db8:9::10]:40123")?, 0, "a /64 is one source");
    program.rule("203.0.113.11", Rule { flags: rule_flags::ALLOW, ..PERMANENTLY })?;
    assert_eq!(passed(&mut program, 30_005, "203.0.113.11:1")?, 10, "it is allowed");
    // A carrier that comes by the balancer has its trunk's.
    program.rule("203.0.113.12", Rule { trunk: 4, ..Rule::zeroed() })?;
    program.trunk(4, Trunk::zeroed())?;
    assert_eq!(passed(&mut program, 30_006, "203.0.113.12:1")?, 10, "a trunk without limits");
    assert_eq!(program.count_of_trunk(LB, Outcome::Plain, Reason::RateMessages)?, 35, "as the balancer's");
    assert!(program.count_of_trunk(4, Outcome::Plain, Reason::Valid)? >= 10);
    Ok(())
}

#[test]
fn connections_of_a_client_are_counted_when_it_is_named() -> Result<()> {
    let mut program = balanced()?;
    program.limit(CONNECTIONS, FIVE)?;
    let mut reasons = Vec::new();
    for port in 30_000..30_010 {
        let mut connection = Connection::open(&mut program, balancer(port))?;
        let run = connection.send(&mut program, &v2(PHONE))?;
        reasons.push((run.reason, run.action));
    }
    assert_eq!(reasons[..5], [(Reason::Valid, XDP_PASS); 5]);
    assert_eq!(reasons[5..], [(Reason::RateConnections, XDP_DROP); 5], "TCP repeats it");
    Connection::of(&mut program, 30_020, &v2(OTHER)).map(drop)
}

#[test]
fn what_devices_may_not_send_clients_may_not_either() -> Result<()> {
    let mut program = balanced()?;
    program.change(|settings| settings.denied[CLASS_TRUNKS][TCP] = methods::ALL)?;
    let mut connection = Connection::of(&mut program, 30_000, &v1(PHONE))?;
    assert_eq!(
        connection.send(&mut program, &good_call())?.reason,
        Reason::Valid,
        "a balancer carries devices"
    );
    program.change(|settings| settings.denied[CLASS_DEVICES][TCP] = methods::INVITE)?;
    is_reset(&connection.send(&mut program, &good_call())?, Reason::MethodDenied);
    program.change(|settings| settings.denied[CLASS_DEVICES][TCP] = 0)?;
    let mut connection = Connection::of(&mut program, 30_001, &v1(PHONE))?;
    program.change(|settings| settings.denied[CLASS_DEVICES][TCP] = methods::ALL)?;
    is_reset(&connection.send(&mut program, OPTIONS)?, Reason::TransportDenied);
    // Of this trunk.
    program.change(|settings| settings.denied[CLASS_DEVICES][TCP] = 0)?;
    let denied = [methods::INVITE; 3];
    program.trunk(LB, Trunk { proxy_protocol: 1, denied, ..Trunk::zeroed() })?;
    let mut connection = Connection::of(&mut program, 30_002, &v1(PHONE))?;
    is_reset(&connection.send(&mut program, &good_call())?, Reason::MethodDenied);
    program.limit(INVITES, FIVE)
}

#[test]
fn a_connection_of_the_same_ports_names_its_own_client() -> Result<()> {
    let mut program = balanced()?;
    let mut first = Connection::of(&mut program, 30_000, &v1(PHONE))?;
    assert_eq!(first.send(&mut program, OPTIONS)?.reason, Reason::Valid);
    program.block("203.0.113.9", u64::MAX)?;
    let mut second = Connection::of(&mut program, 30_000, &v1(OTHER))?;
    assert_eq!(client(&mut program, &second.peer)?, Some(OTHER.parse()?));
    assert_eq!(second.send(&mut program, OPTIONS)?.reason, Reason::Valid);
    // A handshake that the PBX answered while the older flow of these ports is there.
    program.leave(&second.peer.answer(9000))?;
    let bytes = [&v2("203.0.113.77:7")[..], OPTIONS].concat();
    assert_eq!(program.run(&second.peer.tcp(ACK, 9000, &bytes))?.reason, Reason::Valid);
    assert_eq!(client(&mut program, &second.peer)?, Some("203.0.113.77:7".parse()?));
    Ok(())
}

#[test]
fn a_connection_that_the_pbx_dialled_begins_with_no_header() -> Result<()> {
    let mut program = balanced()?;
    let peer = Peer::new("192.0.2.5:5060", "198.51.100.1:33333");
    program.dial(&peer, 1000, OPTIONS)?;
    assert_eq!(program.run(&peer.tcp(ACK, 1000, OPTIONS))?.reason, Reason::Valid);
    Ok(())
}

#[test]
fn a_connection_that_is_older_than_the_guard_has_no_client() -> Result<()> {
    let mut program = balanced()?;
    let peer = balancer(30_000);
    // The PBX's own segments show it.
    program.leave(&peer.back(ACK | PSH, sipguard_tests::packet::PBX_NEXT, 1000, b"SIP/2.0 200 OK\r\n"))?;
    assert_eq!(program.run(&peer.tcp(ACK, 1000, b"ontact: <sip:a@b>\r\n"))?.reason, Reason::MidStream);
    assert_eq!(program.run(&peer.tcp(ACK, 1019, OPTIONS))?.reason, Reason::Valid);
    assert_eq!(client(&mut program, &peer)?, None);
    let at = 1019 + OPTIONS.len() as u32;
    is_reset(&program.run(&peer.tcp(ACK, at, MALFORMED))?, Reason::ControlByte);
    assert_eq!(offenders(&mut program)?, [(peer.remote, Reason::ControlByte)]);
    Ok(())
}

/// Of the table of public bug reports: what passes from a declared balancer alone.
#[test]
fn reported_headers_pass_from_a_balancer() -> Result<()> {
    let (mut program, mut played) = (balanced()?, 0);
    let cases = cases()?.into_iter().filter(|case| case.expected == Expected::FrontOnly);
    for (case, writes) in
        cases.flat_map(|case| case.tcp.clone().into_iter().map(move |one| (case.clone(), one)))
    {
        let peer = Peer::new("192.0.2.5:30000", &format!("198.51.100.1:{}", case.tcp_port));
        let (speaks, whole) = (case.expected_of(&writes) == Expected::FrontOnly, writes.concat());
        for cut in [1, 7, 1400] {
            let mut connection = Connection::open(&mut program, peer.clone())?;
            for piece in whole.chunks(cut) {
                let reason = connection.send(&mut program, piece)?.reason;
                if !speaks {
                    assert_eq!(reason, Reason::BadProxyHeader, "{}", case.id);
                    break;
                }
                assert!([Reason::Valid, Reason::Tls].contains(&reason), "{}: {reason:?}", case.id);
            }
            let named = client(&mut program, &peer)?.map(|client| client.ip().to_string());
            assert_eq!(named.as_deref(), speaks.then_some("198.51.100.9"), "{}", case.id);
            played += 1;
        }
    }
    assert!(played >= 9, "{played} connections");
    Ok(())
}
