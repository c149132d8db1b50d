//! Sets up, builds, demonstrates, tests, measures, fuzzes and lints sipguard: `cargo xtask VERB`.
//!
//! Depends on nothing of the workspace, because it comes before the toolchain that compiles the XDP program.

use std::{env, fmt, process::ExitCode};

use anyhow::Result;

mod bench;
mod boundaries;
mod build;
mod command;
mod demo;
mod dist;
mod documents;
#[path = "../../sipguard-object/ebpf_toolchain.rs"]
mod ebpf_toolchain;
mod failures;
mod fuzz;
mod lint;
mod machine;
mod setup;
mod test;
mod vm;
mod vocabulary;

const USAGE: &str = "usage: cargo xtask VERB

  setup [--for build|test|bench|lint|fuzz|vm|dist]
                                       install what is missing on this machine (Debian 12; root or sudo)
  build [--release]                    sipguard and the programs of its tests
  demo [--json FILE] [--seconds N]     the incident, replayed without and with sipguard (root or sudo)
  test [--fast] [ARGUMENTS]            every test, or those that `cargo test ARGUMENTS` selects (root); with --fast
                                       those alone that need no peers, with fewer random cases
  bench [-o json] [--rounds N] [--runs N] [--only PART]
                                       what a packet costs, beside xdp-filter (root or sudo)
  fuzz [TARGET] [--for 10m] [-- ARGUMENTS]
                                       the framer against its oracle, and the programs against random attackers (root):
                                       all targets, or framer, segments, datagrams or attacker, a minute each;
                                       ARGUMENTS are libFuzzer's, a file is replayed
  fuzz [TARGET] --merge                folds what was found into fuzz/corpus, and leaves out what adds nothing
  vm [--kernel 6.1|6.12|newest]... [--mode NAME]... [--systemd] [--short] [--sipguard FILE]
                                       the filter on kernels of Debian and on every kind of interface, and the units
                                       under systemd, in virtual machines; FILE is another build of sipguard
  dist [--arm64] [--check-reproducible] [--try] [--version VERSION]
                                       the static program, packages for dpkg and rpm, bill of materials and sums in
                                       target/dist/out; also for arm64; once more in another directory, to compare;
                                       installed, upgraded under traffic and purged on a fresh Debian 12 (root)
  lint [--text]                        formatting, clippy on both targets, rustdoc, documents, vocabulary; or the last
                                       two alone, which compile nothing

Each verb installs first what it needs.";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((verb, args)) = args.split_first() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    match run(verb, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn run(verb: &str, args: &[String]) -> Result<()> {
    match verb {
        "setup" => setup::run(args),
        "build" => build::run(args),
        "demo" => demo::run(args),
        "test" => test::run(args),
        "bench" => bench::run(args),
        "dist" => dist::run(args),
        "fuzz" => fuzz::run(args),
        "lint" => lint::run(args),
        "vm" => vm::run(args),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Usage(format!("there is no verb `{verb}`")).into()),
    }
}

/// The command line is wrong: exit status 2.
#[derive(Debug)]
struct Usage(String);

impl Usage {
    /// The complaint about arguments that a verb does not know.
    fn arguments(verb: &str, args: &[String]) -> anyhow::Error {
        Usage(format!("`{verb}` does not take `{}`", args.join(" "))).into()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{USAGE}", self.0)
    }
}

impl std::error::Error for Usage {}
