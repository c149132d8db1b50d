//! For whom something is set.

use clap::ValueEnum;
use sipguard_core::check::CheckScope;
use sipguard_core::trunk;

/// For whom a check is switched: a trunk, devices, or everybody for whom nothing of their own is set.
#[derive(Debug, clap::Args)]
pub struct CheckScopeArgs {
    /// For this trunk alone, whatever is set for everybody
    #[arg(long, value_name = "NAME", value_parser = trunk::name, conflicts_with = "devices")]
    trunk: Option<String>,

    /// For devices alone (whoever is no trunk), whatever is set for everybody
    #[arg(long)]
    devices: bool,
}

/// For whom a limit is: a trunk, or devices.
#[derive(Debug, clap::Args)]
pub struct LimitScopeArgs {
    /// For this trunk: one limit for all its peers together
    #[arg(long, value_name = "NAME", value_parser = trunk::name, conflicts_with = "devices")]
    trunk: Option<String>,

    /// For devices (whoever is no trunk): each source has the limit by itself. That is what is meant without an option
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

impl CheckScopeArgs {
    /// Whom it names.
    pub fn scope(self) -> CheckScope {
        match self.trunk {
            Some(name) => CheckScope::Trunk(name),
            None if self.devices => CheckScope::Devices,
            None => CheckScope::Everybody,
        }
    }
}

impl LimitScopeArgs {
    /// The trunk; none for devices.
    pub fn trunk(&self) -> Option<&str> {
        self.trunk.as_deref()
    }
}
