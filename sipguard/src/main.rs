//! The command line of sipguard.

use std::process::ExitCode;

fn main() -> ExitCode {
    sipguard::cli::run(sipguard_object::OBJECT)
}
