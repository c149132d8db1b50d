//! What a packet costs with ten rules and with a million: whose rule decides is found by a hash, so it should make little difference.

use std::fmt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sipguard_common::{Reason, abi::PERMANENT};

use super::{kernel::test_run, median};
use crate::{chance::Chance, interrupt, packet::Peer, program::Program};
use std::os::fd::AsFd as _;

/// Blocked hosts, few and many.
const FEW: u32 = 10;
const MANY: u32 = 1_000_000;
/// Blocked prefixes, a hundredth of the hosts.
const SHARE: u32 = 100;
/// Frames of as many sources, each of which is run once a round.
const SOURCES: u32 = 4096;
/// Runs of one frame in a round.
const REPEAT: u32 = 10_000;

/// Nanoseconds a packet, with few rules and with many.
#[derive(Debug)]
struct Pair {
    name: &'static str,
    few: u32,
    many: u32,
}

/// All that was measured.
#[derive(Debug)]
pub struct Rules(Vec<Pair>);

/// A guard with rules, and frames for it.
struct Site {
    program: Program,
    blocked: Vec<Vec<u8>>,
    strangers: Vec<Vec<u8>>,
}

impl Site {
    fn new(hosts: u32) -> Result<Site> {
        let mut program = Program::new()?;
        for number in 0..hosts {
            program.block(&host(number), PERMANENT)?;
        }
        for number in 0..hosts / SHARE {
            program
                .block(&format!("{}/24", std::net::Ipv4Addr::from(0x6400_0000 + (number << 8))), PERMANENT)?;
        }
        let mut chance = Chance::new(7);
        let frame = |source: &str| Peer::new(&format!("{source}:5060"), "10.0.0.1:5060").udp(b"\r\n\r\n");
        let blocked = (0..SOURCES).map(|_| frame(&host(chance.below(hosts)))).collect();
        let stranger = |number: u32| frame(&std::net::Ipv4Addr::from(0xc000_0000 + number * 977).to_string());
        Ok(Site { program, blocked, strangers: (0..SOURCES).map(stranger).collect() })
    }

    /// Mean nanoseconds of one frame that is run again and again, and of many frames that are run once each.
    fn measure(&mut self, blocked: bool) -> Result<[u32; 2]> {
        let descriptor = self.program.descriptor()?;
        let frames = if blocked { &self.blocked } else { &self.strangers };
        let before = self.program.counters()?;
        let again = test_run(descriptor.as_fd(), &mut frames[0].clone(), REPEAT)?.ns;
        let mut sum = 0;
        for frame in frames {
            sum += u64::from(test_run(descriptor.as_fd(), &mut frame.clone(), 1)?.ns);
        }
        let expected = if blocked { Reason::BlockedHost } else { Reason::NatPing };
        let at = usize::from(expected.number());
        let counted = self.program.counters()?[at].packets - before[at].packets;
        ensure!(counted == u64::from(REPEAT + SOURCES), "{counted} were counted as {expected:?}");
        Ok([again, (sum / u64::from(SOURCES)) as u32])
    }
}

fn host(number: u32) -> String {
    std::net::Ipv4Addr::from(0x3200_0000 + number * 7).to_string()
}

impl Rules {
    /// Measures.
    pub fn measure(rounds: u32) -> Result<Rules> {
        let mut sites = [Site::new(FEW)?, Site::new(MANY)?];
        let mut samples: [[[Vec<u32>; 2]; 2]; 2] = Default::default();
        for _ in 0..rounds {
            interrupt::check()?;
            for (site, samples) in sites.iter_mut().zip(&mut samples) {
                for (blocked, samples) in [true, false].into_iter().zip(samples) {
                    for (ns, samples) in site.measure(blocked)?.into_iter().zip(samples) {
                        samples.push(ns);
                    }
                }
            }
        }
        let [few, many] = samples;
        let names = [
            "a blocked source, again and again",
            "blocked sources, each once",
            "a source without a rule",
            "sources without a rule, each once",
        ];
        let medians = |samples: [[Vec<u32>; 2]; 2]| samples.into_iter().flatten().map(median);
        let pairs = names.into_iter().zip(medians(few)).zip(medians(many));
        Ok(Rules(pairs.map(|((name, few), many)| Pair { name, few, many }).collect()))
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let pair = |pair: &Pair| json!({ "frames": pair.name, "few_ns": pair.few, "many_ns": pair.many });
        json!({ "few": FEW, "many": MANY, "rows": self.0.iter().map(pair).collect::<Vec<_>>() })
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<36}{FEW:>10}{MANY:>12}   ratio", "ns a packet, rules of hosts:")?;
        for Pair { name, few, many } in &self.0 {
            writeln!(
                f,
                "{name:<36}{few:>10}{many:>12}   {:.2}",
                f64::from(*many) / f64::from((*few).max(1))
            )?;
        }
        writeln!(
            f,
            "What is run once each includes the clock's own time; its entries are in no cache of the CPU."
        )
    }
}
