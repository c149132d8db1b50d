//! `list` and `log`.

use anyhow::Result;
use clap::ValueEnum;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::list::{Kind, Request};
use sipguard_core::ops::{RuleVerb, parse_origin};

use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list: blocks, allowances, bans, or what is denied [default: all but what is denied]
    #[arg(value_enum)]
    what: Option<What>,

    /// Only what this origin set
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,

    /// Only what ends within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expiring: Option<Span>,

    /// So many rules at the most, or `all`; of more only their number is shown
    #[arg(long, value_name = "COUNT|all", default_value = "1000", value_parser = parse_most)]
    limit: Most,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Block,
    Allow,
    Ban,
    Deny,
}

/// How many rules are listed; `None` is all.
#[derive(Clone, Copy, Debug)]
struct Most(Option<usize>);

fn parse_most(text: &str) -> Result<Most, String> {
    match text {
        "all" => Ok(Most(None)),
        _ => text.parse().map(|most| Most(Some(most))).map_err(|_| "write a number, or `all`".to_owned()),
    }
}

impl Args {
    /// `None` asks for what is denied.
    pub fn request(self) -> Result<Option<Request>> {
        let kind = match self.what {
            None => None,
            Some(What::Block) => Some(Kind::Rule(RuleVerb::Block)),
            Some(What::Allow) => Some(Kind::Rule(RuleVerb::Allow)),
            Some(What::Ban) => Some(Kind::Ban),
            Some(What::Deny) if self.origin.is_some() || self.expiring.is_some() => {
                return Err(usage(
                    "`list deny` takes neither `--origin` nor `--expiring`: a denial has neither an origin nor an end",
                ));
            }
            Some(What::Deny) => return Ok(None),
        };
        let ends_within = self.expiring.and_then(|span| span.0);
        Ok(Some(Request { kind, origin: self.origin, ends_within, most: self.limit.0 }))
    }
}

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// How many entries, the last ones
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub last: usize,

    /// Only what this origin did
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    pub origin: Option<String>,
}
