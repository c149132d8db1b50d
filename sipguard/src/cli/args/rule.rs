//! `block`, `unblock`, `allow` and `unallow`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use sipguard_core::area::Area;
use sipguard_core::claim::UserAgent;
use sipguard_core::duration::{Span, parse_duration};
use sipguard_core::ops::rule::{LiftRules, OnProtected, SetRules, Whose, device_ports};
use sipguard_core::ops::{Context, OPERATOR, RuleVerb, area, parse_origin, parse_reason};
use sipguard_core::target::{Target, device_without_brackets};

use super::targets::{read_checked, read_sources, read_targets};
use super::usage;

#[derive(Debug, clap::Args)]
pub struct BlockArgs {
    /// Addresses, prefixes, one device of an address (ADDR:PORT) or a SIP identity, both on guarded ports; `-` reads them from standard
    /// input, separated by white space, `#` begins a comment
    #[arg(required_unless_present_any = ["agents", "file", "countries", "numbers"], value_name = "ADDR|CIDR|ADDR:PORT|sip:USER@HOST|-")]
    targets: Vec<String>,

    /// Requests whose User-Agent begins with this text, in upper or lower case; repeatable
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = UserAgent::parse)]
    agents: Vec<UserAgent>,

    #[command(flatten)]
    areas: AreaArgs,

    #[command(flatten)]
    rule: RuleArgs,

    /// Only count what would be stopped
    #[arg(long)]
    monitor: bool,

    /// Block also the peer of an SSH session, a gateway, an own address, a trunk, a prefix shorter than /8 (IPv6: /16) or a family of phones or PBXs
    #[arg(long)]
    force: bool,

    /// Fail, and block nothing, where a block of another origin than `cli` and `config` would skip what is allowed or a trunk's
    #[arg(long)]
    no_skip: bool,
}

/// Networks that a file knows.
#[derive(Debug, clap::Args)]
struct AreaArgs {
    /// Every network of a country (ISO 3166, two letters) in the file of `--mmdb`, with the origin country:XX; given again, it becomes what the
    /// file has now. Repeatable, or with commas
    #[arg(long = "country", value_name = "XX", value_delimiter = ',', value_parser = Area::country, requires = "file", conflicts_with_all = NO_AREA)]
    countries: Vec<Area>,

    /// The same of an AS number, with the origin as:NUMBER
    #[arg(long = "asn", value_name = "NUMBER", value_delimiter = ',', value_parser = Area::asn, requires = "file", conflicts_with_all = NO_AREA)]
    numbers: Vec<Area>,

    /// A MaxMind DB file, such as GeoLite2-Country.mmdb
    #[arg(long = "mmdb", value_name = "FILE", conflicts_with_all = NO_AREA)]
    file: Option<String>,
}

/// What says otherwise whom to block, or who does.
const NO_AREA: [&str; 5] = ["targets", "agents", "origin", "force", "no_skip"];

/// What `block` was asked for.
pub enum BlockRequest {
    Rules(SetRules),
    Areas(area::Request),
}

#[derive(Debug, clap::Args)]
pub struct AllowArgs {
    /// Addresses or prefixes; `-` reads them from standard input
    #[arg(required = true, value_name = "ADDR|CIDR|-")]
    targets: Vec<String>,

    #[command(flatten)]
    rule: RuleArgs,
}

/// What `block` and `allow` share.
#[derive(Debug, clap::Args)]
struct RuleArgs {
    /// For how long: seconds, or such as 15m, 1d, 29m59.4s, or permanent
    #[arg(long = "for", value_name = "DURATION", default_value = "permanent", value_parser = parse_duration)]
    span: Span,

    /// Why, for `list` and `lookup`
    #[arg(long, alias = "reason", value_name = "TEXT", value_parser = parse_reason)]
    comment: Option<String>,

    /// Who sets the rule, such as fail2ban; each origin has its own rule of a target, and blocks of all but `cli` and `config` leave allowed
    /// addresses alone
    #[arg(long, alias = "source", value_name = "NAME", default_value = OPERATOR, value_parser = parse_origin)]
    origin: String,
}

