//! `sipguard status [IFACE]`

use anyhow::Result;
use serde_json::json;

use crate::error::{Failure, Status};
use crate::output::{Format, object, table};
use crate::pins::Pins;
use crate::status::{self, InterfaceStatus, Report};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this interface
    #[arg(value_name = "IFACE")]
    interface: Option<String>,
}

pub fn run(pins: &Pins, format: Format, args: &Args) -> Result<()> {
    pins.exist_or_fail()?;
    let _lock = pins.lock(false)?;
    pins.check()?;
    let mut report = status::read(pins)?;
    if let Some(name) = &args.interface {
        report.interfaces.retain(|interface| interface.name == *name);
        if report.interfaces.is_empty() {
            return Err(Failure::with(Status::NotAttached, format!("sipguard is not attached to `{name}`")));
        }
    }
    object(format, "sipguard.status/1", json_of(&report), || text(&report))
}

fn json_of(report: &Report) -> serde_json::Value {
    let interface = |one: &InterfaceStatus| {
        json!({
            "interface": one.name, "driver": one.driver, "mode": one.mode, "why": one.why,
            "program_id": one.program_id, "since": one.since.map(|since| since.to_string()),
        })
    };
    json!({
        "interfaces": report.interfaces.iter().map(interface).collect::<Vec<_>>(),
        "mode": report.mode, "on_malformed": report.action, "ports": report.ports,
        "blocks": report.blocks, "connections": report.connections,
    })
}

fn text(report: &Report) -> String {
    let ports: Vec<String> = report.ports.iter().map(u16::to_string).collect();
    let head = format!(
        "mode {}, malformed streams: {}, guarded ports: {}, blocks: {}, connections followed: {}\n\n",
        report.mode,
        report.action,
        ports.join(" "),
        report.blocks,
        report.connections
    );
    let rows = report.interfaces.iter().map(|one| {
        let since = one.since.map(|since| since.to_string()).unwrap_or_default();
        vec![one.name.clone(), one.driver.clone(), one.mode.to_owned(), one.why.clone(), since]
    });
    head + &table(&["INTERFACE", "DRIVER", "XDP", "WHY", "SINCE"], rows)
}
