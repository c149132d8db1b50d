//! `limit`: how much devices, or a trunk, may send.

use anyhow::Result;
use clap::Subcommand;
use sipguard_core::ops::limit::{AtOnce, Kind, MESSAGES, Most, RuleMode};
use sipguard_core::rate::{self, AtOnceMost, MOST_AT_ONCE};
use sipguard_core::trunk;

use super::scope::{LimitScopeArgs, Per};
use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

const TRY_FIRST: &str = "\
See what a limit would stop before it stops anything:

  sipguard limit set --of register 20/s --monitor
  sipguard counters                            # rate-register, would-drop: what it would stop
  sipguard counters --by source --of register  # who sends the most
  sipguard limit set --of register 20/s        # it stops what is over it from now on
  sipguard limit reset --of register           # or the default again";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Set a limit: so many a second, and a burst of so many at once; of open connections and unfinished messages a number
    #[command(after_help = TRY_FIRST)]
    Set(SetArgs),
    /// Show the limits
    #[command(visible_alias = "ls")]
    List,
    /// Take limits away, so that there is none: of one kind, or all; for devices, or for a trunk
    #[command(visible_alias = "rm")]
    Clear(ClearArgs),
    /// Set limits to their defaults: of one kind, or all; for devices, or for a trunk; a trunk has none
    Reset(ClearArgs),
}

#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    whose: WhoseArgs,

    /// Such as `20/s`, or `20/s burst 40`; without a burst twice as many as a second has. With `--of open` and
    /// `--of unfinished` a number, such as `500`
    #[arg(required = true, num_args = 1..=4, value_name = "RATE [burst COUNT]|COUNT")]
    rate: Vec<String>,

    /// Only count what is over this limit, as would-drop in `counters`, and let it pass. The other limits go on stopping. The
    /// same command without it makes the limit stop
    #[arg(long)]
    monitor: bool,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    #[command(flatten)]
    whose: WhoseArgs,

    /// The trunk's name, with `--per trunk`
    #[arg(value_name = "NAME", hide = true)]
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
struct WhoseArgs {
    #[command(flatten)]
    scope: LimitScopeArgs,

    /// What `--trunk NAME` was
    #[arg(long, value_enum, hide = true, conflicts_with_all = ["trunk", "devices"])]
    per: Option<Per>,

    /// What is counted: packets, messages, register, invite, connections (new ones), open (TCP connections at once), or unfinished
    /// (messages on TCP connections that have begun and are not finished)
    /// [default: messages, of `clear` and `reset` all]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    of: Option<Kind>,
}

impl SetArgs {
    /// The trunk whose limit it is, or none, and the limit.
    pub fn request(&self) -> Result<(Option<String>, Most)> {
        let names = usize::from(self.whose.per == Some(Per::Trunk));
        let (name, words) = self.rate.split_at(names.min(self.rate.len()));
        let trunk = self.whose.trunk(name.first().map(String::as_str))?;
        let mode = if self.monitor { RuleMode::Monitor } else { RuleMode::Enforce };
        let text = words.join(" ");
        if let (limit, RuleMode::Monitor) = rate::split_mode(&text) {
            return Err(usage(format!("`{text}`: here it is an option: `{limit} --monitor`")));
        }
        let of = self.whose.of.unwrap_or(Kind::Rate(MESSAGES));
        if NO_LIMIT.contains(&text.as_str()) {
            return Err(usage(none(&text, of, trunk.as_deref())));
        }
        let most = match of {
            Kind::Rate(kind) => Most::Rate(kind, rate::parse(&text, mode).map_err(usage)?),
            Kind::AtOnce(kind) => Most::AtOnce(kind, at_once(kind, &text, mode)?),
        };
        Ok((trunk, most))
    }
}

impl ClearArgs {
    /// The trunk whose limits they are, or none, and of which kind.
    pub fn request(&self) -> Result<(Option<String>, Option<Kind>)> {
        Ok((self.whose.trunk(self.name.as_deref())?, self.whose.of))
    }
}

impl WhoseArgs {
    fn trunk(&self, name: Option<&str>) -> Result<Option<String>> {
        match (self.per, name) {
            (None | Some(Per::Source), None) => Ok(self.scope.trunk().map(str::to_owned)),
            (Some(Per::Trunk), Some(name)) => trunk::name(name).map(Some).map_err(usage),
            (Some(Per::Trunk), None) => Err(usage("which trunk? Write such as `--trunk carrier`")),
            (None | Some(Per::Source), Some(name)) => {
                Err(usage(format!("`{name}`: of a trunk write `--trunk {name}`")))
            }
        }
    }
}

/// What people write for no limit.
const NO_LIMIT: [&str; 2] = ["none", "off"];

/// What to write instead of one of them.
fn none(text: &str, kind: Kind, trunk: Option<&str>) -> String {
    let options = trunk.map_or_else(String::new, |trunk| format!(" --trunk {trunk}"));
    let options = format!("{options} --of {}", kind.name());
    format!(
        "`{text}` is no limit, so there is nothing to set or to monitor: `sipguard limit clear{options}` takes the limit away, \
         `sipguard limit reset{options}` sets the default"
    )
}

/// `500`: so many at once.
fn at_once(kind: AtOnce, text: &str, mode: RuleMode) -> Result<AtOnceMost> {
    rate::parse_at_once(text, mode).ok_or_else(|| {
        usage(format!(
            "`{text}` is no limit of {}: write how many at once, such as 500 (1 to {MOST_AT_ONCE})",
            kind.text()
        ))
    })
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::all().find(|kind| kind.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
        let words: Vec<&str> = Kind::all().map(Kind::name).collect();
        format!("`{text}` is nothing that is limited: write one of {}", words.join(", "))
    })
}
