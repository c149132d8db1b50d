//! `reload`.

use sipguard_core::ops::reload::Request;

use super::config::ConfigArgs;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub fn request(self) -> Request {
        Request { config: self.config.file, dry_run: self.dry_run }
    }
}
