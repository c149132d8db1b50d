//! `events`.

use sipguard_common::Reason;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_observe::events::reason;
use sipguard_observe::ops::events::{Request, SenderFilter};

/// Events that `--follow` begins with.
const BEFORE: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on with what comes, until SIGINT
    #[arg(short, long)]
    pub follow: bool,

    /// Only these reasons
    #[arg(long = "reason", value_name = "REASON", num_args = 1.., value_delimiter = ',', value_parser = reason)]
    reasons: Vec<Reason>,

    /// Only from this address, prefix, or address and port; can be repeated
    #[arg(long = "src", value_name = "ADDR|CIDR|ADDR:PORT")]
    sources: Vec<SenderFilter>,

    /// Only of this trunk
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,

    /// Only over this interface
    #[arg(long = "iface", value_name = "IFACE")]
    interface: Option<String>,

    /// Only of this time until now, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = ago, allow_hyphen_values = true)]
    since: Option<Span>,

    /// Only the last ones of those that are there [default: all; with --follow 10, or with --since all]
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
}

/// How long ago.
fn ago(text: &str) -> Result<Span, String> {
    let instead = "`--since` says how long ago, such as 10m";
    if text.starts_with('-') {
        return Err(format!("`{text}` is in the future: {instead}"));
    }
    let is_time =
        |text: &str| text.parse::<jiff::civil::Date>().is_ok() || text.parse::<jiff::Timestamp>().is_ok();
    if is_time(text) {
        return Err(format!("`{text}` is a point in time: {instead}"));
    }
    parse_duration(text)
}

impl Args {
    /// Of the events that are there only so many; `None` is all.
    pub fn most(&self) -> Option<usize> {
        self.last.or((self.follow && self.since.is_none()).then_some(BEFORE))
    }

    pub fn request(self) -> Request {
        let Args { reasons, sources, trunk, interface, since, .. } = self;
        Request { reasons, sources, trunk, interface, since: since.and_then(|span| span.0) }
    }
}
