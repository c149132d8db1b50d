//! `sipguard list`

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytemuck::Zeroable as _;
use sipguard_common::abi::{Ban, Rule, rule_flags};

use super::{Span, deny, parse_duration, usage};
use crate::bans::Bans;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::lookup::{ListedRule, found};
use crate::output::{Format, Rows};
use crate::pins::Pins;
use crate::store::parse_origin;
use crate::store::{self, Allowed, RuleMode, RuleRow, RuleVerb, decides};
use crate::target::Target;
use crate::view::{self, RuleView, schema, time};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to list: blocks, allowances, bans, or what is denied [default: all but what is denied]
    #[arg(value_parser = ["block", "allow", "ban", "deny"])]
    what: Option<String>,

    /// Only what this source set
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,

    /// Only what ends within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expiring: Option<Span>,

    /// So many rules at the most, or `all`; of more only their number is told
    #[arg(long, value_name = "COUNT|all", default_value = "1000", value_parser = parse_most)]
    limit: Most,
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

/// Rules that are shown together: of a long list no more are held at once.
const CHUNK: usize = 1000;

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    if args.what.as_deref() == Some("deny") {
        if args.origin.is_some() || args.expiring.is_some() {
            return Err(usage(
                "`list deny` takes neither `--source` nor `--expiring`: a denial has neither a source nor an end",
            ));
        }
        return deny::show(pins, path, format);
    }
    let clock = Clock::now()?;
    let kernel = if pins.are_attached() {
        pins.check()?;
        Some(Kernel { blocks: Blocks::open(pins)?, bans: Bans::open(pins)?.list(clock.boot_ns)? })
    } else {
        if format == Format::Table {
            eprintln!("sipguard: not attached: these rules take effect with the next `sipguard attach`");
        }
        None
    };
    let filter = args.filter(&clock);
    let head = ["TARGET", "RULE", "ENDS", "PACKETS", "BYTES", "SOURCE", "BY", "SINCE", "REASON"];
    let mut out = Rows::new(format, schema::BLOCKS, &head);
    let mut chunk = Vec::new();
    let mut shown = 0;
    let mut show = |chunk: &mut Vec<ListedRule>| {
        chunk.sort_by_key(|one| one.row.target);
        out.print(chunk.drain(..).map(|one| (view::json(&RuleView::from(&one)), line(&one, &clock))))
    };
    let more = each(pins, path, &clock, kernel.as_ref(), &filter, args.limit.0, &mut |one| {
        chunk.push(one);
        shown += 1;
        if chunk.len() == CHUNK && args.limit.0 != Some(CHUNK) { show(&mut chunk) } else { Ok(()) }
    })?;
    show(&mut chunk)?;
    let more_text =
        format!("{more} more: `--limit all` lists them, `--source` and `list block` narrow it down\n");
    out.end(&[("more", more.into())], (more > 0).then_some(more_text.as_str()))
}

impl Args {
    fn filter(&self, clock: &Clock) -> Filter {
        let until =
            self.expiring.and_then(|span| span.0).map(|span| clock.wall_ms() + span.as_millis() as i64);
        Filter { what: self.what.clone(), origin: self.origin.clone(), ends_by_ms: until }
    }
}

/// What is asked for.
struct Filter {
    what: Option<String>,
    origin: Option<String>,
    ends_by_ms: Option<i64>,
}

impl Filter {
    fn takes(&self, one: &ListedRule) -> bool {
        self.what.as_deref().is_none_or(|what| one.name() == what)
            && self.origin.as_ref().is_none_or(|origin| one.row.origin == *origin)
            && self.ends_by_ms.is_none_or(|by| one.row.expires_ms.is_some_and(|end| end <= by))
    }

    /// The same for the rows of the store; `None` when none can be meant.
    fn of_rows(&self, clock: &Clock) -> Option<store::RuleQuery<'_>> {
        let verb = match self.what.as_deref() {
            Some("ban") => return None,
            what => what.and_then(RuleVerb::of),
        };
        Some(store::RuleQuery {
            verb,
            origin: self.origin.as_deref(),
            now_ms: clock.wall_ms(),
            ends_by_ms: self.ends_by_ms,
        })
    }
}

