//! The command line, in three floors: `args/` is what was typed, `sipguard_core::ops` does it, `printer/` shows what came of it.

mod args;
mod complete;
mod confirm;
mod exit;
mod help;
#[cfg(test)]
mod json_page;
mod pages;
mod printer;
mod privilege;
mod progress;
#[cfg(feature = "top")]
mod top;
mod version;

use std::process::ExitCode;

use anyhow::Result;
use clap::FromArgMatches as _;
use sipguard_common::Reason;
use sipguard_core::error::kind_of;
use sipguard_core::ops::{self, Context};
use sipguard_core::{config, notice as receiver};
use sipguard_observe::ops as observe;

use self::args::lookup::Asked;
use self::args::rule::BlockRequest;
use self::args::{Cli, Verb};
use self::printer::{Format, notice, notices, print};
use crate::interrupt::Interrupt;

/// Runs the command line, with the programs of an object, an ELF file.
#[must_use]
pub fn run(object: &'static [u8]) -> ExitCode {
    if complete::answer() {
        return ExitCode::SUCCESS;
    }
    let parsed = help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own: 0 for help and version, 2 for usage.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    receiver::receive(notice);
    match dispatch(cli, object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::complaint(&format!("{error:#}"));
            exit::code(kind_of(&error))
        }
    }
}

fn dispatch(cli: Cli, object: &'static [u8]) -> Result<()> {
    let format = cli.format();
    let needs_none = match &cli.verb {
        Verb::Completion { .. } | Verb::Version | Verb::Man { .. } | Verb::Check(_) | Verb::Config(_) => true,
        // What a reason means is documentation; what is neither that nor anybody is a mistake, whoever makes it.
        Verb::Lookup(args) | Verb::Explain(args) => {
            matches!(args.request()?, Asked::Reason(_)) && !cli.is_of_container()
        }
        // What this build can't do, no privilege helps with.
        #[cfg(not(feature = "top"))]
        Verb::Top(_) => true,
        #[cfg(not(feature = "replay"))]
        Verb::Replay(_) => true,
        #[cfg(not(feature = "serve"))]
        Verb::Serve(_) => true,
        _ => false,
    };
    let host = &if needs_none {
        Context::new(&cli.pins, &cli.store)
    } else {
        privilege::check()?;
        // Before there is a second thread.
        cli.host()?
    };
    match cli.verb {
        Verb::Attach(args) => confirm::attach(host, object, format, args),
        Verb::Upgrade => printer::attach::upgraded(format, &ops::upgrade::run(host, object)?),
        Verb::Detach(args) => printer::attach::detached(format, &ops::detach::run(host, args.request())?),
        Verb::Status(args) => {
            let report = ops::status::run(host, args.interface.as_deref())?;
            let glance =
                (format == Format::Table).then(|| observe::glance::read(host, &report)).transpose()?;
            printer::status::status(format, &report, glance.as_ref())?;
            ops::status::expect_filtering(&report)
        }
        Verb::Block(args) => match args.request(host)? {
            BlockRequest::Rules(request) => set(host, format, &request),
            BlockRequest::Areas(request) => block_areas(host, format, &request),
        },
        Verb::Unblock(args) => lift(host, format, &args.request()?),
        Verb::Allow(args) => set(host, format, &args.request()?),
        Verb::Unallow(args) => lift(host, format, &args.request()?),
        Verb::Deny(args) => deny(host, format, args.request()?),
        Verb::Permit(args) => deny(host, format, Some(args.request()?)),
        Verb::Trunk(args) => trunk(host, format, args.verb),
        Verb::Limit(args) => limit(host, format, args.verb),
        Verb::Checks(args) => checks(host, format, args.verb),
        Verb::Bans(args) => bans(host, format, args.verb),
        Verb::List(args) => match args.request()? {
            Some(request) => printer::list::list(format, &ops::list::begin(host, &request)?),
            None => deny(host, format, None),
        },
        Verb::Feed(args) => feed(host, format, args.verb),
        Verb::Import(args) => import(host, format, args),
        Verb::Export(args) => {
            printer::export::export(args.format, ops::export::begin(host, args.origin.as_deref())?)
        }
        Verb::Log(args) => {
            printer::log::log(format, &ops::log::run(host, args.last, args.origin.as_deref())?)
        }
        Verb::Lookup(args) | Verb::Explain(args) => match args.request()? {
            Asked::Who(who) => {
                let outcome = ops::lookup::run(host, &who)?;
                let offenders = observe::lookup::offenders(host, &who)?;
                printer::lookup::lookup(format, &who, &outcome, &offenders)?;
                if args.exit_code { ops::lookup::expect_passing(&who, &outcome) } else { Ok(()) }
            }
            Asked::Reason(reason) => printer::explain::explain(format, &explained(host, reason)),
        },
        Verb::Counters(args) => counters(host, format, &args),
        Verb::Events(args) => events(host, format, args),
        Verb::Capture(args) => {
            let (request, interrupt) = (args.request()?, Interrupt::new()?);
            let outcome = observe::capture::run(host, request, &mut |span| interrupt.wait(span))?;
            outcome.map_or(Ok(()), |outcome| printer::capture::capture(format, &outcome))
        }
        #[cfg(not(feature = "top"))]
        Verb::Top(args) => Err(args.missing("top")),
        #[cfg(feature = "top")]
        Verb::Top(args) => top::run(host, format, &args),
        Verb::Mode(args) => mode(host, format, &args),
        Verb::Check(args) => {
            let loaded = ops::config::check(args.config.file.as_deref());
            printer::config::check(format, &loaded)?;
            let loaded = loaded.map_err(|invalid| ops::config::refused(&invalid, "it would not be taken"))?;
            ops::config::warn(&loaded);
            Ok(())
        }
        Verb::Reload(args) => {
            let request = args.request();
            printer::reload::reload(format, &ops::reload::run(host, &request)?, request.dry_run)
        }
        Verb::Crash(args) => crash(host, format, args),
        #[cfg(not(feature = "replay"))]
        Verb::Replay(args) => Err(args.missing("replay")),
        #[cfg(feature = "replay")]
        Verb::Replay(args) => replay(host, object, format, args),
        #[cfg(not(feature = "serve"))]
        Verb::Serve(args) => Err(args.missing("serve")),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => sipguard_serve::run(host, &args.request()?, FETCH),
        Verb::Config(args) => show_config(format, args),
        Verb::Version => version::run(format),
        Verb::Man { directory } => pages::man(&directory),
        Verb::Completion { shell } => print(&complete::script(&shell.to_string())?),
    }
}

