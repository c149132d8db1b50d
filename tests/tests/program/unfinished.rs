//! Messages that are begun and not finished: how many a source has, whatever becomes of their connections.

use anyhow::{Result, ensure};
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{MODE_MONITOR, Rule, Trunk, rule_flags, rules_in_use};
use sipguard_tests::application::wait_until;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::packet::{ACK, FIN, PBX_NEXT, Peer, RST, SYN};
use sipguard_tests::program::{PERMANENTLY, Program, Run, XDP_DROP, XDP_PASS};

/// Sequence number of the first byte of each connection.
const FIRST: u32 = 1000;
/// Bytes of the first half of a message.
const HALF: usize = 30;

/// Counts, and allows no more than `most` of a source.
fn limit(program: &mut Program, most: u32) -> Result<()> {
    program.change(|settings| {
        settings.rules |= rules_in_use::UNFINISHED;
        settings.unfinished = most;
    })
}

fn peer(number: u32) -> Peer {
    Peer::new(&format!("192.0.2.7:{}", 1024 + number), "198.51.100.1:5060")
}

/// The first half of a message on a new connection.
fn half(program: &mut Program, peer: &Peer) -> Result<Run> {
    program.connect(peer, FIRST)?;
    program.run(&peer.tcp(ACK, FIRST, &OPTIONS[..HALF]))
}

/// The second half.
fn rest(program: &mut Program, peer: &Peer) -> Result<Run> {
    program.run(&peer.tcp(ACK, FIRST + HALF as u32, &OPTIONS[HALF..]))
}

/// A SYN of a connection that is never made.
fn syn(program: &mut Program, remote: &str) -> Result<(u32, Reason)> {
    let run = program.run(&Peer::new(remote, "198.51.100.1:5060").tcp(SYN, 1, b""))?;
    Ok((run.action, run.reason))
}

const PASSES: (u32, Reason) = (XDP_PASS, Reason::TcpControl);
const DROPPED: (u32, Reason) = (XDP_DROP, Reason::UnfinishedMessages);

/// Messages that are counted now, of all senders.
fn counted(program: &mut Program) -> Result<u32> {
    Ok(program.unfinished()?.iter().map(|(_, count)| count).sum())
}

#[test]
fn who_has_too_many_opens_no_new_connection_and_what_stands_goes_on() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 3)?;
    for number in 0..3 {
        ensure!(syn(&mut program, "192.0.2.7:9")? == PASSES, "{number}");
        ensure!(half(&mut program, &peer(number))?.reason == Reason::Valid, "{number}");
    }
    let idle = peer(9);
    ensure!(syn(&mut program, "192.0.2.7:9")? == DROPPED, "a fourth");
    ensure!(syn(&mut program, "192.0.2.8:9")? == PASSES, "another source");
    // A limit is an address's: its port is not named, and nobody is nearer to a ban.
    let offenders = program.offenders()?;
    ensure!(
        offenders.len() == 1 && offenders[0].0.port == [0, 0] && offenders[0].1.packets == 1,
        "{offenders:?}"
    );
    ensure!(program.bans()?.is_empty(), "a limit accuses nobody");
    for number in 0..3 {
        ensure!(rest(&mut program, &peer(number))?.reason == Reason::Valid, "{number} goes on");
        ensure!(counted(&mut program)? == 2 - number, "{number} is finished");
        ensure!(syn(&mut program, "192.0.2.7:9")? == PASSES, "{number} made room");
    }
    // Whole messages, and several in one segment, are not counted; of one that begins behind another, one.
    program.connect(&idle, FIRST)?;
    let two = [OPTIONS, OPTIONS, &OPTIONS[..HALF]].concat();
    ensure!(program.run(&idle.tcp(ACK, FIRST, &two))?.reason == Reason::Valid && counted(&mut program)? == 1);
    let next = FIRST + two.len() as u32;
    let more = [&OPTIONS[HALF..], &OPTIONS[..HALF]].concat();
    ensure!(program.run(&idle.tcp(ACK, next, &more))?.reason == Reason::Valid && counted(&mut program)? == 1);
    let next = next + more.len() as u32;
    ensure!(program.run(&idle.tcp(ACK, next, &OPTIONS[HALF..]))?.reason == Reason::Valid);
    ensure!(counted(&mut program)? == 0, "all are finished");
    Ok(())
}

