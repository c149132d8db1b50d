//! The XDP object, loaded into the kernel with its maps taken from the pins. `object` is always the ELF file.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::libc::ENOMEM;
use sipguard_common::abi::names;

use crate::error::{Failure, FailureKind};
use crate::kernel::{self, Offsets};
use crate::maps::MapDir;
use crate::pins::Pins;

/// Maps whose program is not loaded yet: the kernel takes its time to look at it.
pub struct Begun {
    ebpf: Ebpf,
}

/// A loaded program with its maps.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Begun {
    /// Makes the maps for a slot, pinned below `pins` or taken from there. `flows` is how many connections can be followed.
    ///
    /// # Errors
    /// [`FailureKind::Kernel`] when the kernel refuses a map.
    pub fn new(object: &[u8], pins: &Pins, slot: u32, flows: u32) -> Result<Begun> {
        Begun::with(object, Some(pins), slot, flows, false)
    }

    fn with(object: &[u8], pins: Option<&Pins>, slot: u32, flows: u32, replay: bool) -> Result<Begun> {
        let offsets = Offsets::of_running_kernel();
        // Where it is not known, connections are not told from those of other namespaces, and none is counted.
        let netns = kernel::netns().unwrap_or(0);
        let replay_flag = u32::from(replay);
        let mut loader = EbpfLoader::new();
        if replay {
            loader.map_max_entries(names::HANDSHAKES, flows);
        }
        loader
            .map_max_entries(names::FLOWS, flows)
            .override_global("SLOT", &slot, true)
            .override_global("REPLAY", &replay_flag, true)
            .override_global("TCP_RCV_NXT", &offsets.tcp_rcv_nxt, true)
            .override_global("TCP_RECEIVED", &offsets.tcp_received, true)
            .override_global("REQ_RCV_NXT", &offsets.request_rcv_nxt, true)
            .override_global("REQ_SNT_ISN", &offsets.request_snt_isn, true)
            .override_global("SOCK_FAMILY", &offsets.sock_family, true)
            .override_global("SOCK_NET", &offsets.sock_net, true)
            .override_global("SOCK_V6_DADDR", &offsets.sock_v6_daddr, true)
            .override_global("SOCK_V6_RCV_SADDR", &offsets.sock_v6_rcv_saddr, true)
            .override_global("INET_SPORT", &offsets.inet_sport, true)
            .override_global("NET_COOKIE", &offsets.net_cookie, true)
            .override_global("NETNS", &netns, true);
        if let Some(pins) = pins {
            for name in names::pinned() {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let ebpf = loader.load(object).map_err(|error| refused("making the maps", &error))?;
        Ok(Begun { ebpf })
    }

    /// Loads the program.
    ///
    /// # Errors
    /// [`FailureKind::Kernel`] when the kernel refuses it.
    pub fn load(self) -> Result<Loaded> {
        let mut loaded = Loaded { ebpf: self.ebpf };
        loaded.program()?.load().map_err(|error| refused("loading the XDP program", &verifier(error)))?;
        Ok(loaded)
    }
}

impl Loaded {
    /// Loads the program for a slot. With `pins` its maps are those pinned there, made and pinned where they are missing;
    /// without, it has maps of its own, which end with it. `flows` is how many connections can be followed.
    ///
    /// # Errors
    /// [`FailureKind::Kernel`] when the kernel refuses a map or the program.
    pub fn new(object: &[u8], pins: Option<&Pins>, slot: u32, flows: u32) -> Result<Loaded> {
        Begun::with(object, pins, slot, flows, false)?.load()
    }

    /// Loads the program for a replay of captures, with maps of its own: it asks no socket of this machine, and returns
    /// [`sipguard_common::abi::ReplayVerdict`]. Handshakes are remembered for as many connections as can be followed.
    ///
    /// # Errors
    /// As [`Loaded::new`].
    pub fn for_replay(object: &[u8], flows: u32) -> Result<Loaded> {
        Begun::with(object, None, 0, flows, true)?.load()
    }

    /// The program.
    ///
    /// # Errors
    /// When the object holds none, which would be a fault of the build.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(names::PROGRAM).context("the XDP object holds no program")?;
        program.try_into().context("the XDP object's program is no XDP program")
    }

    /// The program that sees what the PBX sends, loaded.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn second_eye(&mut self) -> Result<&mut SchedClassifier> {
        let program =
            self.ebpf.program_mut(names::EGRESS_PROGRAM).context("the object holds no second program")?;
        let program: &mut SchedClassifier =
            program.try_into().context("the object's second program is no classifier")?;
        if program.fd().is_err() {
            program.load().map_err(verifier)?;
        }
        Ok(program)
    }

    /// The maps, for whoever runs the program without pins.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

impl MapDir for Loaded {
    fn data(&self, name: &str) -> Result<MapData> {
        let map = self.ebpf.map(name).with_context(|| format!("the XDP object has no map {name}"))?;
        let fd = match map {
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data)
            | Map::PerCpuArray(data) => data.fd().as_fd().try_clone_to_owned(),
            _ => bail!("the map {name} is of no kind that sipguard has"),
        };
        MapData::from_fd(fd.context("another descriptor of a map")?)
            .with_context(|| format!("opening {name}"))
    }
}

fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text += if is_memory(error) {
        ". The maps need more memory than the kernel gives: raise `MemoryMax=` of the unit or `memory.max` of the cgroup, free some, or follow fewer \
         connections (`--flows`)"
    } else {
        ". sipguard needs Linux 6.1 or newer with BPF and BTF"
    };
    Failure::with(FailureKind::Kernel, text)
}

/// Whether the kernel had no memory.
fn is_memory(error: &(dyn std::error::Error + 'static)) -> bool {
    let is = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) == Some(ENOMEM)
    };
    std::iter::successors(Some(error), |error| error.source()).any(is)
}

/// The verifier's log is thousands of lines; its end says what it did not like.
pub(crate) fn verifier(error: ProgramError) -> std::io::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            std::io::Error::new(io_error.kind(), format!("{io_error} ({})", last.join(" | ")))
        }
        other => std::io::Error::other(other.to_string()),
    }
}
