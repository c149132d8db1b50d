//! Where it was measured.

use std::fs;

use anyhow::{Context as _, Result};

/// Facts that times depend on.
#[derive(Debug)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs that are on line.
    pub cpus: usize,
    /// Whether BPF programs become machine code.
    pub jit: bool,
    /// What the kernel does against speculation where it makes calls and returns dear, which BPF helpers are full of.
    pub mitigations: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let cpus = read("/proc/cpuinfo")?;
        let models = || cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: models().next().map_or("unknown", |(_, model)| model).to_owned(),
            cpus: models().count(),
            jit: read("/proc/sys/net/core/bpf_jit_enable")?.trim() != "0",
            mitigations: ["spectre_v2", "retbleed", "spec_rstack_overflow"]
                .iter()
                .filter_map(|name| {
                    let path = format!("/sys/devices/system/cpu/vulnerabilities/{name}");
                    Some(format!("{name}: {}", read(&path).ok()?.trim()))
                })
                .collect(),
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}