#[test]
fn however_a_connection_ends_its_message_is_counted_no_more() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 3)?;
    let one = peer(1);
    let end = FIRST + HALF as u32;
    type Way<'a> = &'a dyn Fn(&mut Program) -> Result<()>;
    let ways: [(&str, Way<'_>); 5] = [
        ("the PBX resets it", &|program| {
            program.acknowledge(&one, end)?;
            program.leave(&one.back(RST | ACK, PBX_NEXT, end, b""))
        }),
        ("the PBX acknowledges the peer's FIN", &|program| {
            program.run(&one.tcp(ACK | FIN, end, b""))?;
            program.acknowledge(&one, end + 1)
        }),
        ("another one has its ports", &|program| program.connect(&one, 77_000)),
        ("the PBX dials with its ports", &|program| program.leave(&one.back(SYN, 5, 0, b""))),
        ("it is refused", &|program| {
            let run = program.run(&one.tcp(ACK, end, b"\0\0\0"))?;
            ensure!(run.reason == Reason::ControlByte, "{run:?}");
            Ok(())
        }),
    ];
    for (name, way) in ways {
        half(&mut program, &one)?;
        ensure!(counted(&mut program)? == 1, "before {name}");
        way(&mut program)?;
        ensure!(counted(&mut program)? == 0, "{name}");
        program.forget_peer(&one)?;
    }
    Ok(())
}

#[test]
fn what_is_lost_with_its_flow_is_forgotten_with_the_time() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 5)?;
    program.change(|settings| settings.limits.message_ms = 3000)?;
    for number in 0..5 {
        half(&mut program, &peer(number))?;
        program.forget_peer(&peer(number))?;
    }
    ensure!(syn(&mut program, "192.0.2.7:9")? == DROPPED, "lost, and not forgotten yet");
    wait_until("it is forgotten", || Ok(syn(&mut program, "192.0.2.7:9")? == PASSES))?;
    ensure!(counted(&mut program)? == 0, "none is counted");
    // A message that is overdue is refused with its next bytes, and is not subtracted again.
    half(&mut program, &peer(1))?;
    wait_until("it is overdue", || Ok(counted(&mut program)? == 0))?;
    half(&mut program, &peer(2))?;
    ensure!(counted(&mut program)? == 1, "one is overdue");
    ensure!(rest(&mut program, &peer(1))?.reason == Reason::SlowMessage);
    ensure!(counted(&mut program)? == 1, "the other is counted still");
    Ok(())
}

#[test]
fn two_thousand_connections_that_end_in_any_order_leave_nothing() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 1_000_000)?;
    program.change(|settings| settings.limits.message_ms = 3_600_000)?;
    let (mut begun, mut random) = (Vec::new(), 7u32);
    for number in 0..2000u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let one = Peer::new(&format!("192.0.2.{}:{}", 1 + number % 200, 1024 + number), "198.51.100.1:5060");
        half(&mut program, &one)?;
        begun.push(one);
        if random >> 30 != 0 {
            let one = begun.swap_remove(random as usize % begun.len());
            match random >> 8 & 3 {
                0 => {
                    program.acknowledge(&one, FIRST + HALF as u32)?;
                    program.leave(&one.back(RST | ACK, PBX_NEXT, FIRST + HALF as u32, b""))?;
                }
                1 => drop(program.run(&one.tcp(ACK, FIRST + HALF as u32, b"\0\0\0"))?),
                2 => program.connect(&one, 90_000)?,
                _ => ensure!(rest(&mut program, &one)?.reason == Reason::Valid),
            }
        }
        if number % 500 == 499 {
            ensure!(counted(&mut program)? as usize == begun.len(), "after {number}");
        }
    }
    for one in &begun {
        rest(&mut program, one)?;
    }
    ensure!(counted(&mut program)? == 0, "{:?}", program.unfinished()?);
    Ok(())
}

