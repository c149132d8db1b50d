//! `fuzz`: the framer against its oracle, with libFuzzer, and the loaded programs against random attackers. Coverage takes nothing but code
//! generation of stable Rust.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Usage,
    command::{cargo, is_root, printed, root, succeed, target_dir},
    machine::Purpose,
    setup,
};

const TARGETS: [&str; 4] = ["framer", "segments", "datagrams", ATTACKER];

/// No input of libFuzzer, but a test of random sequences that loads the programs.
const ATTACKER: &str = "attacker";

/// Edge counters with the table of their places, and the operands of comparisons, as libFuzzer reads them.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code";

/// More than two windows of the framer.
const MAX_LEN: &str = "-max_len=9000";

/// What is asked for.
#[derive(Debug, PartialEq)]
struct Asked {
    targets: Vec<&'static str>,
    seconds: u64,
    merge: bool,
}

/// `fuzz [TARGET] [--for DURATION | --merge] [-- ARGUMENTS]`, which are those of libFuzzer.
pub fn run(args: &[String]) -> Result<()> {
    let end = args.iter().position(|word| word == "--").unwrap_or(args.len());
    let to_engine = args.get(end + 1..).unwrap_or_default();
    let asked = read(&args[..end]).ok_or_else(|| Usage::arguments("fuzz", args))?;
    let (attacker, targets): (Vec<_>, Vec<_>) =
        asked.targets.iter().copied().partition(|target| *target == ATTACKER);
    let mut crashed = Vec::new();
    if !attacker.is_empty() && !asked.merge {
        if is_root() {
            setup::ready(Purpose::Test)?;
            if !attack(asked.seconds)? {
                crashed.push(ATTACKER);
            }
        } else if targets.is_empty() {
            bail!("the attacker loads XDP programs, which needs root");
        } else {
            println!("fuzz: {ATTACKER}: left out, since it needs root");
        }
    }
    if targets.is_empty() {
        ensure!(crashed.is_empty(), "found something: {}", crashed.join(", "));
        return Ok(());
    }
    setup::ready(Purpose::Fuzz)?;
    let programs = build()?;
    for target in targets {
        let place = Place::of(target, &programs);
        if asked.merge {
            place.merge(to_engine)?;
        } else if !place.fuzz(asked.seconds, to_engine)? {
            crashed.push(target);
        }
    }
    ensure!(crashed.is_empty(), "found something: {}", crashed.join(", "));
    Ok(())
}

fn read(args: &[String]) -> Option<Asked> {
    let mut asked = Asked { targets: TARGETS.to_vec(), seconds: 60, merge: false };
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--for" => asked.seconds = seconds(words.next()?)?,
            "--merge" => asked.merge = true,
            _ => asked.targets = vec![TARGETS.into_iter().find(|name| *name == word)?],
        }
    }
    Some(asked)
}

/// `90`, `90s`, `10m` or `2h` in seconds; zero is none.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds > 0)
}

/// Plays random sequences against the loaded programs, others every time; whether all were good.
fn attack(seconds: u64) -> Result<bool> {
    println!("fuzz: {ATTACKER}");
    let since = SystemTime::UNIX_EPOCH.elapsed().context("the clock")?;
    let mut command =
        cargo(&["test", "--locked", "--release", "--package", "sipguard-tests", "--test", "program"]);
    command.args(["--", "--nocapture", "attacker::no_attacker"]);
    command.env("SIPGUARD_SECONDS", seconds.to_string());
    command.env("SIPGUARD_SEED", (since.as_secs() << 16).to_string());
    Ok(command.status().context("starting cargo")?.success())
}

/// Builds the targets, apart from everything else; where they are.
fn build() -> Result<PathBuf> {
    let host =
        printed("rustc", &["--print", "host-tuple"]).context("asking rustc for this machine's target")?;
    let host = host.trim();
    let mut command =
        cargo(&["build", "--locked", "--profile", "fuzz", "--package", "sipguard-fuzz", "--bins"]);
    // With the target named, build scripts are not instrumented: they would not link.
    command.args(["--features", "engine", "--target", host, "--target-dir"]).arg(target_dir().join("fuzz"));
    succeed(command.env("RUSTFLAGS", COVERAGE))?;
    Ok(target_dir().join("fuzz").join(host).join("fuzz"))
}

