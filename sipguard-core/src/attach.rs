//! `attach`: nothing half done, and never another program's place taken.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapInfo};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, XdpMode};
use bytemuck::Zeroable;
use nix::errno::Errno;
use sipguard_common::abi::{ABI_VERSION, IFACE_SLOTS, Iface, Settings, names};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::container;
use crate::counting;
use crate::detach::free;
use crate::error::{Failure, FailureKind};
use crate::kernel;
use crate::layouts::Layouts;
use crate::link::{self, Interface};
use crate::load::{Begun, Loaded};
use crate::maps::{self, Ifaces, Plain};
use crate::pins::Pins;
use crate::presence::{Presence, iface_name, is_elsewhere, own_slots, presence};
use crate::refuse;
use crate::second_eye;
use crate::settings::{
    self, DEFAULT_FLOWS, DEFAULT_GRACE, EffectiveSettings, SettingsRequest, XdpChoice, secret,
};
use crate::store::{self, ConfiguredRows};
use crate::undo::Undo;

/// What an operator wants of `attach`.
#[derive(Clone, Debug)]
pub(crate) struct AttachRequest {
    /// Native or generic; `None` is what the configuration says, automatic at first.
    pub xdp: Option<XdpChoice>,
    /// Mode, ports, limits and checks.
    pub settings: SettingsRequest,
    /// Most connections that are followed; `None` leaves what is in force, [`DEFAULT_FLOWS`] at first.
    pub flows: Option<u32>,
    /// How long the middle of a message on a connection older than the guard passes; `None` is what the configuration says,
    /// [`DEFAULT_GRACE`] at first.
    pub grace: Option<Duration>,
    /// What holds when nothing is in force yet and nothing else is said here.
    pub config: Config,
    /// Where the rules are, which are restored before the first packet is judged.
    pub store: PathBuf,
    /// The programs: an ELF file.
    pub object: &'static [u8],
}

impl AttachRequest {
    /// What it is when nothing is in force yet: what is not said here the configuration says.
    fn at_first(&self) -> AttachRequest {
        AttachRequest {
            settings: self.settings.or(&self.config.settings),
            flows: self.flows.or(self.config.flows),
            ..self.clone()
        }
    }

    /// `None` is native first, and generic where the driver can't.
    fn native(&self) -> Option<bool> {
        self.xdp.or(self.config.xdp).unwrap_or_default().native()
    }
}

/// What became of one interface.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The interface.
    pub name: String,
    /// Native mode, or generic.
    pub native: bool,
    /// Why not native.
    pub native_errno: u32,
    /// `false` when it was attached before.
    pub new: bool,
    /// Why what the PBX sends by it is not seen.
    pub blind: Option<String>,
}

/// What `attach` did.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachOutcome {
    /// Whether nothing was in force before, so that the configuration was applied.
    pub first: bool,
    /// Each interface once, in the order in which they were named.
    pub interfaces: Vec<Attached>,
    /// Whether mode, action, ports or limits are others than before. They are the same for all interfaces.
    pub settings_changed: bool,
    /// Each that changed, with what it was and is; at the first attach those that hold. See [`settings::changes`].
    pub settings: Vec<String>,
    /// Why open connections are not counted.
    pub uncounted: Option<String>,
    /// What it takes to take it back.
    pub undo: Undo,
}

impl AttachOutcome {
    /// Notes for [`Undo`] which interfaces are new.
    fn note_new(&mut self) {
        self.undo.new = self.interfaces.iter().filter(|one| one.new).map(|one| one.name.clone()).collect();
    }
}

/// Attaches to every interface of `names`, or to none.
///
/// # Errors
/// See [`FailureKind`]; what was attached before stays as it was.
pub(crate) fn attach(pins: &Pins, names: &[String], request: &AttachRequest) -> Result<AttachOutcome> {
    interfaces(names)?;
    pins.mount()?;
    loop {
        if let Some(_lock) = pins.lock()? {
            if !pins.slots()?.is_empty() {
                // Whoever had the lock before may have attached to them.
                return attach_more(pins, &interfaces(names)?, request);
            }
            // Nothing is in force without a link; what a killed `attach` may have left goes.
            pins.remove_all()?;
            expect_gone(pins)?;
        }
        if let Some(outcome) = attach_first(pins, names, &request.at_first())? {
            return Ok(outcome);
        }
    }
}

/// Fails when something is in the directory of the pins that nobody of ours made; the caller holds its lock.
fn expect_gone(pins: &Pins) -> Result<()> {
    let Some(entry) = std::fs::read_dir(pins.dir()).ok().and_then(|mut all| all.next()?.ok()) else {
        return Ok(());
    };
    // Another first `attach` may have taken the place meanwhile.
    if pins.exist() {
        return Ok(());
    }
    bail!(
        "{} is not sipguard's and in the place of its pins: remove it, or name another place by `--pins`",
        entry.path().display()
    );
}

