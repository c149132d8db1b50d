//! `test`: every test of the workspace.

use anyhow::{Result, ensure};

use crate::{
    command::{cargo, exec, is_root, succeed},
    machine::Purpose,
    setup,
};

/// `test [ARGUMENTS] [-- ARGUMENTS]`, which are those of `cargo test`.
pub fn run(args: &[String]) -> Result<()> {
    ensure!(
        is_root(),
        "the tests make network namespaces and load XDP programs, which needs root: \
         become root (`sudo --login` finds root's own Rust) and run `cargo xtask test` again"
    );
    setup::ready(Purpose::Test)?;
    // The end-to-end tests start programs of the workspace, which `cargo test` alone does not build.
    succeed(&mut cargo(&["build", "--locked", "--workspace"]))?;

    let (to_cargo, to_tests) = split(args);
    let mut command = cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    // The tests that are ignored without root run here.
    exec(command.args(to_cargo).args(["--", "--include-ignored"]).args(to_tests))
}

fn split(args: &[String]) -> (&[String], &[String]) {
    let end = args.iter().position(|word| word == "--").unwrap_or(args.len());
    (&args[..end], args.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_cargo_and_the_tests() {
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        for (all, to_cargo, to_tests) in [
            ("", "", ""),
            ("framer", "framer", ""),
            ("-p sipguard -- --nocapture", "-p sipguard", "--nocapture"),
            ("-- --nocapture", "", "--nocapture"),
            ("framer --", "framer", ""),
        ] {
            assert_eq!(split(&words(all)), (&words(to_cargo)[..], &words(to_tests)[..]), "{all}");
        }
    }
}
