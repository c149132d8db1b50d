//! `replay`: what would be stopped of a capture. Touches no interface and no pin.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sipguard_core::config::{self, Config};
use sipguard_core::ops::Context;
use sipguard_core::settings::{EffectiveSettings, SettingsRequest};
use sipguard_core::store::dry_run;

use crate::ReplayRequest;
use crate::report::ReplayReport;
use crate::run::Replayer;

/// With what captures are replayed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Addresses of the PBX; none are those that the capture names, or a guess.
    pub pbx: Vec<IpAddr>,
    /// This configuration file; `None` is the built-in defaults.
    pub config: Option<PathBuf>,
    /// The rules of the store as well.
    pub with_store: bool,
    /// Whether the line at fault of each malformed message is looked for.
    pub explain: bool,
    /// Ports, profile, limits and checks, before those of the file.
    pub settings: SettingsRequest,
    /// Most connections that are followed.
    pub flows: u32,
}

/// A guard for captures.
pub struct Replay(Replayer);

impl Replay {
    /// Prepares it, with the programs of an object, an ELF file.
    ///
    /// # Errors
    /// When the configuration is invalid, the store can't be read, or the kernel refuses the program.
    pub fn begin(host: &Context, object: &[u8], request: Request) -> Result<Replay> {
        let config = match &request.config {
            Some(file) => sipguard_core::ops::config::read(Some(file), "nothing was replayed")?.config,
            None => Config::default(),
        };
        let settings = request.settings.or(&config.settings).of(&EffectiveSettings::default());
        let store = request.with_store.then_some(host.store.as_path());
        let rules = dry_run(store, |change| config::apply(change, &config, None).map(drop))?;
        let Request { pbx, flows, explain, .. } = request;
        Ok(Replay(Replayer::load(object, ReplayRequest { pbx, flows, settings, rules, explain })?))
    }

    /// Replays a capture. `progress` is told how many bytes of it are read.
    ///
    /// # Errors
    /// When the kernel can't run the program.
    pub fn run(&mut self, file: &Path, progress: &dyn Fn(u64)) -> Result<ReplayReport> {
        self.0.replay(file, progress)
    }
}
