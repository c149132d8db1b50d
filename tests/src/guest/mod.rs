//! What runs inside a virtual machine of `cargo xtask vm`, as its first process: one cell of the table after the other, each a kind of
//! interface with sipguard attached to it, real TCP through it, and the kernel's log read afterwards.
//!
//! 1. `init.rs` makes a machine of the bare kernel: file systems, modules, `lo`, and in the end the power off;
//! 2. `cells.rs` has the kinds of interfaces, a row of the table each;
//! 3. `trial.rs` is what happens in a cell;
//! 4. `suites.rs` runs tests of the workspace there;
//! 5. `kernel_log.rs` finds what the kernel complains about;
//! 6. `report.rs` is what the verb outside reads, line by line;
//! 7. `system.rs` tries the units in a machine with systemd, which `init.rs` hands over to.

pub mod cells;
mod faults;
pub mod init;
pub mod kernel_log;
pub mod report;
pub mod suites;
pub mod system;
pub mod trial;

/// Runs cells by name in a machine whose first process this is, and reports each.
///
/// # Errors
/// When there is no way to report; what a cell fails of is reported.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    let mut report = report::Report::open()?;
    for name in names {
        report.line(&format!("begin {name}"))?;
        let suite = suites::SUITES.iter().find(|suite| suite.name == *name);
        let outcome = match (cells::CELLS.iter().find(|cell| cell.name == *name), suite) {
            (Some(cell), _) => trial::run(cell),
            (None, Some(suite)) => suites::run(suite),
            (None, None) => Err(anyhow::anyhow!("there is no such cell")),
        };
        report.line(&match outcome {
            Ok(detail) => format!("ok {name} {detail}"),
            Err(error) => format!("failed {name} {error:#}"),
        })?;
    }
    report.line("done")
}
