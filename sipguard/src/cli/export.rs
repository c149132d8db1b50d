//! `sipguard export`: rules as a list.

use std::path::Path;

use anyhow::Result;

use crate::clock::Clock;
use crate::exchange::{self, Form};
use crate::output::{Format, Rows, print};
use crate::store::{self, RuleQuery, RuleRow, parse_origin};
use crate::view::{self, RuleView, schema};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The form; only json and csv have all that a rule has
    #[arg(long, value_enum, default_value = "json")]
    format: Form,

    /// Only what this source set
    #[arg(long = "source", value_name = "NAME", value_parser = parse_origin)]
    origin: Option<String>,
}

/// Rows that are written together: of a long list no more are held at once.
const CHUNK: usize = 1000;

pub fn run(path: &Path, args: &Args) -> Result<()> {
    let now_ms = Clock::now()?.wall_ms();
    let query = RuleQuery { verb: None, origin: args.origin.as_deref(), now_ms, ends_by_ms: None };
    let count = store::read(path, |rows| rows.count(&query))?.unwrap_or(0);
    let mut writer = Writer::begin(args.format, count, now_ms)?;
    let mut chunk: Vec<RuleRow> = Vec::new();
    store::read(path, |rows| {
        rows.each(&query, usize::MAX, &mut |row| {
            // The rows of one target stay together.
            if chunk.len() >= CHUNK && chunk.last().is_some_and(|last| last.target != row.target) {
                writer.write(&mut chunk)?;
            }
            chunk.push(row);
            Ok(())
        })
    })?;
    writer.write(&mut chunk)?;
    writer.end()
}

/// Writes rules in a form, chunk by chunk.
enum Writer {
    Json(Rows<'static>),
    Text(Form, i64),
}

impl Writer {
    /// Begins a list of `count` rows.
    fn begin(form: Form, count: usize, now_ms: i64) -> Result<Writer> {
        if form == Form::Json {
            return Ok(Writer::Json(Rows::new(Format::Json, schema::RULES, &[])));
        }
        print(&exchange::head(form, count))?;
        Ok(Writer::Text(form, now_ms))
    }

    fn write(&mut self, rows: &mut Vec<RuleRow>) -> Result<()> {
        rows.sort_by(|one, other| (one.target, &one.origin).cmp(&(other.target, &other.origin)));
        match self {
            Writer::Json(out) => {
                out.print(rows.iter().map(|row| (view::json(&RuleView::exported(row)), Vec::new())))?;
            }
            Writer::Text(form, now_ms) => print(&exchange::lines(*form, rows, *now_ms))?,
        }
        rows.clear();
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self {
            Writer::Json(out) => out.end(&[], None),
            Writer::Text(..) => Ok(()),
        }
    }
}
