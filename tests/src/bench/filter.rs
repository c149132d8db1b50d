//! xdp-filter of xdp-tools, the yardstick: loaded by its own tool onto an interface that nobody else has.

use std::{
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;

use super::kernel;
use crate::{netns::Netns, process};

const INTERFACE: &str = "bench0";

/// xdp-filter with one source address and one destination port denied.
#[derive(Debug)]
pub struct Filter {
    program: OwnedFd,
    name: String,
    version: String,
    // Fields are dropped in this order: the program, its pins, the interface.
    _mounts: File,
    _namespace: Netns,
}

impl Filter {
    /// Loads it.
    pub fn load(denied_source: &str, denied_port: u16) -> Result<Self> {
        let namespace = Netns::new("bench")?;
        namespace.run(&["ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", "bench1"])?;
        namespace.run(&["ip", "link", "set", INTERFACE, "up"])?;
        let mounts = namespace.enter(|| -> Result<File> {
            let mounts = private_bpffs()?;
            for words in [
                &["load", INTERFACE][..],
                &["ip", "--mode", "src", denied_source],
                &["port", &denied_port.to_string()],
            ] {
                process::output(Command::new("xdp-filter").args(words))?;
            }
            Ok(mounts)
        })??;
        let link = namespace.run(&["ip", "-json", "link", "show", "dev", INTERFACE])?;
        let link: Value = serde_json::from_str(&link)?;
        let program = &link[0]["xdp"]["prog"];
        let id = program["id"].as_u64().context("xdp-filter is not on its interface")?;
        let name = program["name"].as_str().unwrap_or("?").to_owned();
        // Its exit status is 1 even when it tells.
        let version = Command::new("xdp-filter").args(["load", "--version"]).output()?.stdout;
        Ok(Self {
            program: kernel::program_by_id(u32::try_from(id)?)?,
            name,
            version: String::from_utf8_lossy(&version).trim().to_owned(),
            _mounts: mounts,
            _namespace: namespace,
        })
    }

    /// What is on the interface: xdp-filter itself, or the dispatcher that calls it, where the kernel takes one.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// The name of [`Filter::program`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the tool says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Gives this thread, and what it starts, a bpffs of their own, which lives as long as the returned file. xdp-filter keeps its
/// rules at one fixed place there; those of the machine's administrator are not ours to change.
fn private_bpffs() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keeping mounts private")?;
    mount(Some("bench"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).context("mounting a bpffs")?;
    File::open("/proc/thread-self/ns/mnt").context("holding the mount namespace")
}
