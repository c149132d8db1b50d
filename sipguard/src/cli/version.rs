//! `sipguard version`

use anyhow::Result;
use serde::Serialize;
use sipguard_common::abi::ABI_VERSION;

use super::printer::{Format, object};

/// The version of the program, and the ABI version of the pins.
#[derive(Serialize)]
struct VersionDocument {
    version: &'static str,
    abi: u32,
}

pub fn run(format: Format) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    object(format, "sipguard.version/1", &VersionDocument { version, abi: ABI_VERSION }, || {
        format!("sipguard {version} (ABI {ABI_VERSION})\n")
    })
}
