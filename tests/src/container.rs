//! A container as an engine makes it: a process with a network and mounts of its own, behind a machine that routes to it.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context as _, Result};

use crate::{application::wait_until, guard::Site, netns::Netns, process::Running};

/// A running container. Drop ends it, and its network goes with it.
#[derive(Debug)]
pub struct Container {
    // Before the process, or the name would keep the network.
    /// Its network.
    pub network: Netns,
    process: Running,
    /// Its address.
    pub address: Ipv4Addr,
    name: &'static str,
    outer: String,
}

impl Container {
    /// Its interface.
    pub const INTERFACE: &str = "eth0";

    /// Starts one behind the PBX's machine of a site, to which the phone has a route; `number` is of its network, 10.79.`number`.0/24.
    pub fn start(site: &Site, name: &'static str, number: u8) -> Result<Self> {
        let mut command = site.pbx.command("unshare");
        let process = Running::start(name, command.args(["--net", "--mount", "sleep", "infinity"]))?;
        let pid = process.pid();
        let title = format!("/proc/{pid}/cmdline");
        wait_until("the container runs", || {
            Ok(fs::read(&title).context("reading its title")?.starts_with(b"sleep"))
        })?;
        let (outer, inside) = (format!("c{number}"), pid.to_string());
        let veth =
            ["ip", "link", "add", &outer, "type", "veth", "peer", "name", Self::INTERFACE, "netns", &inside];
        site.pbx.run(&veth)?;
        let gateway = format!("10.79.{number}.1");
        site.pbx.add_address(&outer, &format!("{gateway}/24"))?;
        site.pbx.run(&["ip", "link", "set", &outer, "up"])?;
        site.pbx.forward()?;
        site.phone.run(&["ip", "route", "replace", &format!("10.79.{number}.0/24"), "via", "10.77.0.1"])?;
        let network = Netns::of_process(name, pid)?;
        network.add_address(Self::INTERFACE, &format!("10.79.{number}.2/24"))?;
        network.run(&["ip", "link", "set", Self::INTERFACE, "up"])?;
        network.add_route("default", &gateway)?;
        Ok(Self { network, process, address: Ipv4Addr::new(10, 79, number, 2), name, outer })
    }

    /// How `--container` names it.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{}={}", self.name, self.process.pid())
    }

    /// Whether the kernel says that an XDP program is on its interface.
    pub fn has_program(&self) -> Result<bool> {
        Ok(self.network.run(&["ip", "-d", "link", "show", Self::INTERFACE])?.contains("prog/xdp"))
    }

    /// Ends it, and waits until the machine has lost its interface.
    pub fn end(self, site: &Site) -> Result<()> {
        let outer = self.outer.clone();
        drop(self);
        wait_until("its interface is gone", || Ok(site.pbx.run(&["ip", "link", "show", &outer]).is_err()))
    }
}
