//! `sipguard top`

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::Result;
use sipguard_core::duration::Span;
use sipguard_core::notice::Notice;
use sipguard_core::ops::rule::{LiftRules, SetRules, lift, set};
use sipguard_core::ops::{Context, RuleChange, RuleVerb};
use sipguard_core::target::Target;

use super::args::top::Args;
use super::args::usage;
use super::printer::rule::{later, lifted_sentence, set_sentence};
use super::printer::{Format, notice, object};
use crate::top::{self, App, CAPTURE_SECS, Model, TopCommand, TopReader, capture};

pub fn run(host: &Context, format: Format, args: &Args) -> Result<()> {
    if args.once {
        return once(host, format, args);
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
    host.pins.attached_or_fail()?;
    let app = App {
        host: host.clone(),
        delay: args.delay,
        order: Arc::new({
            let host = host.clone();
            move |order: &TopCommand| carry_out(&host, order)
        }),
    };
    for order in top::run(&app)? {
        if let TopCommand::Capture { target, file } = order {
            notice(&Notice(format!(
                "the capture of {target} to {} goes on until its {CAPTURE_SECS} s are over",
                file.display()
            )));
        }
    }
    Ok(())
}

fn once(host: &Context, format: Format, args: &Args) -> Result<()> {
    let (mut reader, mut model) = (TopReader::new(host), Model::default());
    model.take(reader.read(true)?);
    std::thread::sleep(args.delay);
    model.take(reader.read(true)?);
    if let Some(error) = &model.error {
        notice(&Notice(format!("trunks, blocks and bans are left out: {error}")));
    }
    object(format, "sipguard.top/3", &top::view(&model), || top::text(&model))
}

/// Does what the verb of the same name does, and says what it would.
fn carry_out(host: &Context, order: &TopCommand) -> Result<String> {
    let (said, done) = match order {
        TopCommand::Block { target, span, reason } => set_one(host, RuleVerb::Block, *target, *span, reason)?,
        TopCommand::Allow { target, span, reason } => set_one(host, RuleVerb::Allow, *target, *span, reason)?,
        TopCommand::Unblock(target) => lift_one(host, RuleVerb::Block, *target)?,
        TopCommand::Unallow(target) => lift_one(host, RuleVerb::Allow, *target)?,
        TopCommand::Capture { target, file } => return capture(host, &target.to_string(), file),
    };
    Ok(format!("{}: {said}{}", order.target(), later(done.in_force)))
}

fn set_one(
    host: &Context,
    kind: RuleVerb,
    target: Target,
    span: Span,
    comment: &str,
) -> Result<(String, RuleChange)> {
    let comment = (!comment.is_empty()).then(|| comment.to_owned());
    let request = SetRules { lasts: span.0, comment, ..SetRules::new(kind, vec![target]) };
    let done = set(host, &request)?;
    Ok((set_sentence(&request, done.counts()), done.change))
}

fn lift_one(host: &Context, kind: RuleVerb, target: Target) -> Result<(String, RuleChange)> {
    let done = lift(host, &LiftRules::of(kind, target))?;
    Ok((lifted_sentence(kind, &done.counts), done))
}