fn set(host: &Context, format: Format, request: &ops::rule::SetRules) -> Result<()> {
    printer::rule::set(format, request, &ops::rule::set(host, request)?)
}

fn block_areas(host: &Context, format: Format, request: &ops::area::Request) -> Result<()> {
    let mut bar = progress::Entries::default();
    let done = ops::area::block(host, request, &mut |progress| bar.take(progress));
    drop(bar);
    printer::rule::imported(format, &done?)
}

fn lift(host: &Context, format: Format, request: &ops::rule::LiftRules) -> Result<()> {
    printer::rule::lifted(format, request, &ops::rule::lift(host, request)?)
}

/// What a reason means is documentation, which whoever asks is told; what holds now is added for who may read it.
fn explained(host: &Context, reason: Reason) -> ops::explain::Explained {
    let explained = privilege::check().and_then(|()| ops::explain::explain(host, reason));
    explained.unwrap_or_else(|error| ops::explain::documented(reason, format!("{error:#}")))
}

fn deny(host: &Context, format: Format, request: Option<ops::denial::Request>) -> Result<()> {
    match request {
        Some(request) => printer::denial::changed(format, &request, &ops::denial::run(host, &request)?),
        None => printer::denial::list(format, &ops::denial::list(host)?),
    }
}

fn trunk(host: &Context, format: Format, verb: Option<args::trunk::Verb>) -> Result<()> {
    use args::trunk::Verb;
    let change = printer::rule::change_of_one;
    match verb.unwrap_or(Verb::List) {
        Verb::Add(args) => {
            let request = args.request()?;
            let done = ops::trunk::add(host, &request)?;
            let (name, peers) = (&request.name, printer::plural(done.peers, "peer"));
            let did = match done.change.counts.added {
                0 => format!("changed the trunk {name}"),
                _ => format!("added the trunk {name} with {peers}"),
            };
            change(format, &done.change, &did, "it is so already")
        }
        Verb::Set(args) => {
            let request = args.request()?;
            let done = ops::trunk::set(host, &request)?;
            change(format, &done, &format!("changed the trunk {}", request.name), "it is so already")
        }
        Verb::Remove { name } => {
            let done = ops::trunk::remove(host, &name)?;
            change(format, &done, &format!("removed the trunk {name}"), &format!("there is no trunk {name}"))
        }
        Verb::List => printer::trunk::list(format, &ops::trunk::list(host)?),
        Verb::Show { name } => printer::trunk::show(format, &ops::trunk::show(host, &name)?),
    }
}

