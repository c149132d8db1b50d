//! For whom something is set.

use clap::ValueEnum;
use sipguard_core::check::CheckScope;
use sipguard_core::trunk;

/// For whom: a trunk, devices, or whom the verb means without a word.
#[derive(Debug, clap::Args)]
pub struct ScopeArgs {
    /// For this trunk alone, all its peers together, whatever is set for everybody
    #[arg(long, value_name = "NAME", value_parser = trunk::name, conflicts_with = "devices")]
    trunk: Option<String>,

    /// For devices alone (whoever is no trunk), whatever is set for everybody; what `limit` means without a word
    #[arg(long)]
    devices: bool,
}

/// What `--trunk` and `--devices` were called by the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Per {
    /// Devices
    Source,
    /// A trunk, whose name comes without an option
    Trunk,
}

impl ScopeArgs {
    /// Whom it names; `None` where it names nobody.
    pub fn scope(self) -> Option<CheckScope> {
        match self.trunk {
            Some(name) => Some(CheckScope::Trunk(name)),
            None => self.devices.then_some(CheckScope::Devices),
        }
    }

    /// Of what can be set for devices or for a trunk: the trunk.
    pub fn trunk(&self) -> Option<&str> {
        self.trunk.as_deref()
    }
}