/// The interfaces of these names, each once, as they are now.
fn interfaces(names: &[String]) -> Result<Vec<Interface>> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for name in names {
        let interface = link::interface(name)?;
        refuse::a_tunnel(&interface)?;
        if !interfaces.contains(&interface) {
            interfaces.push(interface);
        }
    }
    Ok(interfaces)
}

/// Attaches where nothing is attached. `None` when somebody else did so meanwhile.
fn attach_first(pins: &Pins, names: &[String], request: &AttachRequest) -> Result<Option<AttachOutcome>> {
    let (new, _lock) = pins.begin()?;
    let loaded = match begin(&new, request).and_then(|loaded| Ok(pins.finish(&new)?.then_some(loaded))) {
        Ok(Some(loaded)) => loaded,
        outcome => {
            new.remove_all().context("cleaning up after an attach")?;
            return outcome.map(|_| None);
        }
    };
    // Read only now: somebody else may have attached to them before.
    let found = interfaces(names).and_then(|found| {
        refuse::stacked(&found, &[])?;
        found.iter().try_for_each(refuse::another_program)?;
        Ok(found)
    });
    let interfaces = match found {
        Ok(interfaces) => interfaces,
        Err(error) => {
            pins.remove_all().context("cleaning up after an attach")?;
            return Err(error);
        }
    };
    let mut outcome = AttachOutcome {
        first: true,
        settings: settings::changes(None, &request.settings.of(&EffectiveSettings::default())),
        ..AttachOutcome::default()
    };
    let attached = restore(pins, request, &mut outcome.undo).and_then(|()| {
        let mut loaded = loaded.load()?;
        let uncounted = counting::begin(&mut loaded, pins).err();
        // The filter needs it for nothing else.
        outcome.uncounted = uncounted.map(|error| format!("{error:#}"));
        let mut first = Some(loaded);
        for (slot, interface) in (0..).zip(&interfaces) {
            let mut loaded = match first.take() {
                Some(loaded) => loaded,
                None => {
                    Loaded::new(request.object, Some(pins), free_slot(&[], slot)?, flows(pins, request)?)?
                }
            };
            outcome.interfaces.push(attach_one(pins, &mut loaded, slot, interface, request)?);
        }
        Ok(())
    });
    if let Err(error) = attached {
        second_eye::remove_all(pins).context("cleaning up after a failed attach")?;
        return Err(error);
    }
    outcome.note_new();
    Ok(Some(outcome))
}

/// Attaches beside what is attached. The caller holds the lock.
fn attach_more(pins: &Pins, interfaces: &[Interface], request: &AttachRequest) -> Result<AttachOutcome> {
    pins.check()?;
    let Slots { live: own, dead } = slots(pins)?;
    if let Some((_, iface)) = own.iter().find(|(_, iface)| is_elsewhere(iface)) {
        container::expect_same(&iface_name(iface))?;
    }
    let is_moved = dead.iter().any(|(_, iface)| is_elsewhere(iface));
    refuse::stacked(interfaces, &own)?;
    for interface in interfaces {
        if slot_of(&own, interface).is_none() {
            refuse::another_program(interface)?;
        } else {
            refuse::another_mode(interface, request.xdp)?;
        }
    }
    let flows = flows(pins, request)?;
    let is_new = interfaces.iter().any(|interface| slot_of(&own, interface).is_none());
    store::refresh(&request.store, pins)?;
    let mut outcome = AttachOutcome::default();
    outcome.settings = prepare(pins, request, is_new, &mut outcome.undo)?;
    outcome.settings_changed = !outcome.settings.is_empty();
    // Behind all that may refuse, so that who is refused still hears from `status` which interface is not filtered. Before the
    // first new filter: with `clsact` the old one of its name has the same handle.
    let mut taken = match make_room(pins, interfaces, &own, dead) {
        Ok(taken) => taken,
        Err(error) => {
            outcome.undo.settings(pins).context("taking the settings back")?;
            return Err(error);
        }
    };
    // What counts open connections does so in one namespace, and that of a container that was started again is another.
    let mut counts_elsewhere = own.is_empty() && is_moved;
    let mut new = Vec::new();
    for interface in interfaces {
        if let Some((_, iface)) = slot_of(&own, interface) {
            let native = interface.xdp.is_some_and(|xdp| xdp.native);
            let name = interface.name.clone();
            outcome.interfaces.push(Attached {
                name,
                native,
                native_errno: iface.native_errno,
                new: false,
                blind: None,
            });
            continue;
        }
        let attached = free_slot(&taken, 0).and_then(|slot| {
            taken.push(slot);
            let mut loaded = Loaded::new(request.object, Some(pins), slot, flows)?;
            let attached = attach_one(pins, &mut loaded, slot, interface, request)?;
            new.push(slot);
            if std::mem::take(&mut counts_elsewhere) {
                let uncounted = counting::renew(&mut loaded, pins).err();
                outcome.uncounted = uncounted.map(|error| format!("{error:#}"));
            }
            Ok(attached)
        });
        match attached {
            Ok(attached) => outcome.interfaces.push(attached),
            Err(error) => {
                new.iter().try_for_each(|slot| free(pins, *slot))?;
                outcome.undo.settings(pins).context("taking the settings back")?;
                return Err(error);
            }
        }
    }
    outcome.note_new();
    Ok(outcome)
}

