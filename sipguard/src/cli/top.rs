//! `sipguard top`

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use super::{allow, block, usage};
use crate::duration::{Span, parse_duration};
use crate::error::{Failure, Status};
use crate::output::{Format, object};
use crate::pins::Pins;
use crate::top::{self, App, CAPTURE_SECS, Model, TopCommand, TopReader};
use crate::view;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time between readings: seconds, or such as 500ms; 100ms to 1h
    #[arg(short, long, value_name = "DURATION", default_value = "1", value_parser = delay)]
    delay: Duration,

    /// Print one reading and end; rates are those of one delay
    #[arg(long)]
    once: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    match parse_duration(text)? {
        Span(Some(span)) if range.contains(&span) => Ok(span),
        Span(_) => Err("a delay is from 100ms to 1h".to_owned()),
    }
}

pub fn run(pins: &Pins, path: &Path, format: Format, args: &Args) -> Result<()> {
    if args.once {
        return once(pins, path, format, args.delay);
    }
    if format != Format::Table {
        return Err(usage("`top` prints JSON of one reading only: add `--once`"));
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(usage(
            "`top` needs a terminal for input and output: `sipguard top --once` prints one reading without",
        ));
    }
    // Later it waits for a guard that was taken away; at first that would be a mistake of the name.
    pins.attached_or_fail()?;
    let app = App {
        pins: pins.clone(),
        store: path.to_owned(),
        delay: args.delay,
        order: Arc::new({
            let (pins, path) = (pins.clone(), path.to_owned());
            move |order: &TopCommand| carry_out(&pins, &path, order)
        }),
    };
    for order in top::run(&app)? {
        if let TopCommand::Capture { target, file } = order {
            eprintln!(
                "sipguard: the capture of {target} to {} goes on until its {CAPTURE_SECS} s are over",
                file.display()
            );
        }
    }
    Ok(())
}

fn once(pins: &Pins, path: &Path, format: Format, delay: Duration) -> Result<()> {
    let (mut reader, mut model) = (TopReader::new(pins, path), Model::default());
    model.take(reader.read(true)?);
    std::thread::sleep(delay);
    model.take(reader.read(true)?);
    if let Some(error) = &model.error {
        eprintln!("sipguard: trunks, blocks and bans are left out: {error}");
    }
    object(format, "sipguard.top/2", view::json(&top::view(&model)), || top::text(&model))
}

/// Does what the verb of the same name does, and says what it would.
fn carry_out(pins: &Pins, path: &Path, order: &TopCommand) -> Result<String> {
    let (said, done) = match order {
        TopCommand::Block { target, span, reason } => {
            let done = block::make(pins, path, &block::BlockArgs::of(*target, *span, reason))?;
            (block::made(&done.value, *span), done)
        }
        TopCommand::Allow { target, span, reason } => {
            let done = allow::make(pins, path, &allow::AllowArgs::of(*target, *span, reason))?;
            (allow::made(&done.value, *span), done)
        }
        TopCommand::Unblock(target) => {
            let done = block::lift(pins, path, &block::UnblockArgs::of(*target))?;
            (block::lifted(&done.value), done)
        }
        TopCommand::Unallow(target) => {
            let done = allow::end(pins, path, &allow::UnallowArgs::of(*target))?;
            (allow::ended(&done.value), done)
        }
        TopCommand::Capture { target, file } => return capture(pins, path, &target.to_string(), file),
    };
    let target = order.target();
    let later =
        if done.in_force { "" } else { "; not attached: takes effect with the next `sipguard attach`" };
    Ok(format!("{target}: {said}{later}"))
}

/// A process of its own, in a group of its own: it goes on, and ends its file well, when this one ends.
fn capture(pins: &Pins, path: &Path, target: &str, file: &Path) -> Result<String> {
    let program = std::env::current_exe().context("asking for the path of this program")?;
    let mut command = Command::new(program);
    command.arg("--pins").arg(pins.dir()).arg("--store").arg(path);
    command.args(["capture", "--src", target, "--for", &format!("{CAPTURE_SECS}s"), "-w"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    // A child inherits which signals are blocked, and this one must hear of them.
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_unblock().context("unblocking signals")?;
    let child = command.spawn();
    signals.thread_block().context("blocking signals")?;
    let output = child.and_then(std::process::Child::wait_with_output).context("starting a capture")?;
    let text = |bytes: &[u8], last: bool| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let line = if last { lines.next_back() } else { lines.next() }.unwrap_or_default();
        line.strip_prefix("sipguard: ").unwrap_or(line).to_owned()
    };
    if !output.status.success() {
        // What went wrong comes first, hints after it.
        let said = text(&output.stderr, false);
        return Err(Failure::with(Status::Failed, format!("capturing {target} failed: {said}")));
    }
    let said =
        [text(&output.stdout, true), text(&output.stderr, true)].into_iter().find(|said| !said.is_empty());
    let said = said.unwrap_or_else(|| "done".to_owned());
    Ok(format!("captured {target} to {}: {said}", file.display()))
}
