//! What a packet costs: the loaded program against a bare `XDP_DROP` and against xdp-filter, on the same frames.
//!
//! `BPF_PROG_TEST_RUN` runs the programs of a row one after the other, row by row, round by round, so that whatever else the
//! machine does hits all of them alike. The medians of the rounds count.

mod filter;
mod frames;
pub mod kernel;
mod leaving;
mod machine;
mod report;
mod rules;
pub mod shares;
mod stepper;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use sipguard_common::{
    Class, Reason,
    abi::{Counter, PERMANENT, Rate, rules_in_use},
};
use sipguard_core::store::DEFAULT_LIMITS;

use self::{
    filter::Filter,
    frames::{BLOCKED, BODY_BYTES, Case, DENIED_PORT},
    kernel::test_run,
    leaving::Leaving,
    machine::Machine,
    report::{Medians, Report, Rest},
    rules::Rules,
    shares::Shares,
    stepper::Stepper,
};
use crate::{interrupt, program::Program};

/// How much to measure, and how to tell it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rounds, of which the median counts. At least 1.
    pub rounds: u32,
    /// Runs of each program in a round, 1 to 500,000: the body of one message has to hold them all.
    pub repeat: u32,
    /// Whether to print JSON instead of a table.
    pub json: bool,
    /// Only the frames whose name has this, and none of the other tables: to look at one with a profiler.
    pub only: Option<String>,
}

/// Measures and prints. Fails when a program did not do what was to be measured, never because of a time.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.rounds > 0, "without a round there is no median");
    ensure!((1..=500_000).contains(&options.repeat), "a round is 1 to 500000 runs");
    interrupt::install()?;
    let filter = Filter::load(BLOCKED, DENIED_PORT)?;
    let drop_all = stepper::drop_all()?;
    let mut program = Program::new()?;
    program.change(|settings| {
        settings.limits.body_bytes = BODY_BYTES;
        // What a new store limits, so high that no round reaches it; and bans, which need no more.
        settings.rules |= rules_in_use::RATES;
        for (kind, _) in DEFAULT_LIMITS {
            settings.rates[kind] = Rate::new(1_000_000_000, 1_000_000_000);
        }
        settings.bans.after = 3;
    })?;
    program.block(BLOCKED, PERMANENT)?;

    let mut rows = Vec::new();
    let is_asked = |case: &Case| options.only.as_ref().is_none_or(|part| case.name.contains(part));
    for case in Case::all().into_iter().filter(is_asked) {
        rows.push(Row::new(case, &program.descriptor()?, &drop_all)?);
    }
    ensure!(!rows.is_empty(), "no frame is named so: `bench` without --only names them all");
    for _ in 0..options.rounds {
        for row in &mut rows {
            interrupt::check()?;
            row.measure(&mut program, &filter, &drop_all, options.repeat)
                .with_context(|| row.case.name.to_owned())?;
        }
    }
    let report = Report {
        machine: Machine::this()?,
        filter: format!("{}, run as {}", filter.version(), filter.name()),
        rounds: options.rounds,
        repeat: options.repeat,
        rows: rows.into_iter().map(Row::medians).collect::<Result<_>>()?,
        rest: if options.only.is_none() { Some(Rest::measure(options)?) } else { None },
    };
    if options.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(())
}

impl Rest {
    fn measure(options: &Options) -> Result<Self> {
        Ok(Self {
            leaving: Leaving::measure(options.rounds, options.repeat)?,
            shares: Shares::measure(options.rounds, options.repeat)?,
            rules: Rules::measure(options.rounds.min(21))?,
        })
    }
}

/// A frame with the times that were measured for it, in nanoseconds a run, one a round.
struct Row {
    case: Case,
    /// The frame as the last run left it. A connection begins anew with every round; a flood of SYNs goes on.
    frame: Vec<u8>,
    /// What the runs were counted as.
    reason: Option<Reason>,
    steppers: Option<Steppers>,
    drop_all: Vec<u32>,
    filter: Vec<u32>,
    /// Behind its stepper, if there is one.
    sipguard: Vec<u32>,
    stepped_drop: Vec<u32>,
}

/// The stepper of a frame, before each of two programs.
struct Steppers {
    sipguard: Stepper,
    drop_all: Stepper,
}

