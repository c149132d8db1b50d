//! A unit of systemd: its command lines, and its filter of system calls without systemd.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{errno::Errno, libc};

use crate::process::output;

/// Where the kernel's headers have the numbers of system calls.
const NUMBERS: [&str; 2] =
    ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"];
/// Where a system call's number is in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;

/// A unit's text.
#[derive(Debug)]
pub struct Unit(String);

impl Unit {
    /// Reads one of `deploy/systemd`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn read(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd").join(name);
        Ok(Self(fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?))
    }

    /// The values of a key, in their order.
    pub fn values<'u>(&'u self, key: &'u str) -> impl Iterator<Item = &'u str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// The arguments of a command line, the instance's name in place of `%I`; the program is sipguard.
    ///
    /// # Errors
    /// When there is no such line, or it is of another program.
    pub fn arguments(&self, key: &str, instance: &str) -> Result<Vec<String>> {
        let line = self.values(key).next().with_context(|| format!("the unit has no {key}"))?;
        let words = line.split_whitespace().map(|word| word.replace("%I", instance));
        let (program, arguments): (Vec<_>, Vec<_>) = words.enumerate().partition(|(at, _)| *at == 0);
        ensure!(program.iter().all(|(_, word)| word.ends_with("/sipguard")), "{line} is not sipguard's");
        Ok(arguments.into_iter().map(|(_, word)| word).collect())
    }

    /// The names of the system calls that it may make.
    ///
    /// # Errors
    /// When systemd does not know one of the sets.
    pub fn system_calls(&self) -> Result<BTreeSet<String>> {
        let mut allowed = expand("@default")?;
        for value in self.values("SystemCallFilter") {
            let (is_denied, words) = value.strip_prefix('~').map_or((false, value), |words| (true, words));
            for word in words.split_whitespace() {
                let names = expand(word)?;
                if is_denied {
                    allowed.retain(|name| !names.contains(name));
                } else {
                    allowed.extend(names);
                }
            }
        }
        Ok(allowed)
    }

    /// Lets a command make these system calls only, as systemd does: any other one ends it with SIGSYS.
    ///
    /// # Errors
    /// When the numbers of the calls are not known.
    pub fn confine(&self, command: &mut Command) -> Result<()> {
        let mut allowed = self.system_calls()?;
        // What the filter is put in force before.
        allowed.insert("execve".to_owned());
        let program = program(&numbers(&allowed)?);
        let length = u16::try_from(program.len()).context("the filter is too long")?;
        let put_in_force = move || {
            let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
            // SAFETY: prctl(2) with numbers only.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
            // SAFETY: the kernel reads `len` instructions from `filter`, which `program` holds for as long as this closure lives.
            Errno::result(unsafe {
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0)
            })?;
            Ok(())
        };
        // SAFETY: between fork and exec it calls prctl(2) alone, and neither allocates nor takes a lock.
        unsafe { command.pre_exec(put_in_force) };
        Ok(())
    }
}

/// The names in a set such as `@system-service`, with those of the sets in it; any other word is a name.
fn expand(word: &str) -> Result<BTreeSet<String>> {
    if !word.starts_with('@') {
        return Ok([word.to_owned()].into());
    }
    let listed = output(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", word]))?;
    let mut names = BTreeSet::new();
    // The first line is the set itself.
    for line in
        listed.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        names.extend(expand(line)?);
    }
    ensure!(!names.is_empty(), "systemd knows no {word}");
    Ok(names)
}

/// The numbers of those that this machine's processor has.
fn numbers(names: &BTreeSet<String>) -> Result<Vec<u32>> {
    let text = NUMBERS.iter().find_map(|path| fs::read_to_string(path).ok());
    let text = text.with_context(|| format!("no {} (package linux-libc-dev)", NUMBERS.join(" and no ")))?;
    let define = |line: &str| {
        let mut words = line.strip_prefix("#define __NR_")?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    let known: BTreeMap<String, u32> = text.lines().filter_map(define).collect();
    if known.len() < 200 {
        bail!("only {} system calls have a number", known.len());
    }
    Ok(names.iter().filter_map(|name| known.get(name).copied()).collect())
}

/// Classic BPF: any of these numbers passes, any other kills.
fn program(numbers: &[u32]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let give = |verdict| instruction(libc::BPF_RET | libc::BPF_K, 0, verdict);
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, NUMBER_OFFSET)];
    for number in numbers {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, *number));
        program.push(give(libc::SECCOMP_RET_ALLOW));
    }
    program.push(give(libc::SECCOMP_RET_KILL_PROCESS));
    program
}
