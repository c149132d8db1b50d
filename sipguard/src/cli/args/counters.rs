//! `counters`.

use clap::ValueEnum;
use sipguard_core::ops::counters::TalliedKind;
use sipguard_observe::metrics::{Form, Request};

use crate::cli::printer::Format;

/// What the rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Interface and reason
    #[default]
    Reason,
    /// Who sent what was malformed, by address: how much, who it says it is, the line at fault, and how to block it
    Source,
    /// Trunk and reason
    Trunk,
}

/// Forms of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CounterFormat {
    /// For people
    Table,
    /// One JSON object
    Json,
    /// Text for Prometheus, in its older form, 0.0.4: also for a textfile directory of node_exporter
    Prometheus,
    /// Text for Prometheus, as OpenMetrics 1.0
    #[value(name = "openmetrics")]
    OpenMetrics,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the rows are
    #[arg(long, value_enum, default_value_t)]
    pub by: By,

    /// What comes in a second, measured over about one, instead of all since the attach
    #[arg(long, conflicts_with = "by")]
    pub rate: bool,

    /// With `--by source`: who sends how much, also below every limit, the most of this kind in the last 10 s first: messages,
    /// register, invite or connections
    #[arg(long, value_name = "KIND", conflicts_with = "rate")]
    pub of: Option<TalliedKind>,

    /// With `--by source`: a row for each port and reason, instead of one for each address
    #[arg(long, conflicts_with_all = ["rate", "of"])]
    pub ports: bool,

    /// How to print; instead of `--output`
    #[arg(long, value_enum, conflicts_with_all = ["output", "json"])]
    format: Option<CounterFormat>,

    /// For Prometheus: also the reasons that did not occur
    #[arg(long, requires = "format")]
    pub all: bool,
}

impl Args {
    /// How to print, where `output` is said for all verbs; the error is what Prometheus wants.
    pub fn format(&self, output: Format) -> Result<Format, Request> {
        let request = |form| Err(Request { form, all: self.all });
        match self.format {
            Some(CounterFormat::Prometheus) => request(Form::Plain),
            Some(CounterFormat::OpenMetrics) => request(Form::OpenMetrics),
            Some(CounterFormat::Json) => Ok(Format::Json),
            Some(CounterFormat::Table) => Ok(Format::Table),
            None => Ok(output),
        }
    }
}
