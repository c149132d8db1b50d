//! `sipguard list`

use anyhow::Result;
use serde_json::json;

use super::lookup::{json_of, remaining};
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::output::{Format, rows, table};
use crate::pins::Pins;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list
    #[arg(value_parser = ["block"], default_value = "block")]
    what: String,
}

pub fn run(pins: &Pins, format: Format, args: &Args) -> Result<()> {
    debug_assert_eq!(args.what, "block");
    pins.exist_or_fail()?;
    let _lock = pins.lock(false)?;
    pins.check()?;
    let clock = Clock::now()?;
    let blocks = Blocks::open(pins)?.list(&clock)?;
    let values = blocks.iter().map(|(source, block)| json!(json_of(source, block, &clock))).collect();
    rows(format, "sipguard.blocks/1", values, || {
        let head = ["SOURCE", "ENDS", "PACKETS", "BYTES"];
        table(
            &head,
            blocks.iter().map(|(source, block)| {
                let ends = remaining(block, &clock);
                vec![source.to_string(), ends, block.packets.to_string(), block.bytes.to_string()]
            }),
        )
    })
}
