//! The fragile PBX as a program: `fragile-pbx --listen ADDRESS:PORT | --dial ADDRESS:PORT --journal FILE
//! [--memory MIB]`, or `fragile-pbx --seeded ADDRESS:PORT --fatal TEXT [--memory MIB]`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use sipguard_tests::fragile::{self, Journal};

fn main() -> Result<()> {
    let (mut listen, mut dial, mut journal, mut memory_mib) = (None, None, None, 0usize);
    let (mut seeded, mut fatal) = (None, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let address = || value.parse::<SocketAddr>().with_context(|| format!("{value} is no ADDRESS:PORT"));
        match word.as_str() {
            "--listen" => listen = Some(address()?),
            "--dial" => dial = Some(address()?),
            "--seeded" => seeded = Some(address()?),
            "--fatal" => fatal = Some(value),
            "--journal" => journal = Some(PathBuf::from(value)),
            "--memory" => {
                memory_mib = value.parse().with_context(|| format!("{value} is no number of MiB"))?;
            }
            _ => bail!("unknown option {word}"),
        }
    }
    // A PBX with its registrations in memory makes large core dumps; pages that were written are dumped.
    let _state = std::hint::black_box(vec![1u8; memory_mib << 20]);
    if let Some(address) = seeded {
        return fragile::seeded::serve(address, &fatal.context("--fatal TEXT is missing")?);
    }
    let journal = Journal::open(&journal.context("--journal FILE is missing")?)?;
    match (listen, dial) {
        (Some(address), None) => fragile::serve(address, journal),
        (None, Some(address)) => fragile::dial(address, &journal),
        (None, None) | (Some(_), Some(_)) => bail!("either --listen or --dial is needed"),
    }
}
