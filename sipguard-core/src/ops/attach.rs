//! `attach`: the guard is put on interfaces, with the rules of the store and the settings of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use super::overview::KeptRules;
use super::{Context, config, overview, ports, trail};
pub use crate::attach::Attached;
use crate::attach::{self, AttachOutcome, AttachRequest};
use crate::config::{Config, Invalid, LastGood, LoadedConfig, Sources, last_good};
use crate::container;
use crate::error::{Failure, FailureKind};
use crate::link;
use crate::maps;
use crate::notice::Notice;
use crate::settings::{SettingsRequest, XdpChoice};
use crate::status;
use crate::store::Counts;
use crate::undo::Undo;

const NOTHING: &str = "nothing was attached";

/// What is asked of `attach`; `None` leaves it to what is in force, then to the configuration, then to the defaults.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The interfaces; none are those of the configuration.
    pub interfaces: Vec<String>,
    /// Native or generic XDP.
    pub xdp: Option<XdpChoice>,
    /// Mode, ports, limits and checks.
    pub settings: SettingsRequest,
    /// Most connections that are followed.
    pub flows: Option<u32>,
    /// How long connections older than the guard may be in the middle of a message.
    pub grace: Option<Duration>,
    /// Guards ports of SSH and of other protocols as well.
    pub force: bool,
    /// Takes the configuration that was applied last where the present one is invalid.
    pub or_last_good: bool,
    /// The configuration file; `None` is the default one.
    pub config: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Each interface once, in the order in which they were named.
    pub interfaces: Vec<Attached>,
    /// The mode that is in force: `enforce` or `monitor`.
    pub mode: &'static str,
    /// Whether mode, action, ports or limits are others than before.
    pub settings_changed: bool,
    /// Each setting that changed, with what it was and is.
    pub settings: Vec<String>,
    /// What the store brought back into force; `None` where it was in force before, or there is no store.
    pub restored: Option<KeptRules>,
    /// What is to be told beside it.
    pub notices: Vec<Notice>,
    first: bool,
    undo: Undo,
    sources: Sources,
    /// What is wrong with the present configuration, and when the one was applied that was taken.
    mistake: Option<(Invalid, String)>,
}

/// Attaches the programs of an object, an ELF file, to all of the interfaces or to none.
///
/// # Errors
/// When the configuration is invalid, no interface is named, a port is occupied, or the kernel refuses; see [`FailureKind`].
pub fn run(host: &Context, object: &'static [u8], request: &Request) -> Result<Outcome> {
    let (LoadedConfig { config, sources, .. }, mistake) = configuration(host, request)?;
    // Those of the configuration are the host's.
    let names = match (request.interfaces.as_slice(), container::chosen()) {
        ([], Some(_)) => vec![link::only()?.name],
        ([], None) => config.interfaces.clone(),
        (named, _) => named.to_vec(),
    };
    if names.is_empty() {
        let text = "attach to what? Name an interface, or `interfaces` in [guard] of the configuration file; `ip link` lists those that there are";
        return Err(Failure::with(FailureKind::Usage, text));
    }
    if !request.force && !config.force_ports {
        refuse_ports(host, request, &config)?;
    }
    let wish = AttachRequest {
        xdp: request.xdp,
        settings: request.settings.clone(),
        flows: request.flows,
        grace: request.grace,
        config,
        store: host.store.clone(),
        object,
    };
    let done = attach::attach(&host.pins, &names, &wish)?;
    let mut notices = weaknesses(host, &done);
    notices.extend(record(host, &done));
    let mode = status::mode(&maps::settings(&host.pins)?);
    // It filters, whether the store can be read again or not.
    let restored = if done.first { overview::kept_rules(host).ok().flatten() } else { None };
    Ok(Outcome {
        restored,
        interfaces: done.interfaces,
        mode,
        settings_changed: done.settings_changed,
        settings: done.settings,
        notices,
        first: done.first,
        undo: done.undo,
        sources,
        mistake,
    })
}

