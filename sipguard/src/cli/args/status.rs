//! `status`.

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this interface
    #[arg(value_name = "IFACE")]
    pub interface: Option<String>,
}
