//! Limits that only count what is over them, through the loaded program: of a source, of a trunk, and of a client behind a balancer.

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::Reason;
use sipguard_common::abi::{
    CONNECTIONS, INVITES, MESSAGES, PACKETS, RATE_KINDS, RATE_REASONS, REGISTERS, Rate, Rates, Rule,
    TRUNK_ENFORCES, TRUNK_MONITORS, Trunk, rules_in_use,
};
use sipguard_tests::message::{OPTIONS, good_call, register};
use sipguard_tests::packet::{ACK, Peer, SYN};
use sipguard_tests::program::{Program, Shared, XDP_DROP, XDP_PASS};

const PBX: &str = "198.51.100.1:5060";
const TRUNK: u32 = 3;
/// Every limit.
const ALL: u32 = u32::MAX;

/// That many at once, and one an hour: nothing comes back while a test runs.
const fn slow(burst: u64) -> Rate {
    let hour_ns = 3_600_000_000_000;
    Rate { interval_ns: hour_ns, tolerance_ns: hour_ns * burst }
}

/// Limits, and which of them only count.
#[derive(Clone, Copy)]
struct Limits {
    rates: Rates,
    open: u32,
    unfinished: u32,
    monitored: u32,
}

const NONE: Limits = Limits { rates: [Rate::NONE; RATE_KINDS.len()], open: 0, unfinished: 0, monitored: 0 };

/// Whose limits they are. What is set of the others says the contrary, and must not matter.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Source,
    Trunk,
}

impl Whose {
    const BOTH: [Whose; 2] = [Whose::Source, Whose::Trunk];

    fn trunk(self) -> u32 {
        match self {
            Whose::Source => 0,
            Whose::Trunk => TRUNK,
        }
    }

    /// A program in which 192.0.2.7 has no limits yet.
    fn program(self) -> Result<Shared> {
        let mut program = Program::shared()?;
        if let Whose::Trunk = self {
            program.rule("192.0.2.0/28", Rule { trunk: TRUNK as u16, ..Rule::zeroed() })?;
        }
        Ok(program)
    }

    fn set(self, program: &mut Program, limits: Limits) -> Result<()> {
        let Limits { rates, open, unfinished, monitored } = limits;
        let mut trunk = Trunk { mode: TRUNK_ENFORCES, monitored_limits: !monitored, ..Trunk::zeroed() };
        if let Whose::Trunk = self {
            trunk = Trunk { rates, open, unfinished, monitored_limits: monitored, ..trunk };
        }
        program.trunk(TRUNK, trunk)?;
        program.change(|settings| {
            settings.rules |= rules_in_use::RATES | rules_in_use::OPEN | rules_in_use::UNFINISHED;
            settings.monitored_limits = !monitored;
            if let Whose::Source = self {
                (settings.rates, settings.open, settings.unfinished) = (rates, open, unfinished);
                settings.monitored_limits = monitored;
            }
        })
    }
}

/// How many of ten frames pass.
fn passed(program: &mut Program, frame: &[u8]) -> Result<usize> {
    let mut passed = 0;
    for _ in 0..10 {
        passed += usize::from(program.run_uncounted(frame)?.0 == XDP_PASS);
    }
    Ok(passed)
}

fn stopped(program: &mut Program, frame: &[u8]) -> Result<Reason> {
    let run = program.run(frame)?;
    assert_eq!(run.action, XDP_DROP, "{run:?}");
    Ok(run.reason)
}

#[test]
fn a_rate_that_only_counts_leaves_the_others_in_force() -> Result<()> {
    for whose in Whose::BOTH {
        for (kind, message) in [
            (PACKETS, register(1)),
            (MESSAGES, register(1)),
            (REGISTERS, register(1)),
            (INVITES, good_call()),
        ] {
            let (mut program, reason) = (whose.program()?, RATE_REASONS[kind]);
            // Five and no more, and of something else seven.
            let other = if kind == MESSAGES { PACKETS } else { MESSAGES };
            let mut limits = Limits { monitored: reason.limit_bit(), ..NONE };
            (limits.rates[kind], limits.rates[other]) = (slow(5), slow(7));
            whose.set(&mut program, limits)?;
            let frame = Peer::new("192.0.2.7:5060", PBX).udp(&message);
            assert_eq!(passed(&mut program, &frame)?, 7, "{reason:?} of {whose:?}");
            // What the packets' limit drops is not read, so of messages it is two.
            let over = if kind == MESSAGES { 2 } else { 5 };
            assert_eq!(program.count_let_pass(reason)?, over, "{reason:?} of {whose:?}");
            assert_eq!((program.count(reason)?, program.count(Reason::Valid)?), (0, 7));
            assert_eq!(program.count(RATE_REASONS[other])?, 3, "{reason:?} of {whose:?}");
            (limits.rates[other], limits.monitored) = (Rate::NONE, !reason.limit_bit());
            whose.set(&mut program, limits)?;
            assert_eq!(stopped(&mut program, &frame)?, reason, "{whose:?}");
        }
    }
    Ok(())
}