#[derive(Debug, clap::Args)]
pub struct UnblockArgs {
    /// Addresses, prefixes, devices, whose bans are lifted as well, or SIP identities; `-` reads them from standard input
    #[arg(required_unless_present_any = ["all", "agents"], value_name = "ADDR|CIDR|ADDR:PORT|sip:USER@HOST|-")]
    targets: Vec<String>,

    /// User agents that begin with this text
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = UserAgent::parse)]
    agents: Vec<UserAgent>,

    /// Every block and ban
    #[arg(long, conflicts_with_all = ["targets", "agents"])]
    all: bool,

    /// Only the blocks of this origin; else those of all origins
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct UnallowArgs {
    /// Addresses or prefixes; `-` reads them from standard input
    #[arg(required_unless_present = "all", value_name = "ADDR|CIDR|-")]
    targets: Vec<String>,

    /// Every allowance
    #[arg(long, conflicts_with = "targets")]
    all: bool,

    /// Only the allowances of this origin; else those of all origins
    #[arg(long, alias = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

impl BlockArgs {
    pub fn request(self, host: &Context) -> Result<BlockRequest> {
        if let Some(file) = self.areas.file {
            let areas: BTreeSet<Area> = self.areas.countries.into_iter().chain(self.areas.numbers).collect();
            if areas.is_empty() {
                return Err(usage("`--mmdb` goes with `--country` or `--asn`".to_owned()));
            }
            let bytes = std::fs::read(&file).with_context(|| format!("reading {file}"))?;
            let RuleArgs { span, comment, .. } = self.rule;
            let areas = areas.into_iter().collect();
            let request = area::Request { file, bytes, areas, lasts: span.0, comment, monitor: self.monitor };
            return Ok(BlockRequest::Areas(request));
        }
        // What a program blocks is what it has seen.
        let is_typed = self.rule.origin == OPERATOR && !self.force;
        let ports = if is_typed { device_ports(host) } else { Vec::new() };
        let read = read_checked(&self.targets, &|word| match device_without_brackets(word, &ports) {
            None => Ok(()),
            Some(device) => Err(format!(
                "`{word}` is one IPv6 address, and looks like the device {device}: write that, or `{word}/128` (or `--force`) for the address"
            )),
        });
        let request = self.rule.request(RuleVerb::Block, with_agents(read?, &self.agents));
        let on_protected = if self.force { OnProtected::Override } else { OnProtected::Refuse };
        Ok(BlockRequest::Rules(SetRules {
            monitor: self.monitor,
            on_protected,
            no_skip: self.no_skip,
            ..request
        }))
    }
}

impl AllowArgs {
    pub fn request(self) -> Result<SetRules> {
        let targets = read_sources(&self.targets, "allow")?;
        Ok(self.rule.request(RuleVerb::Allow, targets))
    }
}

impl RuleArgs {
    fn request(self, kind: RuleVerb, targets: Vec<Target>) -> SetRules {
        let RuleArgs { span, comment, origin } = self;
        SetRules { lasts: span.0, comment, origin, ..SetRules::new(kind, targets) }
    }
}

impl UnblockArgs {
    pub fn request(self) -> Result<LiftRules> {
        let targets = with_agents(read_targets(&self.targets)?, &self.agents);
        let whose = if self.all { Whose::All } else { Whose::Of(targets) };
        Ok(LiftRules { kind: RuleVerb::Block, whose, origin: self.origin })
    }
}

impl UnallowArgs {
    pub fn request(self) -> Result<LiftRules> {
        let targets = read_sources(&self.targets, "unallow")?;
        let whose = if self.all { Whose::All } else { Whose::Of(targets) };
        Ok(LiftRules { kind: RuleVerb::Allow, whose, origin: self.origin })
    }
}

/// The targets with user agents, each once.
fn with_agents(mut targets: Vec<Target>, agents: &[UserAgent]) -> Vec<Target> {
    targets.extend(agents.iter().map(|agent| Target::UserAgent(*agent)));
    targets.sort_unstable();
    targets.dedup();
    targets
}
