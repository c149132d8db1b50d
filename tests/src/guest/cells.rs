//! The kinds of interfaces, a column of the table each.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{application::wait_until, guard::Site, netns::Netns, process::output};

/// A kind of interface, and how sipguard attaches to it.
#[derive(Debug)]
pub struct Cell {
    /// Its name in the table.
    pub name: &'static str,
    /// The interface of the PBX that sipguard attaches to.
    pub interface: &'static str,
    /// The interface that has the addresses.
    pub addressed: &'static str,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// What `sipguard attach` is asked for, and what `sipguard status` has to say afterwards; with `auto` either is good.
    pub mode: &'static str,
    /// Makes the interfaces, without addresses.
    make: fn(&Netns, &Netns) -> Result<()>,
}

/// All of them, in the order of the table.
pub const CELLS: &[Cell] = &[
    cell("veth", "eth0", "eth0", 1500, "native", cable),
    cell("veth-9000", "eth0", "eth0", 9000, "native", cable),
    cell("generic", "eth0", "eth0", 1500, "generic", cable),
    cell("generic-9000", "eth0", "eth0", 9000, "generic", cable),
    cell("bridge", "br0", "br0", 1500, "generic", bridge),
    cell("bridge-port", "eth0", "br0", 1500, "native", bridge),
    cell("vlan", "eth0.10", "eth0.10", 1500, "generic", vlan),
    cell("vlan-parent", "eth0", "eth0.10", 1500, "native", vlan),
    cell("bond", "bond0", "bond0", 1500, "native", bond),
    cell("virtio", "eth0", "eth0", 1500, "native", virtio),
    cell("virtio-9000", "eth0", "eth0", 9000, "auto", virtio),
];

const fn cell(
    name: &'static str,
    interface: &'static str,
    addressed: &'static str,
    mtu: u32,
    mode: &'static str,
    make: fn(&Netns, &Netns) -> Result<()>,
) -> Cell {
    Cell { name, interface, addressed, mtu, mode, make }
}

impl Cell {
    /// Two machines, connected by this kind of interface, with the addresses of a [`Site`] and everything up.
    ///
    /// # Errors
    /// When the kernel can't make one of them.
    pub fn machines(&self) -> Result<(Netns, Netns)> {
        let (pbx, phone) = (Netns::new("pbx")?, Netns::new("phone")?);
        (self.make)(&pbx, &phone)?;
        let ends = [(&pbx, Site::PBX), (&phone, Site::PHONE)];
        for (machine, addresses) in ends {
            for interface in interfaces(machine)? {
                machine.set_mtu(&interface, self.mtu)?;
                machine.run(&["ip", "link", "set", &interface, "up"])?;
            }
            let addressed = self.addressed(machine)?;
            machine.add_address(addressed, &format!("{}/24", addresses[0]))?;
            machine.add_address(addressed, &format!("{}/64", addresses[1]))?;
        }
        for (machine, _) in ends {
            let addressed = self.addressed(machine)?;
            wait_until(&format!("{addressed} has a carrier"), || {
                Ok(machine.run(&["ip", "link", "show", "dev", addressed])?.contains("LOWER_UP"))
            })?;
        }
        Ok((pbx, phone))
    }

    /// What has the addresses has the same name at either end, but at the phone's end of a bridge.
    fn addressed(&self, machine: &Netns) -> Result<&'static str> {
        let there = interfaces(machine)?.iter().any(|name| name == self.addressed);
        Ok(if there { self.addressed } else { "eth0" })
    }
}

/// The names of the interfaces of a machine, `lo` apart, those below others first.
fn interfaces(machine: &Netns) -> Result<Vec<String>> {
    let listed = machine.run(&["ip", "-oneline", "link", "show"])?;
    let names = listed.lines().filter_map(|line| line.split(':').nth(1)?.trim().split('@').next());
    Ok(names.filter(|name| *name != "lo").map(str::to_owned).collect())
}

/// A veth pair as between containers: segments of up to 64 kB in one piece, joined again where the receiver may.
fn lay(pbx: &Netns, phone: &Netns, name: &str) -> Result<()> {
    pbx.run(&["ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", phone.name()])?;
    for machine in [pbx, phone] {
        machine.run(&["ethtool", "-K", name, "gro", "on"])?;
    }
    Ok(())
}

fn cable(pbx: &Netns, phone: &Netns) -> Result<()> {
    lay(pbx, phone, "eth0")
}

/// The PBX behind a bridge, as in a container host; ports forward at once.
fn bridge(pbx: &Netns, phone: &Netns) -> Result<()> {
    lay(pbx, phone, "eth0")?;
    pbx.run(&["ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0"])?;
    pbx.run(&["ip", "link", "set", "eth0", "master", "br0"]).map(drop)
}

fn vlan(pbx: &Netns, phone: &Netns) -> Result<()> {
    lay(pbx, phone, "eth0")?;
    for machine in [pbx, phone] {
        machine.run(&["ip", "link", "add", "link", "eth0", "name", "eth0.10", "type", "vlan", "id", "10"])?;
    }
    Ok(())
}

/// Two cables in an active-backup bond at either end.
fn bond(pbx: &Netns, phone: &Netns) -> Result<()> {
    for name in ["eth0", "eth1"] {
        lay(pbx, phone, name)?;
    }
    for machine in [pbx, phone] {
        let kind = ["type", "bond", "mode", "active-backup", "miimon", "100"];
        machine.run(&[&["ip", "link", "add", "bond0"][..], &kind].concat())?;
        for name in ["eth0", "eth1"] {
            machine.run(&["ip", "link", "set", name, "master", "bond0"])?;
        }
    }
    Ok(())
}

/// The two network cards of the virtual machine, which the emulator has connected. They come back when a namespace goes.
fn virtio(pbx: &Netns, phone: &Netns) -> Result<()> {
    let mut cards = Vec::new();
    wait_until("both virtio cards are there", || {
        cards = virtio_cards()?;
        Ok(cards.len() == 2)
    })?;
    let [first, second] = &cards[..] else { bail!("there are {} virtio cards, not two", cards.len()) };
    for (card, machine) in [(first, pbx), (second, phone)] {
        output(Command::new("ip").args(["link", "set", card, "netns", machine.name()]))?;
        machine.run(&["ip", "link", "set", card, "name", "eth0"])?;
    }
    Ok(())
}

fn virtio_cards() -> Result<Vec<String>> {
    let mut cards = Vec::new();
    for entry in fs::read_dir("/sys/class/net").context("listing the network cards")? {
        let entry = entry?;
        let driver = fs::read_link(entry.path().join("device/driver")).unwrap_or_default();
        if driver.file_name() == Path::new("virtio_net").file_name() {
            cards.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    cards.sort();
    Ok(cards)
}
