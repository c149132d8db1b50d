//! `build`: sipguard, with the XDP program inside it, and the programs of its tests.

use anyhow::Result;

use crate::{
    Usage,
    command::{cargo, succeed},
    machine::Purpose,
    setup,
};

/// `build [--release]`.
pub fn run(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = cargo(&["build", "--locked", "--workspace", "--bins"]);
    match words[..] {
        [] => {}
        ["--release"] => {
            command.arg("--release");
        }
        _ => return Err(Usage::arguments("build", args)),
    }
    setup::ready(Purpose::Build)?;
    succeed(&mut command)
}
