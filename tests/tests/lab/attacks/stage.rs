//! The lab of the attacks, and their table.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::{End, expect_same},
    cpu,
    lab::{FAMILIES, Lab},
    message::OPTIONS,
    setting::Setting,
    witness::{Witness, expect_well_formed},
};

/// A lab with a guard that has followed a connection of each family since it was attached.
pub fn lab(setting: Setting) -> Result<Lab> {
    let lab = fresh(setting)?;
    follow_one(&lab)?;
    Ok(lab)
}

/// Lets the guard follow a connection of each family.
pub fn follow_one(lab: &Lab) -> Result<()> {
    for family in FAMILIES {
        let (mut sender, mut witness) = lab.connect(family, first())?;
        sender.push(OPTIONS)?;
        expect_read(lab, &mut witness, OPTIONS).context("the first connection")?;
    }
    Ok(())
}

/// A lab with a guard that has followed nothing yet.
pub fn fresh(setting: Setting) -> Result<Lab> {
    let lab = unguarded(setting)?;
    lab.attach(&["--grace", "1ms"])?;
    Ok(lab)
}

/// A lab without a guard.
pub fn unguarded(setting: Setting) -> Result<Lab> {
    // Tests of one process run beside each other, and each keeps to one processor.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cpus = cpu::allowed()?;
    if cpus.len() > 1 {
        cpu::pin(cpus[NEXT.fetch_add(1, Ordering::Relaxed) % cpus.len()])?;
    }
    Lab::unguarded_in(setting)
}

/// A first sequence number that no connection had before: only some attacks are about those that had.
pub fn first() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(10_000_019)
}

/// Fails unless the application has read exactly this, and the connection is open.
pub fn expect_read(lab: &Lab, witness: &mut Witness, sent: &[u8]) -> Result<String> {
    lab.settle()?;
    expect_same(witness.read()?, sent)?;
    ensure!(witness.end().is_none(), "the connection ended: {:?}", witness.end());
    Ok(witness.to_string())
}

/// Fails when the application has read anything malformed.
pub fn expect_judged(lab: &Lab, witness: &mut Witness) -> Result<String> {
    lab.settle()?;
    expect_well_formed(witness.read()?)?;
    Ok(witness.to_string())
}

/// The same, and the connection must have ended with a reset: nothing else was wrong with it.
pub fn expect_refused(lab: &Lab, witness: &mut Witness) -> Result<String> {
    let read = expect_judged(lab, witness)?;
    ensure!(witness.end() == Some(End::Reset), "malformed, and not reset: {read}");
    Ok(read)
}

/// The rows of one attack, and which of them failed.
#[derive(Debug)]
pub struct Table {
    id: &'static str,
    failed: Vec<String>,
}

impl Table {
    /// A table without rows.
    pub fn new(id: &'static str) -> Self {
        Self { id, failed: vec![] }
    }

    /// One row: what was tried, where, and what the application read, or what went wrong.
    pub fn row(&mut self, technique: &str, setting: Setting, family: usize, outcome: Result<String>) {
        let version = if family == 0 { "IPv4" } else { "IPv6" };
        let place = format!("{:<13} {version}", setting.name());
        let (verdict, told) = match outcome {
            Ok(told) => ("holds", told),
            Err(error) => {
                self.failed.push(format!("{technique}, {}, {version}", setting.name()));
                ("FAILS", format!("{error:#}"))
            }
        };
        println!("| {:<3} | {technique:<60} | {place} | {verdict} | {told} |", self.id);
    }

    /// Fails when a row did.
    pub fn end(self) -> Result<()> {
        let Self { id, failed } = self;
        ensure!(failed.is_empty(), "{id}: {} rows failed:\n{}", failed.len(), failed.join("\n"));
        Ok(())
    }
}
