//! `sipguard detach IFACE...|--all`

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::trail;
use crate::detach;
use crate::output::{Format, rows};
use crate::pins::Pins;
use crate::store::{self, Counts};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interfaces
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    interfaces: Vec<String>,

    /// Every interface, also of a sipguard of another version
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    if pins.are_attached() && pins.check().is_ok() {
        // The bans go with the maps. Whatever is wrong with the store, it must not keep the guard attached.
        if let Err(error) = store::change(path, pins, |_| Ok(())) {
            eprintln!("sipguard: the bans in force are not kept: {error:#}");
        }
    }
    let names = (!args.all).then_some(args.interfaces.as_slice());
    let gone = detach::detach(pins, names)?;
    let counts = Counts { removed: gone.len(), ..Counts::default() };
    trail::tell(path, &format!("detached from {}", gone.join(", ")), "detach", &gone, "", counts);
    let values = gone.iter().map(|name| json!({ "interface": name, "changed": true })).collect();
    rows(format, "sipguard.detach/1", values, || {
        gone.iter().map(|name| format!("{name}: detached\n")).collect()
    })
}
