//! What runs inside a virtual machine of `cargo xtask vm`: its first process, or, as `guest system`, a service of its systemd. `guest cells`,
//! `guest suites` and `guest steps` say what there is to be tried in either.

use anyhow::{Result, bail};
use sipguard_tests::guest::{cells::CELLS, init, run, suites::SUITES, system};

fn main() -> Result<()> {
    if std::process::id() == 1 {
        if let Err(error) = first_process() {
            eprintln!("guest: {error:#}");
        }
        init::power_off();
        return Ok(());
    }
    match std::env::args().nth(1).as_deref() {
        Some("cells") => {
            let cells = CELLS.iter().map(|cell| cell.name);
            cells.chain(SUITES.iter().map(|suite| suite.name)).for_each(|name| println!("{name}"));
        }
        Some("suites") => SUITES.iter().for_each(|suite| println!("{}", suite.tier)),
        Some("steps") => system::steps().for_each(|name| println!("{name}")),
        Some("system") => {
            let outcome = system::run();
            if outcome.is_err() {
                // Nobody is left to report.
                init::power_off();
            }
            return outcome;
        }
        _ => bail!(
            "`guest cells` and `guest steps` list what is tried; the rest works in a virtual machine only"
        ),
    }
    Ok(())
}

fn first_process() -> Result<()> {
    init::mount_new("proc", "/proc")?;
    match init::words("cells")? {
        names if names.is_empty() => init::hand_over(),
        names => {
            init::start()?;
            run(&names)
        }
    }
}
