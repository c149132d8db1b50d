//! What is asked for, and what that means is tried.

use std::path::PathBuf;

use anyhow::Result;

use crate::Usage;

/// Kernels that are tried when none is named: of Debian 12, of its backports, and the newest that Debian has.
const KERNELS: [&str; 3] = ["6.1", "6.12", "newest"];
/// What `--short` tries: where frames of several pages come, in either mode, and where frames are small.
const SHORT: [&str; 3] = ["veth", "veth-9000", "generic"];
const SHORT_KERNEL: &str = "6.12";

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Asked {
    kernels: Vec<String>,
    cells: Vec<String>,
    systemd: bool,
    short: bool,
    /// Another build of sipguard than the one that was just made.
    pub sipguard: Option<PathBuf>,
}

/// What is tried.
#[derive(Debug, PartialEq)]
pub struct Choice {
    /// Kernels, by what their versions begin with, or `newest`.
    pub kernels: Vec<String>,
    /// Cells, on each of the kernels.
    pub cells: Vec<String>,
    /// Whether the units are tried under systemd.
    pub systemd: bool,
    /// What is not tried, so that nobody takes it as passed.
    pub left_out: Vec<String>,
}

impl Asked {
    /// Reads `[--kernel 6.1|6.12|newest]... [--mode NAME]... [--systemd] [--short] [--sipguard FILE]`.
    pub fn read(args: &[String]) -> Result<Self> {
        let mut asked = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().cloned().ok_or_else(|| Usage(format!("`vm {word}` takes a value")));
            match word.as_str() {
                "--kernel" => asked.kernels.push(value()?),
                "--mode" => asked.cells.push(value()?),
                "--sipguard" => asked.sipguard = Some(value()?.into()),
                "--short" => asked.short = true,
                "--systemd" => asked.systemd = true,
                _ => return Err(Usage::arguments("vm", args)),
            }
        }
        Ok(asked)
    }

    /// Without arguments everything is tried, with `--systemd` alone the units alone. `all` are the cells that there are.
    pub fn choose(&self, all: &[String]) -> Result<Choice> {
        if let Some(unknown) = self.cells.iter().find(|name| !all.contains(name)) {
            return Err(Usage(format!("there is no mode `{unknown}`; there are {}", all.join(", "))).into());
        }
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let names_cells = self.short || !self.kernels.is_empty() || !self.cells.is_empty();
        let (kernels, cells) = match (self.short, self.systemd && !names_cells) {
            (_, true) => (Vec::new(), Vec::new()),
            (true, false) => (owned(&[SHORT_KERNEL]), owned(&SHORT)),
            (false, false) => (owned(&KERNELS), all.to_vec()),
        };
        let or = |named: &Vec<String>, usual| if named.is_empty() { usual } else { named.clone() };
        let (kernels, cells) = (or(&self.kernels, kernels), or(&self.cells, cells));
        let systemd = self.systemd || !names_cells;

        let mut left_out = owned(&KERNELS);
        left_out.retain(|name| !kernels.contains(name));
        left_out.iter_mut().for_each(|name| *name = format!("kernel {name}"));
        left_out.extend(all.iter().filter(|name| !cells.contains(name)).cloned());
        left_out.extend((!systemd).then(|| "systemd".to_owned()));
        Ok(Choice { kernels, cells, systemd, left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn what_is_asked_for_is_tried_and_the_rest_is_named() {
        let all = words("veth veth-9000 generic bond");
        let rest = |text: &str| text.split(", ").filter(|name| !name.is_empty()).map(String::from).collect();
        for (asked, kernels, cells, systemd, left_out) in [
            ("", "6.1 6.12 newest", "veth veth-9000 generic bond", true, ""),
            ("--short", "6.12", "veth veth-9000 generic", false, "kernel 6.1, kernel newest, bond, systemd"),
            (
                "--short --kernel 6.1",
                "6.1",
                "veth veth-9000 generic",
                false,
                "kernel 6.12, kernel newest, bond, systemd",
            ),
            (
                "--systemd",
                "",
                "",
                true,
                "kernel 6.1, kernel 6.12, kernel newest, veth, veth-9000, generic, bond",
            ),
            ("--mode bond --systemd", "6.1 6.12 newest", "bond", true, "veth, veth-9000, generic"),
            (
                "--kernel 7.2 --mode bond",
                "7.2",
                "bond",
                false,
                "kernel 6.1, kernel 6.12, kernel newest, veth, veth-9000, generic, systemd",
            ),
        ] {
            let choice = Asked::read(&words(asked)).unwrap().choose(&all).unwrap();
            let wanted =
                Choice { kernels: words(kernels), cells: words(cells), systemd, left_out: rest(left_out) };
            assert_eq!(choice, wanted, "{asked}");
        }
    }

    #[test]
    fn what_is_wrong_is_a_mistake_of_usage() {
        for wrong in ["veth", "--kernel", "--fast"] {
            assert!(Asked::read(&words(wrong)).unwrap_err().is::<Usage>(), "{wrong}");
        }
        let asked = Asked::read(&words("--mode token-ring --sipguard a/b")).unwrap();
        assert_eq!(asked.sipguard, Some("a/b".into()));
        assert!(asked.choose(&words("veth")).unwrap_err().is::<Usage>());
    }
}
