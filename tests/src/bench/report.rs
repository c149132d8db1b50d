//! The medians as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};
use sipguard_common::Reason;

use super::{leaving::Leaving, machine::Machine, rules::Rules, shares::Shares};

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    pub machine: Machine,
    /// What xdp-filter it was.
    pub filter: String,
    pub rounds: u32,
    pub repeat: u32,
    pub rows: Vec<Medians>,
    /// `None` when only some rows were asked for.
    pub rest: Option<Rest>,
}

/// What is measured beside the rows.
#[derive(Debug)]
pub struct Rest {
    /// What the PBX sends.
    pub leaving: Leaving,
    /// The dearest payloads.
    pub shares: Shares,
    /// The same packets with few rules and with many.
    pub rules: Rules,
}

/// One frame. Times are nanoseconds a run.
#[derive(Debug)]
pub struct Medians {
    pub name: &'static str,
    pub frame_bytes: usize,
    pub payload_bytes: usize,
    pub reason: Reason,
    pub drop_all: u32,
    pub filter: u32,
    /// sipguard behind the stepper, if there is one.
    pub as_run: u32,
    /// The stepper alone: in front of `XDP_DROP`, less `XDP_DROP`. 0 without one.
    pub stepping: u32,
    /// How many times xdp-filter's time it may take.
    pub target: Option<f64>,
}

impl Medians {
    /// sipguard alone.
    fn sipguard(&self) -> u32 {
        self.as_run.saturating_sub(self.stepping)
    }

    fn against_drop(&self) -> f64 {
        ratio(self.sipguard(), self.drop_all)
    }

    fn against_filter(&self) -> f64 {
        ratio(self.sipguard(), self.filter)
    }

    fn judgement(&self) -> String {
        let Some(target) = self.target else { return "-".to_owned() };
        let excess = f64::from(self.sipguard()) - target * f64::from(self.filter);
        if excess <= 0.0 {
            format!("<= {target} x: reached")
        } else {
            format!("<= {target} x: missed by {excess:.0} ns ({:.1} x)", self.against_filter() - target)
        }
    }

    fn json(&self) -> Value {
        json!({
            "frame": self.name,
            "frame_bytes": self.frame_bytes,
            "payload_bytes": self.payload_bytes,
            "reason": self.reason.name(),
            "xdp_drop_ns": self.drop_all,
            "xdp_filter_ns": self.filter,
            "as_run_ns": self.as_run,
            "stepping_ns": self.stepping,
            "sipguard_ns": self.sipguard(),
            "against_xdp_drop": self.against_drop(),
            "against_xdp_filter": self.against_filter(),
            "target_against_xdp_filter": self.target,
            "target_reached": self.target.map(|target| self.against_filter() <= target),
        })
    }
}

impl Report {
    /// The whole report.
    pub fn json(&self) -> Value {
        json!({
            "kernel": self.machine.kernel,
            "cpu": self.machine.cpu,
            "cpus": self.machine.cpus,
            "jit": self.machine.jit,
            "mitigations": self.machine.mitigations,
            "xdp_filter": self.filter,
            "rounds": self.rounds,
            "repeat": self.repeat,
            "rows": self.rows.iter().map(Medians::json).collect::<Vec<_>>(),
            "leaving": self.rest.as_ref().map(|rest| rest.leaving.json()),
            "shares": self.rest.as_ref().map(|rest| rest.shares.json()),
            "rules": self.rest.as_ref().map(|rest| rest.rules.json()),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { kernel, cpu, cpus, jit, mitigations } = &self.machine;
        writeln!(f, "kernel      {kernel}, JIT {}", if *jit { "on" } else { "OFF" })?;
        writeln!(f, "CPU         {cpus} x {cpu}")?;
        for mitigation in mitigations {
            writeln!(f, "            {mitigation}")?;
        }
        writeln!(f, "xdp-filter  {}; one source address and one destination port denied", self.filter)?;
        writeln!(f, "measured    medians of {} rounds of {} runs, whole ns a run", self.rounds, self.repeat)?;
        writeln!(f)?;
        let titles = [
            "bytes: frame",
            "payload",
            "counted as",
            "XDP_DROP",
            "xdp-filter",
            "as run",
            "stepping",
            "sipguard",
            "x DROP",
            "x filter",
        ];
        let mut table = vec![titles.map(str::to_owned)];
        table.extend(self.rows.iter().map(|row| {
            [
                row.frame_bytes.to_string(),
                row.payload_bytes.to_string(),
                row.reason.name().to_owned(),
                row.drop_all.to_string(),
                row.filter.to_string(),
                row.as_run.to_string(),
                row.stepping.to_string(),
                row.sipguard().to_string(),
                format!("{:.1}", row.against_drop()),
                format!("{:.1}", row.against_filter()),
            ]
        }));
        let mut widths = [0; 10];
        for line in &table {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.len().max(*width);
            }
        }
        let names = self.rows.iter().map(|row| row.name.to_owned());
        let targets = self.rows.iter().map(Medians::judgement);
        let names = ["frame".to_owned()].into_iter().chain(names);
        let targets = ["target (x filter)".to_owned()].into_iter().chain(targets);
        for ((line, name), target) in table.iter().zip(names).zip(targets) {
            write!(f, "{name:<24}")?;
            for (width, cell) in widths.iter().zip(line) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f, "  {target}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "A repeated TCP segment would be a retransmission. So a stepper moves the frame on before each run and"
        )?;
        writeln!(
            f,
            "calls sipguard; its cost (stepping) was measured in front of XDP_DROP and is taken off:"
        )?;
        writeln!(f, "sipguard = as run - stepping. Every run of sipguard was counted as the table says.")?;
        match &self.rest {
            Some(Rest { leaving, shares, rules }) => write!(f, "{shares}{leaving}{rules}"),
            None => Ok(()),
        }
    }
}

fn ratio(ns: u32, of: u32) -> f64 {
    f64::from(ns) / f64::from(of.max(1))
}
