//! The first process of a virtual machine of `cargo xtask vm`; `guest cells` says which cells there are.

use anyhow::{Result, bail};
use sipguard_tests::guest::{cells::CELLS, init, run};

fn main() -> Result<()> {
    if std::process::id() == 1 {
        if let Err(error) = init::start().and_then(|()| run(&init::words("cells")?)) {
            eprintln!("guest: {error:#}");
        }
        init::power_off();
        return Ok(());
    }
    match std::env::args().nth(1).as_deref() {
        Some("cells") => CELLS.iter().for_each(|cell| println!("{}", cell.name)),
        _ => bail!(
            "`guest cells` lists the cells; all else it does only as the first process of a virtual machine"
        ),
    }
    Ok(())
}
