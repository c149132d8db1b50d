//! `bans`: when a sender of malformed streams is banned.

use std::time::Duration;

use clap::Subcommand;
use sipguard_core::ban_rule::{BanRequest, MOST_STREAMS, parse_span};
use sipguard_core::ops::bans::Request;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show when a sender is banned
    #[command(visible_alias = "ls")]
    Show,
    /// Set when a sender is banned; what is not named stays
    Set(SetArgs),
    /// Ban nobody; malformed streams are still cut
    Off,
    /// Save the bans in force to the store, so that they are there after a reboot
    Save,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct SetArgs {
    /// So many malformed streams of one address and port ban it, 1 to 1000
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STREAMS)))]
    after: Option<u32>,

    /// So many malformed streams of one address, by any ports, ban it, 1 to 1000
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_STREAMS)))]
    address_after: Option<u32>,

    /// Within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    within: Option<Duration>,

    /// How long the first ban is; each further one is twice as long
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    first: Option<Duration>,

    /// How long a ban is at the most
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    longest: Option<Duration>,

    /// An address is banned only when nothing well-formed came from it for this time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    quiet: Option<Duration>,
}

impl SetArgs {
    pub fn request(&self) -> Request {
        let SetArgs { after, address_after, within, first, longest, quiet } = *self;
        Request::Set(BanRequest { enabled: Some(true), after, address_after, within, first, longest, quiet })
    }
}
