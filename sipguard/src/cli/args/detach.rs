//! `detach`.

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interfaces
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,

    /// Every interface, also of a sipguard of another version
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
}

impl Args {
    /// The interfaces; `None` is all.
    pub fn request(&self) -> Option<&[String]> {
        (!self.all).then_some(self.interfaces.as_slice())
    }
}
