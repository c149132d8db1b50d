//! Tests of this workspace that run in a machine as they do outside, in the order of the table.

use std::{path::Path, process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::process::output;

/// Where the initramfs has their programs, by the name of the tier.
pub const DIRECTORY: &str = "usr/lib/sipguard-tests";

/// Such a test.
#[derive(Debug)]
pub struct Suite {
    /// Its name in the table.
    pub name: &'static str,
    /// The tier: the executable that the tests are in.
    pub tier: &'static str,
    /// The tests, by module and the beginning of their name: each load of the program takes an emulated processor half a minute.
    only: &'static [&'static str],
}

/// All of them.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "runs",
        tier: "program",
        only: &[
            "program_runs::what_tcp_does_legally",
            "program_runs::a_port_is_guarded",
            "program_runs::a_new_connection_of_the_same_ports",
        ],
    },
    // The matrix of ports that come again is too long for an emulated processor, and bursts of a SYN-ACK with data need `sh`, `taskset` and `chrt`.
    Suite {
        name: "attacks",
        tier: "lab",
        only: &[
            "attacks::reuse::a_device_that_always_begins_alike",
            "attacks::judged::every_connection",
            "attacks::damaged::a_damaged_good",
            "attacks::forged::a_blind_forger",
            "attacks::forged::a_forged_segment",
            "attacks::ports::other_services",
            "attacks::trust::a_stray",
            "attacks::bans::malformed_connections",
        ],
    },
    Suite {
        name: "upgrades",
        tier: "lab",
        only: &["upgrade::under_traffic", "upgrade::a_build_that", "upgrade::without"],
    },
];

/// Runs one, one test after the other.
///
/// # Errors
/// With the end of what it said, when a test fails.
pub fn run(suite: &Suite) -> Result<String> {
    let begun = Instant::now();
    // Before Linux 6.2 a namespace can't have an interface of a name that is taken here.
    let exists = |name: &str| Path::new("/sys/class/net").join(name).exists();
    for card in ["eth0", "eth1"].into_iter().filter(|card| exists(card)) {
        // A suite before this one may have taken a name.
        let free = (0..).map(|number| format!("card{number}")).find(|name| !exists(name)).unwrap_or_default();
        output(Command::new("ip").args(["link", "set", card, "name", &free]))?;
    }
    let output = Command::new(format!("/{DIRECTORY}/{}", suite.tier))
        .arg("--test-threads=1")
        .args(suite.only)
        .envs([("SIPGUARD", "/usr/sbin/sipguard"), ("SIPGUARD_SETTINGS", "local"), ("SIPGUARD_SWAPS", "2")])
        .env("RUST_BACKTRACE", "0")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let Some(result) = said.lines().rfind(|line| line.starts_with("test result: ")) else {
        bail!("it said no result: {}", String::from_utf8_lossy(&output.stderr));
    };
    if !output.status.success() {
        let telling = |line: &&str| {
            line.contains("FAIL")
                || line.starts_with("Error")
                || line.contains("panicked")
                || line.starts_with("    ")
        };
        let failures: Vec<&str> = said.lines().filter(telling).take(40).collect();
        bail!("{}", failures.join("; "));
    }
    let passed = result.split(';').next().unwrap_or(result).trim_start_matches("test result: ");
    Ok(format!("{passed} {}s", begun.elapsed().as_secs()))
}
