//! `import` and `export`.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::import::{Form, Request, shown};
use sipguard_core::ops::parse_origin;

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The list; `-` is standard input
    #[arg(value_name = "FILE|-")]
    file: String,

    /// Its form [default: as its name or its beginning tells]
    #[arg(long, value_enum)]
    format: Option<Form>,

    /// Who sets the rules [default: who the list says, or else import:NAME with the file's name]
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,

    /// For how long, where the list does not say: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Also lift what this origin set before and is not in the list any more; an empty list is refused
    #[arg(long)]
    replace: bool,

    /// Take blocks of prefixes shorter than /8 (IPv6: /16) as well; what holds an own address, a gateway or the peer of an SSH session is
    /// skipped all the same
    #[arg(long)]
    force: bool,
}

impl ImportArgs {
    pub fn request(self) -> Result<Request> {
        let ImportArgs { file, format: form, origin, span, replace, force } = self;
        let mut bytes = Vec::new();
        if file == "-" {
            std::io::stdin().read_to_end(&mut bytes).context("reading standard input")?;
        } else {
            bytes = std::fs::read(&file).with_context(|| format!("reading {}", shown(&file)))?;
        }
        Ok(Request { file, bytes, form, origin, lasts: span.0, replace, force })
    }
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The form; only json and csv have all that a rule has
    #[arg(long, value_enum, default_value = "json")]
    pub format: Form,

    /// Only what this origin set
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    pub origin: Option<String>,
}
