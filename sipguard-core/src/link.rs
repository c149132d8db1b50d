//! Network interfaces, asked over rtnetlink in the namespace at hand.

use std::path::Path;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached};
use netlink_packet_route::tc::{TcHandle, TcMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::container;
use crate::error::{Failure, FailureKind};
use crate::escape::escaped;

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Xdp {
    /// `true` for native mode, `false` for generic mode.
    pub native: bool,
    /// Kernel's number of the program.
    pub program_id: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
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
    /// Indexes of the interfaces that have its packets too: the bridge or bond that it is a port of, and for a VLAN or the like what it is made of.
    pub stacked_on: Vec<u32>,
}

/// Asks for an interface by name.
///
/// # Errors
/// A failure that names the interface when there is none.
pub(crate) fn interface(name: &str) -> Result<Interface> {
    by_name(name)?.ok_or_else(|| no_such(name))
}

/// Asks for an interface by name; `None` when there is none.
///
/// # Errors
/// When rtnetlink does not answer.
pub(crate) fn by_name(name: &str) -> Result<Option<Interface>> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    if name.is_empty() || name.len() > 15 {
        return Ok(None);
    }
    ask(request).with_context(|| format!("asking for interface {name}"))
}

/// Asks for an interface by index; `None` when it is gone.
///
/// # Errors
/// When rtnetlink does not answer.
pub(crate) fn by_index(index: u32) -> Result<Option<Interface>> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    ask(request)
}

/// All interfaces of the namespace at hand.
///
/// # Errors
/// When rtnetlink does not answer.
pub(crate) fn all() -> Result<Vec<Interface>> {
    let mut found = Vec::new();
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let outcome = exchange(request, NLM_F_DUMP, &mut |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            found.push(read(link));
        }
    })?;
    match outcome {
        None => Ok(found),
        Some(error) => bail!("rtnetlink: {error}"),
    }
}

fn no_such(name: &str) -> anyhow::Error {
    let text = match container::chosen() {
        Some(container) => {
            let names = all().map(|all| {
                all.into_iter().map(|one| escaped(one.name.as_bytes())).collect::<Vec<_>>().join(", ")
            });
            format!("no interface `{name}` in container {container}; there are {}", names.unwrap_or_default())
        }
        None => format!("no interface `{name}` here: `ip link` lists those that there are"),
    };
    Failure::with(FailureKind::Failed, text)
}

/// The interface that a container has beside its loopback.
///
/// # Errors
/// When it has none with Ethernet, or several; when rtnetlink does not answer.
pub(crate) fn only() -> Result<Interface> {
    let mut all = all()?;
    all.retain(|one| one.ethernet && one.name != "lo");
    let of = container::of();
    let text = match all.as_slice() {
        [only] => return Ok(only.clone()),
        [] => format!(
            "there is no interface{of} that carries Ethernet, apart from its loopback: nothing was attached"
        ),
        several => {
            let names: Vec<String> = several.iter().map(|one| escaped(one.name.as_bytes())).collect();
            format!("there are several interfaces{of}: name those to attach to, of {}", names.join(", "))
        }
    };
    Err(Failure::with(FailureKind::Usage, text))
}

fn ask(request: LinkMessage) -> Result<Option<Interface>> {
    let mut found = None;
    let request = RouteNetlinkMessage::GetLink(request);
    let outcome = exchange(request, 0, &mut |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            found = Some(read(link));
        }
    })?;
    match outcome {
        None => Ok(found),
        Some(Errno::ENODEV) => Ok(None),
        Some(error) => bail!("rtnetlink: {error}"),
    }
}

/// Takes a `clsact` qdisc off an interface, unless somebody has a filter there.
///
/// # Errors
/// When rtnetlink does not answer, or refuses.
pub(crate) fn remove_empty_clsact(index: u32) -> Result<()> {
    let clsact = TcHandle { major: 0xffff, minor: 0xfff1 };
    let mut message = TcMessage::default();
    message.header.index = index as i32;
    let mut filters = 0;
    for minor in [0xfff2, 0xfff3] {
        message.header.parent = TcHandle { major: 0xffff, minor };
        let request = RouteNetlinkMessage::GetTrafficFilter(message.clone());
        exchange(request, NLM_F_DUMP, &mut |answer| {
            filters += usize::from(matches!(answer, RouteNetlinkMessage::NewTrafficFilter(_)));
        })?;
    }
    if filters != 0 {
        return Ok(());
    }
    message.header.parent = clsact;
    message.header.handle = TcHandle { major: 0xffff, minor: 0 };
    match exchange(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK, &mut drop)? {
        None | Some(Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Some(error) => bail!("removing the clsact qdisc: rtnetlink: {error}"),
    }
}

/// Asks the kernel, and hands over each message of its answer. The error that it gives, if any.
fn exchange(
    request: RouteNetlinkMessage,
    flags: u16,
    take: &mut dyn FnMut(RouteNetlinkMessage),
) -> Result<Option<Errno>> {
    let mut socket = container::inside(|| Socket::new(NETLINK_ROUTE)).context("opening rtnetlink")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let answer: NetlinkMessage<RouteNetlinkMessage> = NetlinkMessage::deserialize(rest)?;
            let length = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
            rest = &rest[length.max(1)..];
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => take(message),
                NetlinkPayload::Done(_) => return Ok(None),
                NetlinkPayload::Error(error) => {
                    let code = error.to_io().raw_os_error().filter(|code| *code != 0);
                    return Ok(code.map(Errno::from_raw));
                }
                _ => bail!("rtnetlink gave an unexpected answer"),
            }
        }
        if flags & NLM_F_DUMP != NLM_F_DUMP && flags & NLM_F_ACK == 0 {
            return Ok(None);
        }
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
        stacked_on: Vec::new(),
    };
    let mut lower = None;
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
            LinkAttribute::Controller(index) => interface.stacked_on.push(index),
            LinkAttribute::Link(index) => lower = Some(index),
            _ => {}
        }
    }
    // The other end of a veth is none, and may be of another namespace.
    if ["vlan", "macvlan", "ipvlan", "macvtap", "ipvtap", "macsec"].contains(&&interface.driver[..]) {
        interface.stacked_on.extend(lower);
    }
    if interface.driver.is_empty() {
        // What is mounted is of one namespace, most often the host's: a card in a container is not in it.
        let class = Path::new("/sys/class/net").join(&interface.name);
        let index = std::fs::read_to_string(class.join("ifindex"));
        let is_it = index.is_ok_and(|index| index.trim() == interface.index.to_string());
        let link = Some(class.join("device/driver")).filter(|_| is_it).map(std::fs::read_link);
        let driver =
            link.and_then(Result::ok).and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
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