fn limit(host: &Context, format: Format, verb: Option<args::limit::Verb>) -> Result<()> {
    use args::limit::Verb;
    match verb.unwrap_or(Verb::List) {
        Verb::Set(args) => {
            let (trunk, most) = args.request()?;
            let done = ops::limit::set(host, trunk.as_deref(), most)?;
            printer::limit::set(format, trunk.as_deref(), most, &done)
        }
        Verb::Clear(args) => {
            let (trunk, kind) = args.request()?;
            let done = ops::limit::clear(host, trunk.as_deref(), kind)?;
            printer::limit::cleared(format, trunk.as_deref(), kind, &done)
        }
        Verb::Reset(args) => {
            let (trunk, kind) = args.request()?;
            let done = ops::limit::reset(host, trunk.as_deref(), kind)?;
            printer::limit::reset(format, trunk.as_deref(), kind, &done)
        }
        Verb::List => printer::limit::list(format, &ops::limit::list(host)?),
    }
}

fn checks(host: &Context, format: Format, verb: Option<args::checks::Verb>) -> Result<()> {
    use args::checks::Verb;
    match verb.unwrap_or(Verb::List) {
        Verb::Set(args) => {
            let switch = args.request();
            printer::checks::set(format, &switch, &ops::checks::set(host, &switch)?)
        }
        Verb::Clear(args) => {
            let (scope, reason) = args.request();
            printer::checks::cleared(format, &scope, reason, &ops::checks::clear(host, &scope, reason)?)
        }
        Verb::List => printer::checks::list(format, &ops::checks::list(host)?),
    }
}

fn bans(host: &Context, format: Format, verb: Option<args::bans::Verb>) -> Result<()> {
    use args::bans::Verb;
    let request = match verb {
        None | Some(Verb::Show) => return printer::bans::show(format, &ops::bans::show(host)?),
        Some(Verb::Save) => return printer::bans::saved(format, ops::bans::save(host)?),
        Some(Verb::Off) => ops::bans::Request::Off,
        Some(Verb::Set(args)) => args.request(),
    };
    printer::bans::changed(format, &ops::bans::set(host, &request)?)
}

/// The client of HTTP for feeds; without it files alone are read.
#[cfg(feature = "feed")]
const FETCH: Option<ops::feed::Fetch> = Some(sipguard_fetch::fetch);
#[cfg(not(feature = "feed"))]
const FETCH: Option<ops::feed::Fetch> = None;

fn feed(host: &Context, format: Format, verb: Option<args::feed::Verb>) -> Result<()> {
    use args::feed::Verb;
    match verb.unwrap_or(Verb::List) {
        Verb::Add(args) => {
            let request = args.request()?;
            let name = request.name.clone();
            printer::feed::refreshed(format, &name, &ops::feed::add(host, request, FETCH)?)
        }
        Verb::Remove { name } => printer::feed::removed(format, &name, &ops::feed::remove(host, &name)?),
        Verb::Refresh(args) => match args.name {
            Some(name) => {
                let request = ops::feed::Refresh { name: &name, force: args.force, is_known: false };
                let done = ops::feed::refresh(host, &request, FETCH)?;
                printer::feed::refreshed(format, &name, &done)
            }
            None => refresh_feeds(host, format),
        },
        Verb::List => printer::feed::list(format, &ops::feed::list(host)?),
        Verb::Show { name } => printer::feed::show(format, &ops::feed::show(host, &name)?),
    }
}