/// The configuration to attach with; with the mistakes of the present one where it is the last good one.
fn configuration(host: &Context, request: &Request) -> Result<(LoadedConfig, Option<(Invalid, String)>)> {
    let file = request.config.as_deref();
    if !request.or_last_good {
        return Ok((config::read(file, NOTHING)?, None));
    }
    let invalid = match config::check(file) {
        Ok(loaded) => {
            config::warn(&loaded);
            return Ok((loaded, None));
        }
        Err(invalid) => invalid,
    };
    match last_good::load(&host.store) {
        Ok(LastGood { loaded, applied }) => Ok((loaded, Some((invalid, applied)))),
        Err(error) => Err(config::refused(&invalid, &format!("{NOTHING}, for {error:#}"))),
    }
}

/// A port whose connections the guard would reset is no slip that an operator can fix over SSH.
fn refuse_ports(host: &Context, request: &Request, config: &Config) -> Result<()> {
    let in_force = ports::in_force(host)?;
    let wanted = match in_force {
        Some(_) => request.settings.clone(),
        None => request.settings.or(&config.settings),
    };
    let remedy = "nothing was attached; `--force` guards it all the same, or `force-ports = true` in [guard] of the configuration file";
    ports::refuse_occupied(in_force.as_ref(), &wanted, remedy)
}

fn weaknesses(host: &Context, done: &AttachOutcome) -> Vec<Notice> {
    let notice = |weakness: &status::Weakness| {
        let why = done.uncounted.as_ref().filter(|_| weakness.what == "open-connections");
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        Notice(format!("weaker than it could be: {}{why}", weakness.text))
    };
    status::weaknesses(&host.pins).iter().map(notice).collect()
}

/// Who attached to what, and which settings came with it.
fn record(host: &Context, done: &AttachOutcome) -> Option<Notice> {
    let new: Vec<&Attached> = done.interfaces.iter().filter(|one| one.new).collect();
    let mut what: Vec<String> = new.iter().map(|one| format!("{} {}", one.name, one.xdp_mode())).collect();
    what.extend(done.settings.iter().cloned());
    if what.is_empty() {
        return None;
    }
    let counts = Counts { added: new.len(), moved: done.settings.len(), ..Counts::default() };
    let entry = trail::Entry { verb: "attach", what: &what, reason: "", counts };
    trail::write(host, "attached as asked", &entry)
}

impl Attached {
    /// `native` or `generic`.
    #[must_use]
    pub fn xdp_mode(&self) -> &'static str {
        if self.native { "native" } else { "generic" }
    }
}

impl Outcome {
    /// It stays: the configuration that was applied at a first attach is kept.
    ///
    /// # Errors
    /// [`FailureKind::LastGood`] where it is done, but with the last good configuration instead of an invalid one.
    pub fn keep(&self, host: &Context) -> Result<Option<Notice>> {
        match &self.mistake {
            None if self.first => Ok(config::keep(host, &self.sources)),
            None => Ok(None),
            Some((invalid, applied)) => {
                let outcome = format!("attached with the last good one, which was applied on {applied}");
                Err(Failure::with(FailureKind::LastGood, config::complaint(invalid, &outcome)))
            }
        }
    }

    /// Takes all of it back, because nobody confirmed it. What that was, and a notice when the log can't tell of it.
    ///
    /// # Errors
    /// When the kernel or the store refuses; what can be is taken back all the same.
    pub fn take_back(&self, host: &Context) -> Result<(String, Option<Notice>)> {
        let did = self.undo.take_back(&host.pins, &host.store);
        let did = did.context("not confirmed, and it could not be taken back as a whole")?;
        let counts = Counts { removed: self.undo.new.len(), moved: 1, ..Counts::default() };
        let what = std::slice::from_ref(&did);
        let entry = trail::Entry { verb: "attach", what, reason: "not confirmed", counts };
        let notice = trail::write(host, &did, &entry);
        Ok((did, notice))
    }
}