/// What the kernel has.
struct Kernel {
    blocks: Blocks,
    bans: Vec<(Target, Ban)>,
}

/// Hands on what is asked for: bans, the rules of the store that hold, and those of the kernel that the store does not know. How many more than `most`
/// there are.
fn each(
    pins: &Pins,
    path: &Path,
    clock: &Clock,
    kernel: Option<&Kernel>,
    filter: &Filter,
    most: Option<usize>,
    take: &mut dyn FnMut(ListedRule) -> Result<()>,
) -> Result<usize> {
    let (left, more) = (Cell::new(most.unwrap_or(usize::MAX)), Cell::new(0));
    let mut hand_on = |one: ListedRule| match left.get().checked_sub(1) {
        None => {
            more.set(more.get() + 1);
            Ok(())
        }
        Some(fewer) => {
            left.set(fewer);
            take(one)
        }
    };
    let bans = match kernel {
        Some(kernel) => kernel.bans.clone(),
        None => store::read(path, |rows| rows.bans(clock))?.unwrap_or_default(),
    };
    for (target, ban) in bans.iter().filter(|(_, ban)| ban.is_active(clock.boot_ns)) {
        let one = ListedRule::of_ban(*target, ban, clock, kernel.is_some());
        if filter.takes(&one) {
            hand_on(one)?;
        }
    }
    let entry = |target: &Target| match kernel {
        Some(kernel) => {
            Ok(kernel.blocks.get(target)?.filter(|rule| rule.flags != 0 && rule.is_active(clock.boot_ns)))
        }
        None => anyhow::Ok(None),
    };
    let rest = store::read(path, |rows| {
        let Some(query) = filter.of_rows(clock) else { return Ok(0) };
        let allowed = Allowed::of(&rows.allowing()?, rows.peers()?, clock.wall_ms());
        rows.each(&query, left.get(), &mut |row| {
            let group = rows.of(&row.target)?;
            let decides = decides(&group, &allowed, clock.wall_ms()) == Some(&row);
            let entry = entry(&row.target)?.filter(|_| decides);
            hand_on(ListedRule { row, decides, entry, is_ban: false })
        })
    })?;
    // Only what the store keeps no count of can be unknown to it.
    if let Some(kernel) = kernel
        && (rest.is_none() || store::blocks_in_force(path, pins, clock.wall_ms())?.is_none())
    {
        let mut strange = Vec::new();
        kernel.blocks.each_target(&mut |target| strange.push(target))?;
        // Opened once for all of them.
        let unknown = store::read(path, |rows| {
            let mut unknown = Vec::new();
            for target in &strange {
                if rows.of(target)?.is_empty() {
                    unknown.push(*target);
                }
            }
            Ok(unknown)
        })?;
        for target in unknown.unwrap_or(strange) {
            let decides = |rule: &Rule| rule.flags & (rule_flags::BLOCK | rule_flags::ALLOW) != 0;
            if let Some(rule) = entry(&target)?.filter(decides) {
                let row = found(target, &rule, clock);
                let one = ListedRule { row, decides: true, entry: Some(rule), is_ban: false };
                if filter.takes(&one) {
                    hand_on(one)?;
                }
            }
        }
    }
    Ok(more.get() + rest.unwrap_or(0))
}

fn line(one: &ListedRule, clock: &Clock) -> Vec<String> {
    let row = &one.row;
    let mut rule = one.name().to_owned();
    if row.mode == RuleMode::Monitor {
        rule += ", counts only";
    }
    if !one.decides {
        rule += ", overruled";
    }
    let entry = one.entry.unwrap_or(Rule::zeroed());
    vec![
        row.target.to_string(),
        rule,
        remaining(row, clock),
        entry.packets.to_string(),
        entry.bytes.to_string(),
        row.origin.clone(),
        row.author.clone(),
        time(row.created_ms),
        row.reason.clone(),
    ]
}

/// `never`, or such as `in 14m 3s`.
pub fn remaining(row: &RuleRow, clock: &Clock) -> String {
    let Some(end) = row.expires_ms else { return "never".to_owned() };
    let left = Duration::from_secs(u64::try_from(end - clock.wall_ms()).unwrap_or(0).div_ceil(1000));
    format!("in {}", humantime::format_duration(left))
}
