//! `sipguard version`

use anyhow::Result;
use serde_json::json;
use sipguard_common::abi::ABI_VERSION;

use crate::output::{Format, object};

pub fn run(format: Format) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    object(format, "sipguard.version/1", json!({ "version": version, "abi": ABI_VERSION }), || {
        format!("sipguard {version} (ABI {ABI_VERSION})\n")
    })
}
