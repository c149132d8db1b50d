//! `trunk`: who the carriers are, and what they may send.

use anyhow::Result;
use clap::Subcommand;
use sipguard_core::address::Source;
use sipguard_core::ops::parse_reason;
use sipguard_core::ops::trunk::{PolicyChange, Request};
use sipguard_core::trunk::{self, TrunkMode, TrunkProfile};

use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a trunk of the addresses of a carrier; nothing automatic blocks them
    Add(AddArgs),
    /// Change a trunk; what is not named stays
    Set(SetArgs),
    /// Remove a trunk: its peers are devices like any other
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        #[arg(value_parser = trunk::name)]
        name: String,
    },
    /// List the trunks
    #[command(visible_alias = "ls")]
    List,
    /// Show a trunk: peers, policy, its own checks and limits, and what was counted
    Show {
        /// Its name
        #[arg(value_parser = trunk::name)]
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Its name: 1 to 32 of a-z, 0-9 and -_.
    #[arg(value_parser = trunk::name)]
    name: String,

    /// Its addresses and prefixes; of prefixes within each other the longest decides whose an address is
    #[arg(long = "peer", value_name = "CIDR", required = true, num_args = 1..)]
    peers: Vec<String>,

    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Its name
    #[arg(value_parser = trunk::name)]
    name: String,

    /// All of its addresses and prefixes, instead of those that it has
    #[arg(long = "peer", value_name = "CIDR", num_args = 1..)]
    peers: Vec<String>,

    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// What it may use, such as udp,tls; the rest is denied [default: all]
    #[arg(long, value_name = "LIST|all", value_parser = transports)]
    transport: Option<Transports>,

    /// What it may send, such as INVITE,ACK,BYE,CANCEL,OPTIONS; the rest is denied (over TLS no method can be told) [default: all]
    #[arg(long, value_name = "LIST|all", value_parser = trunk::method_set)]
    method: Option<u32>,

    /// How its messages are checked: as everybody's (inherit), or by a profile of its own [default: inherit]
    #[arg(long, value_name = "inherit|default|strict", value_parser = TrunkProfile::parse)]
    profile: Option<TrunkProfile>,

    /// Whether its faults are stopped: as the guard's mode says (inherit), always, or never [default: inherit]
    #[arg(long, value_name = "inherit|enforce|monitor", value_parser = TrunkMode::parse)]
    mode: Option<TrunkMode>,

    /// Its peers are balancers: their TCP connections to guarded ports begin with a PROXY header (version 1 or 2), and whom that names is the
    /// sender; `--proxy-protocol=false` takes it back [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    proxy_protocol: Option<bool>,

    /// What it is, for `trunk list`
    #[arg(long, alias = "reason", value_name = "TEXT", value_parser = parse_reason)]
    comment: Option<String>,

    /// Take peers shorter than /8 (IPv6: /16) as well
    #[arg(long)]
    force: bool,
}

/// clap takes an array for several values.
#[derive(Clone, Copy, Debug)]
struct Transports([bool; 3]);

fn transports(text: &str) -> Result<Transports, String> {
    trunk::transports(text).map(Transports)
}

impl AddArgs {
    pub fn request(self) -> Result<Request> {
        request(self.name, &self.peers, self.policy)
    }
}

impl SetArgs {
    pub fn request(self) -> Result<Request> {
        request(self.name, &self.peers, self.policy)
    }
}

fn request(name: String, peers: &[String], policy: PolicyArgs) -> Result<Request> {
    let words = peers.iter().flat_map(|word| word.split(','));
    let peers = words.map(|word| word.parse::<Source>().map_err(usage)).collect::<Result<_>>()?;
    let PolicyArgs { transport, method, profile, mode, proxy_protocol, comment, force } = policy;
    let transports = transport.map(|Transports(may)| may);
    Ok(Request {
        name,
        peers,
        policy: PolicyChange { transports, methods: method, profile, mode, proxy_protocol, comment },
        force,
    })
}
