//! `test`: every test of the workspace, or those that are fast and need no peers.

use std::{env, num::NonZero, process::Command, thread};

use anyhow::{Result, ensure};

use crate::{
    command::{cargo, is_root, succeed},
    failures,
    machine::Purpose,
    setup,
};

/// What `--fast` asks of the long ones among the tests; without it they run as many cases as they say.
const FEWER: [(&str, &str); 4] = [
    ("SIPGUARD_SEQUENCES", "400"),
    ("SIPGUARD_STREAMS", "10000"),
    ("SIPGUARD_CUT_STEP", "7"),
    ("PROPTEST_CASES", "2000"),
];

/// How many tests run at once; whoever sets it is obeyed.
const THREADS: &str = "RUST_TEST_THREADS";

/// `test [--fast] [ARGUMENTS] [-- ARGUMENTS]`, which are those of `cargo test`.
pub fn run(args: &[String]) -> Result<()> {
    ensure!(
        is_root(),
        "the tests make network namespaces and load XDP programs, which needs root: \
         become root (`sudo --login` finds root's own Rust) and run `cargo xtask test` again"
    );
    if let [first, args @ ..] = args
        && first == "--fast"
    {
        return fast(args);
    }
    setup::ready(Purpose::Test)?;
    // The end-to-end tests start programs of the workspace, which `cargo test` alone does not build.
    succeed(&mut cargo(&["build", "--locked", "--workspace"]))?;
    failures::told(&mut tests(&["--workspace"], args))
}

/// Unit tests of all crates but the lab, and the tiers `host` and `program`: nothing of it needs more than a build does.
fn fast(args: &[String]) -> Result<()> {
    setup::ready(Purpose::Build)?;
    succeed(&mut cargo(&["build", "--locked", "--workspace", "--bin", "sipguard", "--bin", "measure"]))?;
    let tiers = ["--package", "sipguard-tests", "--test", "host", "--test", "program"];
    let failed = [&["--workspace", "--exclude", "sipguard-tests"][..], &tiers]
        .map(|which| failures::told(tests(which, args).envs(FEWER)))
        .into_iter()
        .find_map(Result::err);
    failed.map_or(Ok(()), Err)
}

/// `cargo test` of some of the workspace, with what the command line asks for.
fn tests(which: &[&str], args: &[String]) -> Command {
    let (to_cargo, to_tests) = split(args);
    let mut command = cargo(&["test", "--locked", "--no-fail-fast"]);
    // The tests that are ignored without root run here.
    command.args(which).args(to_cargo).args(["--", "--include-ignored"]).args(to_tests);
    if env::var_os(THREADS).is_none() {
        command.env(THREADS, threads().to_string());
    }
    command
}

/// Two for each processor: half the time of a test of the lab is waiting for calls, timers and other programs.
fn threads() -> usize {
    2 * thread::available_parallelism().map_or(1, NonZero::get)
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
