//! `demo`: the incident, replayed without and with sipguard.

use anyhow::Result;

use crate::{
    command::{as_root, cargo, exec, succeed, target_dir},
    machine::Purpose,
    setup,
};

/// `demo [ARGUMENTS]`, which are those of the program `demo`.
pub fn run(args: &[String]) -> Result<()> {
    // First of all, so that nobody waits for a build to learn that root is needed.
    let mut demo = as_root(&target_dir().join("release/demo"), "the demo makes network namespaces, which")?;
    setup::ready(Purpose::Test)?;
    let build = ["build", "--locked", "--release", "--package", "sipguard", "--package", "sipguard-tests"];
    succeed(cargo(&build).arg("--bins"))?;
    exec(demo.args(args))
}
