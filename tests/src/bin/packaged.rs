//! Tries packages on a fresh Debian: `packaged DEBIAN FIRST NEWER PROGRAM`. `cargo xtask dist --try` calls it.

use std::process::ExitCode;

use sipguard_tests::packaged::{Packages, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [debian, first, newer, program] = &words[..] else {
        eprintln!("usage: packaged DEBIAN FIRST NEWER PROGRAM");
        return ExitCode::from(2);
    };
    let packages =
        Packages { debian: debian.into(), first: first.into(), newer: newer.into(), program: program.into() };
    match run(&packages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packaged: {error:#}");
            ExitCode::FAILURE
        }
    }
}
