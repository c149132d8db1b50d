//! Network interfaces, asked over rtnetlink in the namespace at hand.

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Failure, Status};

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// `true` for native mode, `false` for generic mode.
    pub native: bool,
    /// Kernel's number of the program.
    pub program_id: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its driver, or the kind of a virtual one.
    pub driver: String,
    /// Whether its frames begin with an Ethernet header, as they do not in tunnels of IP (tun, WireGuard, PPP).
    pub ethernet: bool,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
}

/// Asks for an interface by name.
///
/// # Errors
/// A failure that names the interface when there is none.
pub fn interface(name: &str) -> Result<Interface> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    if name.is_empty() || name.len() > 15 {
        return Err(no_such(name));
    }
    ask(request).with_context(|| format!("asking for interface {name}"))?.ok_or_else(|| no_such(name))
}

/// Asks for an interface by index; `None` when it is gone.
///
/// # Errors
/// When rtnetlink does not answer.
pub fn by_index(index: u32) -> Result<Option<Interface>> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    ask(request)
}

fn no_such(name: &str) -> anyhow::Error {
    Failure::with(Status::Failed, format!("no interface `{name}` here: `ip link` lists those that there are"))
}

fn ask(request: LinkMessage) -> Result<Option<Interface>> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("opening rtnetlink")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(request));
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), payload);
    packet.header.flags = NLM_F_REQUEST;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer: NetlinkMessage<RouteNetlinkMessage> = NetlinkMessage::deserialize(&answer)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(read(link))),
        NetlinkPayload::Error(error) => match error.to_io().raw_os_error() {
            Some(libc_enodev) if libc_enodev == nix::errno::Errno::ENODEV as i32 => Ok(None),
            _ => bail!("rtnetlink: {}", error.to_io()),
        },
        _ => bail!("rtnetlink gave an unexpected answer"),
    }
}

fn read(link: LinkMessage) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mtu: 0,
        driver: String::new(),
        ethernet: matches!(link.header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback),
        xdp: None,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        interface.driver = kind.to_string();
                    }
                }
            }
            LinkAttribute::Xdp(facts) => interface.xdp = xdp(&facts),
            _ => {}
        }
    }
    if interface.driver.is_empty() {
        let link = std::fs::read_link(format!("/sys/class/net/{}/device/driver", interface.name));
        let driver = link.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        interface.driver = driver.unwrap_or_else(|| "unknown".to_owned());
    }
    interface
}

fn xdp(facts: &[LinkXdp]) -> Option<Xdp> {
    let native = facts.iter().find_map(|fact| match fact {
        LinkXdp::Attached(XdpAttached::None) => None,
        LinkXdp::Attached(attached) => Some(*attached != XdpAttached::SocketBuffer),
        _ => None,
    })?;
    let program_id = facts.iter().find_map(|fact| match fact {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    })?;
    Some(Xdp { native, program_id })
}