impl Row {
    fn new(case: Case, sipguard: &OwnedFd, drop_all: &OwnedFd) -> Result<Self> {
        let before = |step, program: &OwnedFd| Stepper::new(step, program.as_fd());
        let steppers = case
            .step
            .map(|step| -> Result<Steppers> {
                Ok(Steppers { sipguard: before(step, sipguard)?, drop_all: before(step, drop_all)? })
            })
            .transpose()?;
        Ok(Self {
            frame: case.frame.clone(),
            case,
            reason: None,
            steppers,
            drop_all: vec![],
            filter: vec![],
            sipguard: vec![],
            stepped_drop: vec![],
        })
    }

    /// One round.
    fn measure(
        &mut self,
        program: &mut Program,
        filter: &Filter,
        drop_all: &OwnedFd,
        repeat: u32,
    ) -> Result<()> {
        self.drop_all.push(test_run(drop_all.as_fd(), &mut self.frame, repeat)?.ns);

        let timed = test_run(filter.program(), &mut self.frame, repeat)?;
        ensure!(timed.action == self.case.action(), "xdp-filter ended with action {}", timed.action);
        self.filter.push(timed.ns);

        if let Some(steppers) = &self.steppers {
            self.stepped_drop.push(test_run(steppers.drop_all.program(), &mut self.frame, repeat)?.ns);
        }
        self.case.open(program)?;
        if self.case.connects() {
            self.frame.clone_from(&self.case.frame);
        }
        let descriptor = program.descriptor()?;
        let runner =
            self.steppers.as_ref().map_or(descriptor.as_fd(), |steppers| steppers.sipguard.program());
        let (ns, reason) = run_counted(&self.case, program, runner, &mut self.frame, repeat)?;
        self.sipguard.push(ns);
        self.reason = Some(reason);
        Ok(())
    }

    fn medians(self) -> Result<Medians> {
        let as_run = median(self.sipguard);
        let drop_all = median(self.drop_all);
        let stepping =
            if self.steppers.is_some() { median(self.stepped_drop).saturating_sub(drop_all) } else { 0 };
        Ok(Medians {
            name: self.case.name,
            frame_bytes: self.case.frame.len(),
            payload_bytes: self.case.payload,
            reason: self.reason.context("no round was run")?,
            drop_all,
            filter: median(self.filter),
            as_run,
            stepping,
            target: self.case.target,
        })
    }
}

/// Runs sipguard: nanoseconds a run, and what every single run was counted as.
fn run_counted(
    case: &Case,
    program: &mut Program,
    runner: BorrowedFd<'_>,
    frame: &mut [u8],
    repeat: u32,
) -> Result<(u32, Reason)> {
    let before = program.counters()?;
    let timed = test_run(runner, frame, repeat)?;
    let after = program.counters()?;
    let reason = counted_alike(&before, &after, repeat)?;
    match case.reason {
        Some(expected) => ensure!(reason == expected, "counted as {reason:?}, not as {expected:?}"),
        None => ensure!(reason.class() == Class::Pass, "counted as {reason:?}"),
    }
    ensure!(timed.action == case.action(), "sipguard ended with action {}", timed.action);
    Ok((timed.ns, reason))
}

/// What all of `repeat` runs between two readings of [`Program::counters`] were counted as.
fn counted_alike(before: &[Counter], after: &[Counter], repeat: u32) -> Result<Reason> {
    let grown = before.iter().zip(after).map(|(old, new)| new.packets - old.packets);
    let counts: Vec<(usize, u64)> = grown.enumerate().filter(|(_, packets)| *packets > 0).collect();
    let [(index, packets)] = counts[..] else {
        let named = counts.iter().map(|(index, packets)| (reason_at(*index), packets));
        bail!("not all runs were counted alike: {:?}", named.collect::<Vec<_>>());
    };
    ensure!(packets == u64::from(repeat), "{packets} of {repeat} runs were counted");
    reason_at(index).context("runs were let pass as by monitor mode")
}

/// The reason of one of [`Program::counters`], `None` for what monitor mode let pass.
fn reason_at(index: usize) -> Option<Reason> {
    (index < Reason::COUNT).then(|| Reason::from_number(index as u8))?
}

/// The middle one; of an even number, the upper of the two. 0 of none.
fn median(mut samples: Vec<u32>) -> u32 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}
