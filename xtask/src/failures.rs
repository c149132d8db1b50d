//! What failed, said once more behind everything: a run prints a thousand lines, and who reads its end sees why.

use std::{
    io::{BufRead, BufReader, IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Lines of a failed test that are said again.
const LINES: usize = 12;

/// Runs `cargo test` to its end, and says at last what failed.
///
/// # Errors
/// When it can't be started, or a test failed.
pub fn told(command: &mut Command) -> Result<()> {
    if std::io::stdout().is_terminal() {
        command.arg("--color=always");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let mut failures = Failures::default();
    let mut output = BufReader::new(child.stdout.take().context("cargo has no output")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).context("reading what cargo prints")? > 0 {
        std::io::stdout().write_all(&line).context("printing what cargo prints")?;
        failures.take(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait().context("waiting for cargo")?;
    if status.success() {
        return Ok(());
    }
    for Failure { name, lines } in &failures.all {
        eprintln!("\nfailed: {name}");
        lines.iter().for_each(|line| eprintln!("    {line}"));
    }
    bail!("{} tests failed ({status})", failures.all.len());
}

/// The failures of libtest's output, line by line.
#[derive(Default)]
struct Failures {
    all: Vec<Failure>,
    is_within: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Failure {
    name: String,
    lines: Vec<String>,
}

impl Failures {
    fn take(&mut self, line: &str) {
        let header = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = header {
            self.all.push(Failure { name: name.to_owned(), lines: Vec::new() });
            self.is_within = true;
            return;
        }
        // A list of names follows; a stack says nothing to whoever looks for the reason.
        let is_end = line == "failures:" || ["stack backtrace:", "Stack backtrace:"].contains(&line);
        self.is_within &= !is_end;
        if let (true, Some(failure)) = (self.is_within && !line.is_empty(), self.all.last_mut())
            && failure.lines.len() < LINES
        {
            failure.lines.push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_kept_with_its_reason() {
        let mut failures = Failures::default();
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b::c stdout ----\nskipped: none\nError: it did not come\n\n\
            Caused by:\n    a timer\n\nStack backtrace:\n   0: main\n---- d stdout ----\nthread 'd' panicked at x:1:\n\nfailures:\n    b::c\n    d\n\n\
            test result: FAILED. 1 passed; 2 failed\n";
        output.lines().for_each(|line| failures.take(line));
        let wanted = [
            ("b::c", &["skipped: none", "Error: it did not come", "Caused by:", "    a timer"][..]),
            ("d", &["thread 'd' panicked at x:1:"]),
        ];
        let wanted = wanted.map(|(name, lines)| Failure {
            name: name.to_owned(),
            lines: lines.iter().map(ToString::to_string).collect(),
        });
        assert_eq!(failures.all, wanted);
    }
}