#[test]
fn new_connections_that_are_only_counted() -> Result<()> {
    for whose in Whose::BOTH {
        let mut program = whose.program()?;
        let mut limits = Limits { monitored: Reason::RateConnections.limit_bit(), ..NONE };
        limits.rates[CONNECTIONS] = slow(3);
        whose.set(&mut program, limits)?;
        let connect = |program: &mut Program, port: u16| {
            let peer = Peer::new(&format!("192.0.2.7:{port}"), PBX);
            program.run(&peer.tcp(SYN, 1, b""))?;
            program.leave(&peer.answer(2))?;
            anyhow::Ok(peer.tcp(ACK, 2, b""))
        };
        for port in 40_000..40_005 {
            let ack = connect(&mut program, port)?;
            assert_eq!(program.run_uncounted(&ack)?.0, XDP_PASS, "{whose:?}");
        }
        assert_eq!(program.count_let_pass(Reason::RateConnections)?, 2, "{whose:?}");
        limits.monitored = !limits.monitored;
        whose.set(&mut program, limits)?;
        let ack = connect(&mut program, 40_010)?;
        assert_eq!(stopped(&mut program, &ack)?, Reason::RateConnections, "{whose:?}");
    }
    Ok(())
}

#[test]
fn what_there_is_at_once_and_is_only_counted() -> Result<()> {
    for whose in Whose::BOTH {
        let (open, unfinished) = (Reason::OpenConnections, Reason::UnfinishedMessages);
        let mut program = whose.program()?;
        let peer = Peer::new("192.0.2.7:40000", PBX);
        let limits = Limits { open: 1, unfinished: 1, ..NONE };
        whose.set(&mut program, limits)?;
        program.connect(&peer, 1000)?;
        assert_eq!(program.run(&peer.tcp(ACK, 1000, &OPTIONS[..30]))?.reason, Reason::Valid);
        program.count_open(&peer, whose.trunk())?;
        let syn = Peer::new("192.0.2.7:9", PBX).tcp(SYN, 1, b"");
        // Of both limits that are reached: which only count, and what becomes of it.
        for (monitored, stops) in [
            (0, Some(open)),
            (unfinished.limit_bit(), Some(open)),
            (open.limit_bit(), Some(unfinished)),
            (open.limit_bit() | unfinished.limit_bit(), None),
        ] {
            whose.set(&mut program, Limits { monitored, ..limits })?;
            let counts = |program: &mut Program| {
                anyhow::Ok([program.count_let_pass(open)?, program.count_let_pass(unfinished)?])
            };
            let before = counts(&mut program)?;
            let action = program.run_uncounted(&syn)?.0;
            assert_eq!(action == XDP_PASS, stops.is_none(), "{monitored:#x} of {whose:?}");
            // The one that is asked first and stops hides the other.
            let more = match stops {
                Some(Reason::OpenConnections) => [0, 0],
                Some(_) => [1, 0],
                None => [1, 1],
            };
            let after = counts(&mut program)?;
            assert_eq!([after[0] - before[0], after[1] - before[1]], more, "{monitored:#x} of {whose:?}");
        }
        assert_eq!((program.count(open)?, program.count(unfinished)?), (2, 1), "{whose:?}");
    }
    Ok(())
}

/// It has the limits of sources, and so their modes: the balancer's say nothing about it.
#[test]
fn of_a_client_behind_a_balancer_the_mode_is_that_of_sources() -> Result<()> {
    for (sources, balancer, passes) in [(0, ALL, 5), (ALL, 0, 10)] {
        let mut program = Program::shared()?;
        program.rule("192.0.2.0/28", Rule { trunk: TRUNK as u16, ..Rule::zeroed() })?;
        program.trunk(TRUNK, Trunk { proxy_protocol: 1, monitored_limits: balancer, ..Trunk::zeroed() })?;
        program.limit(MESSAGES, slow(5))?;
        program.change(|settings| settings.monitored_limits = sources)?;
        let peer = Peer::new("192.0.2.5:30000", PBX);
        program.connect(&peer, 1000)?;
        let header = b"PROXY TCP4 203.0.113.9 203.0.113.1 40123 5060\r\n";
        assert_eq!(program.run(&peer.tcp(ACK, 1000, header))?.reason, Reason::Valid);
        let (mut next, mut passed) = (1000 + header.len() as u32, 0);
        for _ in 0..10 {
            if program.run_uncounted(&peer.tcp(ACK, next, OPTIONS))?.0 == XDP_PASS {
                next += OPTIONS.len() as u32;
                passed += 1;
            }
        }
        assert_eq!(passed, passes, "sources {sources:#x}, balancer {balancer:#x}");
        assert_eq!(program.count_let_pass(Reason::RateMessages)?, passes - 5);
    }
    Ok(())
}

#[test]
fn a_trunk_that_is_monitored_counts_what_its_limits_would_stop() -> Result<()> {
    let mut program = Whose::Trunk.program()?;
    let mut trunk = Trunk { mode: TRUNK_MONITORS, ..Trunk::zeroed() };
    trunk.rates[MESSAGES] = slow(5);
    program.change(|settings| settings.rules |= rules_in_use::RATES)?;
    program.trunk(TRUNK, trunk)?;
    let frame = Peer::new("192.0.2.7:5060", PBX).udp(OPTIONS);
    assert_eq!(passed(&mut program, &frame)?, 10);
    assert_eq!(program.count_let_pass(Reason::RateMessages)?, 5);
    Ok(())
}
