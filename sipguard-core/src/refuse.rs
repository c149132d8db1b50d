//! Interfaces that `attach` refuses, and why.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use aya::programs::{ProgramInfo, loaded_programs};
use sipguard_common::abi::{Iface, names};

use crate::error::{Failure, FailureKind};
use crate::link::{self, Interface};
use crate::presence::is_elsewhere;
use crate::settings::XdpChoice;

/// The programs read Ethernet; of a frame without its header they would take addresses for something else.
///
/// # Errors
/// [`FailureKind::Kernel`]
pub(crate) fn a_tunnel(interface: &Interface) -> Result<()> {
    if interface.ethernet {
        return Ok(());
    }
    Err(Failure::with(
        FailureKind::Kernel,
        format!(
            "{} ({}) carries packets without an Ethernet header, as tun, WireGuard and PPP do: sipguard can't judge them there, and nothing was \
             attached. Attach where the SIP of that tunnel comes in or goes on unencrypted",
            interface.name, interface.driver
        ),
    ))
}

/// What two attached interfaces have of one packet would be judged, and counted against its sender, twice.
///
/// # Errors
/// [`FailureKind::Failed`]
pub(crate) fn stacked(interfaces: &[Interface], own: &[(u32, Iface)]) -> Result<()> {
    let all: Vec<Interface> = own
        .iter()
        .filter(|(_, iface)| !is_elsewhere(iface))
        .filter_map(|(_, iface)| link::by_index(iface.ifindex).ok().flatten())
        .chain(interfaces.iter().cloned())
        .collect();
    let pair = all.iter().find_map(|upper| {
        let lower = all.iter().find(|lower| upper.stacked_on.contains(&lower.index))?;
        Some((&upper.name, &lower.name))
    });
    let Some((upper, lower)) = pair else { return Ok(()) };
    Err(Failure::with(
        FailureKind::Failed,
        format!(
            "{upper} and {lower} have the same packets, which would be judged twice: attach to one of them, and `sipguard detach` the other first"
        ),
    ))
}

/// Another program's place is never taken.
///
/// # Errors
/// [`FailureKind::Kernel`]
pub(crate) fn another_program(interface: &Interface) -> Result<()> {
    let Some(xdp) = interface.xdp else { return Ok(()) };
    let name = program_name(xdp.program_id);
    if name == DISPATCHER {
        let text = a_dispatcher(interface, xdp.program_id, &components(interface, xdp.program_id));
        return Err(Failure::with(FailureKind::Kernel, text));
    }
    if name == names::PROGRAM {
        let text = format!(
            "{} is filtered by another sipguard (program {}): one with other `--pins`, or whose pins are on a bpffs of another mount namespace. \
             Detach it there, and attach again",
            interface.name, xdp.program_id
        );
        return Err(Failure::with(FailureKind::Kernel, text));
    }
    Err(Failure::with(
        FailureKind::Kernel,
        format!(
            "{} already has an XDP program: `{name}` (id {}). sipguard does not evict it. `bpftool net show dev {}` shows how it is \
             attached; take it off (for example `ip link set dev {} xdp off` or its own tool) and attach again",
            interface.name, xdp.program_id, interface.name, interface.name
        ),
    ))
}

/// What libxdp calls the program with which it runs several others.
const DISPATCHER: &str = "xdp_dispatcher";

/// Names of the programs that a dispatcher runs, by the pins of libxdp (its `protocol.org`, "Locking and pinning").
fn components(interface: &Interface, id: u32) -> Vec<String> {
    let dir = Path::new("/sys/fs/bpf/xdp").join(format!("dispatch-{}-{id}", interface.index));
    let pins = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pins: Vec<PathBuf> = pins.filter(|pin| pin.to_string_lossy().ends_with("-prog")).collect();
    pins.sort_unstable();
    let name = |pin: &PathBuf| ProgramInfo::from_pin(pin).ok()?.name_as_str().map(str::to_owned);
    pins.iter().filter_map(name).collect()
}

fn a_dispatcher(interface: &Interface, id: u32, components: &[String]) -> String {
    let with = match components {
        [] => "programs of others".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let name = &interface.name;
    format!(
        "{name} has the dispatcher of libxdp (`{DISPATCHER}`, id {id}), which runs {with}. sipguard joins no dispatcher, and evicts none. \
         `xdp-loader status {name}` shows it; take it off (`xdp-loader unload {name} --all`, or the tool that loaded them) and attach again, or attach \
         to what is behind: the bridge or VLAN above, or the container"
    )
}

/// An attached interface does not change between native and generic mode: that would be a gap in the filter.
///
/// # Errors
/// [`FailureKind::Failed`]
pub(crate) fn another_mode(interface: &Interface, xdp: Option<XdpChoice>) -> Result<()> {
    let native = interface.xdp.is_some_and(|xdp| xdp.native);
    let desired = xdp.and_then(XdpChoice::native);
    if desired.is_none_or(|desired| desired == native) {
        return Ok(());
    }
    let name = &interface.name;
    let mode = if native { "native" } else { "generic" };
    bail!(
        "{name} is attached in {mode} mode already; to change that: `sipguard detach {name}`, then attach again"
    )
}

fn program_name(id: u32) -> String {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    info.and_then(|info| info.name_as_str().map(str::to_owned)).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatcher_is_named_with_what_it_runs() {
        let interface = Interface {
            name: "eth0".to_owned(),
            index: 2,
            mtu: 1500,
            driver: "veth".to_owned(),
            ethernet: true,
            xdp: None,
            stacked_on: Vec::new(),
        };
        let said = a_dispatcher(&interface, 7, &["xdp_pass".to_owned(), "xdpfilt_dny_all".to_owned()]);
        assert!(
            said.contains("(`xdp_dispatcher`, id 7), which runs `xdp_pass`, `xdpfilt_dny_all`."),
            "{said}"
        );
        assert!(a_dispatcher(&interface, 7, &[]).contains("which runs programs of others."));
        assert_eq!(components(&interface, u32::MAX), Vec::<String>::new());
    }
}