/// Each one; that one fails keeps no other from being read.
fn refresh_feeds(host: &Context, format: Format) -> Result<()> {
    let mut failed = Vec::new();
    for feed in ops::feed::stored(host)? {
        let request = ops::feed::Refresh { name: &feed.name, force: false, is_known: false };
        match ops::feed::refresh(host, &request, FETCH) {
            Ok(done) => printer::feed::refreshed(format, &feed.name, &done)?,
            Err(error) => failed.push(format!("{}: {error:#}", feed.name)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(failed.join("; "))) }
}

fn import(host: &Context, format: Format, args: args::import::ImportArgs) -> Result<()> {
    let mut bar = progress::Entries::default();
    let done = ops::import::run(host, args.request()?, &mut |progress| bar.take(progress));
    drop(bar);
    printer::rule::imported(format, &done?)
}

fn counters(host: &Context, output: Format, args: &args::counters::Args) -> Result<()> {
    use args::counters::By;
    let format = match args.format(output) {
        Ok(format) => format,
        Err(request) => {
            let metrics = observe::metrics::read(host, request)?;
            notices(&metrics.notices);
            return print(&metrics.text);
        }
    };
    if args.all {
        return Err(args::usage("`--all` goes with `--format prometheus` or `openmetrics`"));
    }
    if let Some(kind) = args.of {
        if args.by != By::Source {
            return Err(args::usage("`--of` goes with `--by source`"));
        }
        return printer::counters::of_senders(format, &ops::counters::of_senders(host, kind)?);
    }
    if args.ports && args.by != By::Source {
        return Err(args::usage("`--ports` goes with `--by source`"));
    }
    match args.by {
        By::Source if args.ports => printer::counters::by_port(format, &ops::counters::by_port(host)?),
        By::Source => printer::counters::by_address(format, &ops::counters::by_address(host)?),
        By::Trunk => printer::counters::by_trunk(format, &ops::counters::by_trunk(host)?),
        By::Reason if args.rate => printer::counters::rates(format, &ops::counters::rates(host)?),
        By::Reason => printer::counters::by_reason(format, &ops::counters::by_reason(host)?),
    }
}

fn events(host: &Context, format: Format, args: args::events::Args) -> Result<()> {
    let (follow, most) = (args.follow, args.most());
    let mut reader = observe::events::Reader::open(host, args.request())?;
    let before = reader.read(most)?;
    if follow {
        let interrupt = Interrupt::new()?;
        reader.follow(before, &mut |span| interrupt.wait(span), &mut |told| {
            printer::events::follow(format, &told)
        })?;
    } else {
        printer::events::list(format, &before)?;
    }
    printer::events::lost(reader.lost());
    Ok(())
}

fn mode(host: &Context, format: Format, args: &args::mode::Args) -> Result<()> {
    if let Some((name, mode)) = args.of_trunk() {
        let done = ops::trunk::set_mode(host, name, mode)?;
        let did = format!("{name}: {}", mode.name());
        return printer::rule::change_of_one(format, &done, &did, &format!("{did} already"));
    }
    printer::mode::mode(format, &ops::mode::run(host, args.mode)?, args.mode.is_some())
}

fn crash(host: &Context, format: Format, args: args::crash::Args) -> Result<()> {
    use args::crash::{Switch, Verb};
    let directory = &args.directory;
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => printer::crash::list(format, &observe::crash::list(directory)),
        Verb::Show { name } => {
            printer::crash::show(format, &observe::crash::show(directory, name.as_deref())?)
        }
        Verb::Record { switch } => {
            let on = switch == Switch::On;
            notices(&observe::crash::record(host, on)?);
            printer::crash::record(format, on)
        }
        Verb::Report { ago, quarantine } => {
            let request = observe::crash::Request {
                directory: directory.clone(),
                ago: ago.and_then(|span| span.0).unwrap_or_default(),
                quarantine: quarantine.and_then(|span| span.0),
            };
            printer::crash::show(format, &observe::crash::report(host, &request)?)
        }
    }
}

#[cfg(feature = "replay")]
fn replay(host: &Context, object: &[u8], format: Format, args: args::replay::Args) -> Result<()> {
    let (request, files) = args.request()?;
    let bars = progress::Files::default();
    let reports = sipguard_replay::run(host, object, request, &files, &|file| bars.of(file))?;
    drop(bars);
    printer::replay::replay(format, &reports)
}

fn show_config(format: Format, args: args::config::Args) -> Result<()> {
    use args::config::Verb;
    match args.verb.unwrap_or(Verb::Show { config: args.config }) {
        Verb::Schema => print(&format!("{:#}\n", config::schema())),
        Verb::Example => print(&config::example()),
        Verb::Show { config } => {
            let loaded = ops::config::read(config.file.as_deref(), "nothing can be shown")?;
            printer::config::show(format, &loaded.shown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        help::command().debug_assert();
    }
}