/// The slots of a guard that is attached.
struct Slots {
    /// Those whose interfaces are filtered.
    live: Vec<(u32, Iface)>,
    /// Those whose interfaces are no more, or were made anew.
    dead: Vec<(u32, Iface)>,
}

fn slots(pins: &Pins) -> Result<Slots> {
    let mut slots = Slots { live: Vec::new(), dead: Vec::new() };
    for (slot, iface) in own_slots(pins)? {
        let is_dead = presence(pins, slot, &iface)? == Presence::Gone;
        if is_dead { slots.dead.push((slot, iface)) } else { slots.live.push((slot, iface)) }
    }
    Ok(slots)
}

/// Makes room for interfaces, and gives the slots that stay taken. A dead slot stays, so that `status` can tell of it, until an
/// interface of its name is attached, or there is no other room.
fn make_room(
    pins: &Pins,
    interfaces: &[Interface],
    live: &[(u32, Iface)],
    dead: Vec<(u32, Iface)>,
) -> Result<Vec<u32>> {
    let anew = interfaces.iter().filter(|interface| slot_of(live, interface).is_none()).count();
    let room = (IFACE_SLOTS as usize).saturating_sub(live.len() + anew);
    let mut taken: Vec<u32> = live.iter().map(|(slot, _)| *slot).collect();
    for (slot, iface) in dead {
        let is_named = interfaces.iter().any(|interface| interface.name == iface_name(&iface));
        if is_named || taken.len() - live.len() >= room {
            free(pins, slot)?;
        } else {
            taken.push(slot);
        }
    }
    Ok(taken)
}

/// The first slot from one on that is not taken.
fn free_slot(taken: &[u32], from: u32) -> Result<u32> {
    let slot = (from..IFACE_SLOTS).find(|slot| !taken.contains(slot));
    slot.with_context(|| format!("all {IFACE_SLOTS} slots are taken: detach an interface first"))
}

/// How many connections are followed. Their map can't change while it is in use.
fn flows(pins: &Pins, request: &AttachRequest) -> Result<u32> {
    let map = MapInfo::from_pin(pins.map(names::FLOWS)).context("reading the size of the flow table")?;
    let in_force = map.max_entries();
    match request.flows {
        Some(desired) if desired != in_force => bail!(
            "the flow table has room for {in_force} connections; to change that: `sipguard detach --all`, then attach again"
        ),
        _ => Ok(in_force),
    }
}

/// Makes the maps below new pins, and fills those that all interfaces share and that say how to judge.
fn begin(new: &Pins, request: &AttachRequest) -> Result<Begun> {
    let begun = Begun::new(request.object, new, 0, request.flows.unwrap_or(DEFAULT_FLOWS))?;
    let desired = request.settings.of(&EffectiveSettings::default());
    let mut settings = Settings { hash_keys: secret()?, ..Settings::zeroed() };
    settings.grace_until_ns = grace_until(request)?;
    desired.put(&mut settings);
    maps::set_settings(new, settings)?;
    maps::set_ports(new, &desired.ports)?;
    let mut abi: Array<_, u32> = maps::open(new, names::ABI)?;
    abi.set(0, ABI_VERSION, 0).context("writing the ABI version")?;
    Layouts::of(request.object)?.write(new)?;
    Ok(begun)
}

/// Brings what the store and the configuration say, before the first packet is judged.
fn restore(pins: &Pins, request: &AttachRequest, undo: &mut Undo) -> Result<()> {
    store::restore(&request.store, pins, &mut |change| {
        let before = change.rows.configured_rows()?;
        config::apply(change, &request.config, None)?;
        undo.rows = ConfiguredRows::between(before, change.rows.configured_rows()?);
        Ok(())
    })
}

