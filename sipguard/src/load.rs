//! The XDP object: embedded here, loaded into the kernel with its maps taken from the pins.

use anyhow::{Context, Result};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use sipguard_common::abi::names;

use crate::counting;
use crate::error::{Failure, Status};
use crate::kernel::Offsets;
use crate::pins::Pins;

/// The XDP object, compiled from `sipguard-ebpf` when this crate was built.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sipguard.bpf.o"));

/// A loaded program with its maps.
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads the program for a slot. With `pins` its maps are those pinned there, made and pinned where they are missing;
    /// without, it has maps of its own, which end with it. `flows` is how many connections can be followed.
    ///
    /// # Errors
    /// [`Status::Kernel`] when the kernel refuses a map or the program.
    pub fn new(pins: Option<&Pins>, slot: u32, flows: u32) -> Result<Loaded> {
        let offsets = Offsets::of_running_kernel();
        // Where it is not known, connections are not told from those of other namespaces, and none is counted.
        let netns = counting::netns().unwrap_or(0);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(names::FLOWS, flows)
            .override_global("SLOT", &slot, true)
            .override_global("TCP_RCV_NXT", &offsets.tcp_rcv_nxt, true)
            .override_global("TCP_RECEIVED", &offsets.tcp_received, true)
            .override_global("REQ_RCV_NXT", &offsets.request_rcv_nxt, true)
            .override_global("REQ_SNT_ISN", &offsets.request_snt_isn, true)
            .override_global("SOCK_FAMILY", &offsets.sock_family, true)
            .override_global("SOCK_NET", &offsets.sock_net, true)
            .override_global("SOCK_V6_DADDR", &offsets.sock_v6_daddr, true)
            .override_global("NET_COOKIE", &offsets.net_cookie, true)
            .override_global("NETNS", &netns, true);
        if let Some(pins) = pins {
            for name in names::MAPS {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let ebpf = loader.load(OBJECT).map_err(|error| refused("making the maps", &error))?;
        let mut loaded = Loaded { ebpf };
        loaded.program()?.load().map_err(|error| refused("loading the XDP program", &verifier(error)))?;
        Ok(loaded)
    }

    /// The program.
    ///
    /// # Errors
    /// When the object holds none, which would be a fault of the build.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(names::PROGRAM).context("the XDP object holds no program")?;
        program.try_into().context("the XDP object's program is no XDP program")
    }

    /// The maps, for whoever runs the program without pins.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn refused(what: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text += ". sipguard needs Linux 6.1 or newer with BPF and BTF";
    Failure::with(Status::Kernel, text)
}

/// The verifier's log is thousands of lines; its end says what it did not like.
pub fn verifier(error: ProgramError) -> std::io::Error {
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
