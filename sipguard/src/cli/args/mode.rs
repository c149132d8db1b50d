//! `mode`.

use sipguard_core::settings::Mode;
use sipguard_core::trunk;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The mode; without one the mode in force is shown
    #[arg(value_enum)]
    pub mode: Option<Mode>,

    /// The mode of this trunk, whatever the guard's is; `trunk set --mode inherit` takes it back
    #[arg(long, value_name = "NAME", value_parser = trunk::name, requires = "mode")]
    trunk: Option<String>,
}

impl Args {
    /// The trunk and its mode, where it is about one.
    pub fn of_trunk(&self) -> Option<(&str, trunk::TrunkMode)> {
        let mode = match self.mode? {
            Mode::Enforce => trunk::TrunkMode::Enforce,
            Mode::Monitor => trunk::TrunkMode::Monitor,
        };
        Some((self.trunk.as_deref()?, mode))
    }
}
