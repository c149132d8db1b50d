//! `bench`: what a packet costs.

use anyhow::Result;

use crate::{
    command::{as_root, cargo, exec, succeed, target_dir},
    machine::Purpose,
    setup,
};

/// `bench [ARGUMENTS]`, which are those of the program `bench`.
pub fn run(args: &[String]) -> Result<()> {
    // First of all, so that nobody waits for a build to learn that root is needed.
    let mut bench = as_root(&target_dir().join("release/bench"), "the benchmark loads XDP programs, which")?;
    setup::ready(Purpose::Bench)?;
    let build = ["build", "--locked", "--release", "--package", "sipguard-tests", "--bin", "bench"];
    succeed(&mut cargo(&build))?;
    exec(bench.args(args))
}
