//! What a packet costs that the PBX sends: the program that looks at it, beside one that does nothing.

use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Result;
use serde_json::{Value, json};

use super::kernel::{load_classifier, test_run};
use super::median;
use crate::{
    interrupt,
    message::OPTIONS,
    packet::{ACK, PBX_NEXT, PSH, Peer, SYN},
    program::Program,
};

/// `r0 = -1; exit`: on to the next program.
const NOTHING: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
/// Sequence number of the peer's first byte.
const FIRST: u32 = 1000;

/// A frame with its median times, in nanoseconds a run, and what it may cost.
struct Row {
    name: &'static str,
    frame: Vec<u8>,
    nothing: Vec<u32>,
    sipguard: Vec<u32>,
    goal: Option<u32>,
}

/// What was measured.
#[derive(Debug)]
pub struct Leaving(Vec<Cost>);

#[derive(Debug)]
struct Cost {
    name: &'static str,
    nothing: u32,
    sipguard: u32,
    goal: Option<u32>,
}

impl Cost {
    fn own(&self) -> u32 {
        self.sipguard.saturating_sub(self.nothing)
    }
}

impl Leaving {
    /// Measures.
    pub fn measure(rounds: u32, repeat: u32) -> Result<Leaving> {
        let mut program = Program::new()?;
        let phone = Peer::new("10.0.0.2:40000", "10.0.0.1:5060");
        let browser = Peer::new("10.0.0.2:40000", "10.0.0.1:443");
        program.connect(&phone, FIRST)?;
        let sends = |peer: &Peer, flags, payload: &[u8]| peer.back(flags, PBX_NEXT, FIRST, payload);
        let row = |name, frame, goal| Row { name, frame, nothing: vec![], sipguard: vec![], goal };
        let mut rows = [
            row("UDP", phone.udp(&[0; 172]), Some(60)),
            row("HTTPS, an acknowledgement", sends(&browser, ACK, b""), Some(60)),
            row("HTTPS, 1448 bytes", sends(&browser, ACK | PSH, &[0x17; 1448]), Some(60)),
            row("a followed connection, an acknowledgement", sends(&phone, ACK, b""), Some(150)),
            row("a followed connection, OPTIONS", sends(&phone, ACK | PSH, OPTIONS), Some(150)),
            row("the answer to a SYN", sends(&phone, SYN | ACK, b""), None),
            row("a SYN to anywhere", sends(&browser, SYN, b""), None),
        ];
        let nothing = load_classifier(&NOTHING)?;
        let eye: OwnedFd = program.second_eye()?;
        for _ in 0..rounds {
            interrupt::check()?;
            for row in &mut rows {
                row.nothing.push(test_run(nothing.as_fd(), &mut row.frame.clone(), repeat)?.ns);
                row.sipguard.push(test_run(eye.as_fd(), &mut row.frame.clone(), repeat)?.ns);
            }
        }
        let cost = |row: Row| Cost {
            name: row.name,
            nothing: median(row.nothing),
            sipguard: median(row.sipguard),
            goal: row.goal,
        };
        Ok(Leaving(rows.map(cost).into()))
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let row = |cost: &Cost| {
            json!({ "frame": cost.name, "nothing_ns": cost.nothing, "sipguard_ns": cost.sipguard,
                "own_ns": cost.own(), "goal_ns": cost.goal })
        };
        self.0.iter().map(row).collect()
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<44}{:>10}{:>10}{:>8}", "ns a packet that leaves:", "nothing", "sipguard", "own")?;
        for cost in &self.0 {
            let Cost { name, nothing, sipguard, goal } = cost;
            write!(f, "{name:<44}{nothing:>10}{sipguard:>10}{:>8}", cost.own())?;
            match goal {
                Some(goal) if cost.own() <= *goal => writeln!(f, "  <= {goal}: reached")?,
                Some(goal) => writeln!(f, "  <= {goal}: missed by {} ns", cost.own() - goal)?,
                None => writeln!(f, "  -")?,
            }
        }
        Ok(())
    }
}
