//! Tries packages on a fresh Debian: `packaged DEBIAN FIRST NEWER FIRST-RPM NEWER-RPM PROGRAM`. `cargo xtask dist --try` calls it.

use std::process::ExitCode;

use sipguard_tests::packaged::{Packages, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [debian, first, newer, first_rpm, newer_rpm, program] = &words[..] else {
        eprintln!("usage: packaged DEBIAN FIRST NEWER FIRST-RPM NEWER-RPM PROGRAM");
        return ExitCode::from(2);
    };
    let packages = Packages {
        debian: debian.into(),
        first: first.into(),
        newer: newer.into(),
        first_rpm: first_rpm.into(),
        newer_rpm: newer_rpm.into(),
        program: program.into(),
    };
    match run(&packages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packaged: {error:#}");
            ExitCode::FAILURE
        }
    }
}