/// Where a target and its inputs are.
struct Place {
    target: &'static str,
    program: PathBuf,
    corpus: PathBuf,
    regressions: PathBuf,
    /// What was found since the last merge.
    found: PathBuf,
    crashes: PathBuf,
}

impl Place {
    fn of(target: &'static str, programs: &Path) -> Place {
        let (kept, work) = (root().join("fuzz"), target_dir().join("fuzz"));
        Place {
            target,
            program: programs.join(target),
            corpus: kept.join("corpus").join(target),
            regressions: kept.join("regressions").join(target),
            found: work.join("found").join(target),
            crashes: work.join("crashes").join(target),
        }
    }

    /// Looks for new inputs, or replays the files that are given; whether all were good.
    fn fuzz(&self, seconds: u64, to_engine: &[String]) -> Result<bool> {
        for directory in [&self.found, &self.crashes] {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        println!("fuzz: {}", self.target);
        let mut command = Command::new(&self.program);
        if to_engine.iter().all(|word| word.starts_with('-')) {
            let known = [&self.corpus, &self.regressions];
            command.arg(&self.found).args(known.into_iter().filter(|directory| directory.is_dir()));
        }
        command.arg(format!("-max_total_time={seconds}")).args([MAX_LEN, "-timeout=10"]);
        command.arg(format!("-artifact_prefix={}/", self.crashes.display()));
        command.arg(format!("-dict={}", root().join("fuzz/sip.dict").display()));
        command.args(["-print_final_stats=1"]).args(to_engine);
        let status = command.status().with_context(|| format!("starting {}", self.program.display()))?;
        if !status.success() {
            eprintln!(
                "fuzz: {target}: the input is in {}\n\
                 fuzz: replay it:    cargo xtask fuzz {target} -- FILE\n\
                 fuzz: keep it:      move it to fuzz/regressions/{target}/ under a name that says what it is",
                self.crashes.display(),
                target = self.target,
            );
        }
        Ok(status.success())
    }

    /// Makes the corpus anew of the fewest inputs, those that were found among them, that cover what all of them cover.
    fn merge(&self, to_engine: &[String]) -> Result<()> {
        let merged = self.found.with_file_name(format!("{}-merged", self.target));
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        let mut command = Command::new(&self.program);
        command.arg(&merged).arg(&self.corpus).args(Some(&self.found).filter(|found| found.is_dir()));
        // How often an edge is taken counts while fuzzing only: kept inputs are there for the edges.
        succeed(command.args(["-set_cover_merge=1", "-use_counters=0", MAX_LEN]).args(to_engine))?;
        let inputs = || fs::read_dir(&merged).with_context(|| merged.display().to_string());
        if inputs()?.next().is_none() {
            bail!("{}: nothing is left of the corpus, so it stays as it is", self.target);
        }
        fs::remove_dir_all(&self.corpus)?;
        fs::create_dir_all(&self.corpus)?;
        let mut count = 0;
        for input in inputs()? {
            let input = input?;
            fs::copy(input.path(), self.corpus.join(input.file_name()))?;
            count += 1;
        }
        if self.found.is_dir() {
            fs::remove_dir_all(&self.found)?;
        }
        println!("fuzz: the corpus of {} has {count} inputs", self.target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood() {
        let read = |text: &str| read(&text.split_whitespace().map(String::from).collect::<Vec<_>>());
        let all = TARGETS.to_vec();
        assert_eq!(read(""), Some(Asked { targets: all.clone(), seconds: 60, merge: false }));
        let ten_minutes = Asked { targets: vec!["segments"], seconds: 600, merge: false };
        assert_eq!(read("segments --for 10m"), Some(ten_minutes));
        assert_eq!(read("--merge"), Some(Asked { targets: all, seconds: 60, merge: true }));
        for wrong in ["--for", "--for 0", "--for m", "--for 1x", "other", "--until 1m"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