#[test]
fn a_trunk_has_a_limit_of_its_own_and_the_allowed_have_none() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 2)?;
    program.rule("192.0.2.0/28", Rule { trunk: 3, ..Rule::zeroed() })?;
    for number in 0..5 {
        half(&mut program, &peer(number))?;
    }
    ensure!(syn(&mut program, "192.0.2.7:9")? == PASSES, "a trunk without a limit has none");
    program.trunk(3, Trunk { unfinished: 5, ..Trunk::zeroed() })?;
    ensure!(syn(&mut program, "192.0.2.9:9")? == DROPPED, "all its peers together");
    ensure!(syn(&mut program, "192.0.2.99:9")? == PASSES, "a source");
    program.rule("192.0.2.9", Rule { flags: rule_flags::ALLOW, ..PERMANENTLY })?;
    ensure!(syn(&mut program, "192.0.2.9:9")? == PASSES, "an allowed one");
    program.change(|settings| settings.mode = MODE_MONITOR)?;
    let frame = Peer::new("192.0.2.7:9", "198.51.100.1:5060").tcp(SYN, 1, b"");
    ensure!(program.run_uncounted(&frame)?.0 == XDP_PASS, "monitored");
    ensure!(program.count_let_pass(Reason::UnfinishedMessages)? == 1, "and counted");
    // What the PBX dialled is nobody's connection to it.
    let trunk = Peer::new("192.0.2.9:5060", "198.51.100.1:33333");
    let before = counted(&mut program)?;
    program.dial(&trunk, FIRST, OPTIONS)?;
    ensure!(program.run(&trunk.tcp(ACK, FIRST, &OPTIONS[..HALF]))?.reason == Reason::Valid);
    ensure!(counted(&mut program)? == before, "it was counted");
    Ok(())
}

/// It is known with the header, which waits for one of its messages to end. The balancer's others go on.
#[test]
fn a_client_behind_a_balancer_has_a_limit_of_its_own() -> Result<()> {
    let mut program = Program::shared()?;
    limit(&mut program, 3)?;
    program.rule("192.0.2.7", Rule { trunk: 1, ..Rule::zeroed() })?;
    program.trunk(1, Trunk { proxy_protocol: 1, ..Trunk::zeroed() })?;
    let header = |client: &str| format!("PROXY TCP4 {client} 203.0.113.1 40123 5060\r\n").into_bytes();
    let begin = |program: &mut Program, number: u32, client: &str| {
        program.connect(&peer(number), FIRST)?;
        let first = [&header(client)[..], &OPTIONS[..HALF]].concat();
        program.run(&peer(number).tcp(ACK, FIRST, &first)).map(|run| (run.action, run.reason))
    };
    for number in 0..3 {
        ensure!(begin(&mut program, number, "203.0.113.9")? == (XDP_PASS, Reason::Valid), "{number}");
    }
    ensure!(begin(&mut program, 3, "203.0.113.9")? == DROPPED, "it has three");
    ensure!(begin(&mut program, 4, "203.0.113.8")? == (XDP_PASS, Reason::Valid), "another has one");
    ensure!(counted(&mut program)? == 4, "{:?}", program.unfinished()?);
    ensure!(syn(&mut program, "192.0.2.7:9")? == PASSES, "the balancer's others");
    let at = FIRST + (header("203.0.113.9").len() + HALF) as u32;
    program.run(&peer(0).tcp(ACK, at, &OPTIONS[HALF..]))?;
    let first = [&header("203.0.113.9")[..], OPTIONS].concat();
    ensure!(program.run(&peer(3).tcp(ACK, FIRST, &first))?.reason == Reason::Valid, "it has two");
    Ok(())
}
