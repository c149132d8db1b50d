//! `serve`.

use anyhow::{Context as _, Result};
use nix::unistd::gethostname;
use sipguard_core::ops::config;
use sipguard_core::service::{Keep, Listen, Options};

use super::config::ConfigArgs;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to answer HTTP; whoever gets there can read what is counted and who is blocked [default: 127.0.0.1:9506]
    #[arg(long, value_name = "ADDR:PORT", env = "SIPGUARD_LISTEN", hide_env_values = true, value_parser = Listen::parse)]
    listen: Option<Listen>,

    /// File of the history, or none [default: /var/lib/sipguard/history.db]
    #[arg(long, value_name = "FILE|none", env = "SIPGUARD_HISTORY", hide_env_values = true, value_parser = Keep::parse)]
    history: Option<Keep>,

    /// Directory of the evidence, or none [default: /var/lib/sipguard/evidence]
    #[arg(long, value_name = "DIR|none", env = "SIPGUARD_EVIDENCE", hide_env_values = true, value_parser = Keep::parse)]
    evidence: Option<Keep>,

    #[command(flatten)]
    config: ConfigArgs,
}

impl Args {
    pub fn request(self) -> Result<Options> {
        let config = config::read(self.config.file.as_deref(), "nothing is served")?.config.serve;
        let node = gethostname().context("asking for the name of this host")?;
        let node = node.to_string_lossy().into_owned();
        Ok(config.options(self.listen, self.history, self.evidence, node))
    }
}