/// Changes the settings of a guard that is attached. Says which of mode, action, ports and limits changed.
/// Only a new interface brings connections that the guard has not followed, so only then there is a new grace.
fn prepare(pins: &Pins, request: &AttachRequest, is_new: bool, undo: &mut Undo) -> Result<Vec<String>> {
    let _edit = pins.edit()?;
    let before = EffectiveSettings::read(pins)?;
    let desired = request.settings.of(&before);
    let mut now = maps::settings(pins)?;
    let grace_before = now.grace_until_ns;
    if is_new {
        now.grace_until_ns = grace_until(request)?;
    }
    desired.put(&mut now);
    undo.settings = Some(((before.clone(), grace_before), (desired.clone(), now.grace_until_ns)));
    maps::set_settings(pins, now)?;
    if desired.ports != before.ports {
        maps::set_ports(pins, &desired.ports)?;
    }
    Ok(settings::changes(Some(&before), &desired))
}

/// When connections that are older than the guard must be at the beginning of a message (`CLOCK_BOOTTIME`, nanoseconds).
fn grace_until(request: &AttachRequest) -> Result<u64> {
    Ok(Clock::now()?.after(Some(request.grace.or(request.config.grace).unwrap_or(DEFAULT_GRACE))))
}

fn attach_one(
    pins: &Pins,
    loaded: &mut Loaded,
    slot: u32,
    interface: &Interface,
    request: &AttachRequest,
) -> Result<Attached> {
    let program = loaded.program()?;
    let mut native_errno = 0;
    let mut attempt = |mode| program.attach_to_if_index(interface.index, mode);
    let (link, native) = match request.native() {
        Some(false) => (attempt(XdpMode::Skb), false),
        Some(true) => (attempt(XdpMode::Driver), true),
        None => match attempt(XdpMode::Driver) {
            Err(error) if !is_busy(&error) => {
                native_errno = errno(&error).unwrap_or(0) as u32;
                (attempt(XdpMode::Skb), false)
            }
            link => (link, true),
        },
    };
    let link = link.map_err(|error| refused(interface, native, &error))?;
    // Written before the link is pinned, so that a pinned link always has its row.
    let mut ifaces: Ifaces = maps::open(pins, names::IFACES)?;
    let mut row = Iface {
        ifindex: interface.index,
        native_errno,
        attached_ns: Clock::now()?.boot_ns,
        generic_wanted: u32::from(request.native() == Some(false)),
        netns: kernel::netns().unwrap_or(0),
        ..Iface::zeroed()
    };
    row.name[..interface.name.len()].copy_from_slice(interface.name.as_bytes());
    ifaces.set(slot, Plain(row), 0).context("writing the interface's row")?;
    pins.remove_slot(slot)?;
    program.pin(pins.program(slot)).context("pinning the program")?;
    let link = program.take_link(link)?;
    let link = FdLink::try_from(link).map_err(|_| {
        Failure::with(
            FailureKind::Kernel,
            "this kernel has no BPF links for XDP: sipguard needs Linux 6.1 or newer",
        )
    })?;
    // Before the first packet is judged.
    let blind = match second_eye::attach(loaded, pins, slot, interface) {
        Ok(clsact) => {
            row.clsact = clsact;
            ifaces.set(slot, Plain(row), 0).context("writing the interface's row")?;
            None
        }
        Err(error) => Some(format!("{error:#}")),
    };
    link.pin(pins.link(slot)).context("pinning the link")?;
    Ok(Attached { name: interface.name.clone(), native, native_errno, new: true, blind })
}

fn refused(interface: &Interface, native: bool, error: &ProgramError) -> anyhow::Error {
    let mode = if native { "native" } else { "generic" };
    let errno =
        errno(error).map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned());
    let remedy =
        if native && !is_busy(error) { ". `--xdp-mode generic` works with every driver" } else { "" };
    Failure::with(
        FailureKind::Kernel,
        format!(
            "{} (driver {}, MTU {}) refuses XDP in {mode} mode: {errno}{remedy}",
            interface.name, interface.driver, interface.mtu
        ),
    )
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(errno(error), Some(libc_busy) if libc_busy == Errno::EBUSY as i32 || libc_busy == Errno::EEXIST as i32)
}

fn errno(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        cause = inner.source();
    }
    None
}

/// The slot of an interface: the same index and name, and a program on it. A link of an interface that is gone does not count.
fn slot_of(own: &[(u32, Iface)], interface: &Interface) -> Option<(u32, Iface)> {
    let same = |iface: &Iface| {
        iface.ifindex == interface.index && iface_name(iface) == interface.name && !is_elsewhere(iface)
    };
    own.iter().copied().find(|(_, iface)| same(iface)).filter(|_| interface.xdp.is_some())
}
