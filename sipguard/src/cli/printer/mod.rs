//! What comes of an operation as a table, as JSON or as NDJSON. JSON objects carry their schema's name and version.

pub mod attach;
pub mod bans;
pub mod capture;
pub mod checks;
pub mod config;
pub mod counters;
pub mod crash;
pub mod denial;
pub mod events;
pub mod explain;
pub mod export;
pub mod feed;
pub mod limit;
pub mod list;
pub mod log;
pub mod lookup;
pub mod mode;
pub mod reload;
#[cfg(feature = "replay")]
pub mod replay;
pub mod rule;
pub mod status;
pub mod trunk;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use sipguard_core::clock::Clock;
use sipguard_core::container;
use sipguard_core::duration;
use sipguard_core::notice::Notice;

use crate::table::{fitted, fitted_to, table};

/// How a verb prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// One JSON object a row.
    Ndjson,
}

/// Prints text; a reader that went away early is no failure.
///
/// # Errors
/// When standard output can't be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints rows as they are wanted. `table` makes the people's form.
///
/// # Errors
/// When standard output can't be written.
pub fn rows<T: Serialize>(
    format: Format,
    schema: &str,
    rows: Vec<T>,
    table: impl FnOnce() -> String,
) -> Result<()> {
    match format {
        Format::Table => print(&fitted(&table())),
        Format::Json => print(&format!("{:#}\n", json!({ "schema": schema, "rows": rows }))),
        Format::Ndjson => {
            let lines: String = rows
                .into_iter()
                .map(|row| Ok(format!("{}\n", with_schema(&row, schema)?)))
                .collect::<Result<_>>()?;
            print(&lines)
        }
    }
}

/// Rows that are printed while they come, chunk by chunk.
pub struct Rows<'h> {
    format: Format,
    schema: &'static str,
    head: &'h [&'h str],
    printed: usize,
}

impl<'h> Rows<'h> {
    /// None printed yet.
    #[must_use]
    pub fn new(format: Format, schema: &'static str, head: &'h [&'h str]) -> Rows<'h> {
        Rows { format, schema, head, printed: 0 }
    }

    /// Prints a chunk: each row as JSON and as cells. The columns of a table fit its chunk.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn print(&mut self, rows: impl Iterator<Item = (Value, Vec<String>)>) -> Result<()> {
        let mut text = String::new();
        let mut cells = Vec::new();
        let first = self.printed == 0;
        for (mut value, line) in rows {
            match self.format {
                Format::Table => cells.push(line),
                Format::Json => {
                    let comma = if self.printed == 0 { "" } else { "," };
                    text += &format!("{comma}\n    {}", format!("{value:#}").replace('\n', "\n    "));
                }
                Format::Ndjson => {
                    value["schema"] = Value::from(self.schema);
                    text += &format!("{value}\n");
                }
            }
            self.printed += 1;
        }
        match self.format {
            Format::Table if first => text = table(self.head, cells),
            Format::Table if !cells.is_empty() => {
                let whole = table(self.head, cells);
                whole.split_once('\n').map_or("", |(_, rows)| rows).clone_into(&mut text);
            }
            Format::Json if first => text.insert_str(0, "{\n  \"rows\": ["),
            Format::Table | Format::Json | Format::Ndjson => {}
        }
        print(&text)
    }

    /// Ends it: with more fields in JSON, and a line for people.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn end(self, fields: &[(&str, Value)], line: Option<&str>) -> Result<()> {
        match (self.format, line) {
            (Format::Table, line) => print(line.unwrap_or_default()),
            (Format::Json, _) => {
                let close = if self.printed == 0 { "]" } else { "\n  ]" };
                let fields: String = fields
                    .iter()
                    .map(|(name, value)| format!("  {}: {value},\n", Value::from(*name)))
                    .collect();
                print(&format!("{close},\n{fields}  \"schema\": {}\n}}\n", Value::from(self.schema)))
            }
            (Format::Ndjson, Some(line)) => {
                // Each line of it is a row.
                notice(&Notice(line.trim_end().to_owned()));
                Ok(())
            }
            (Format::Ndjson, None) => Ok(()),
        }
    }
}

/// Prints one object.
///
/// # Errors
/// When standard output can't be written.
pub fn object<T: Serialize>(
    format: Format,
    schema: &str,
    object: &T,
    table: impl FnOnce() -> String,
) -> Result<()> {
    match format {
        Format::Table => print(&fitted(&table())),
        Format::Json => print(&format!("{:#}\n", with_schema(object, schema)?)),
        Format::Ndjson => print(&format!("{}\n", with_schema(object, schema)?)),
    }
}

fn with_schema<T: Serialize>(object: &T, schema: &str) -> Result<Value> {
    let mut value = serde_json::to_value(object).context("making JSON of a document")?;
    value["schema"] = schema.into();
    Ok(value)
}

/// Prints a notice on standard error. One that is gone has nobody to read it.
pub fn notice(notice: &Notice) {
    complaint(&notice.0);
}

/// Prints text behind the name of the program on standard error, in lines as wide as a terminal.
pub fn complaint(text: &str) {
    let mut err = std::io::stderr();
    let text = fitted_to(&err, &format!("sipguard: {text}\n"));
    let _gone = err.write_all(text.as_bytes());
}

/// Prints notices on standard error.
pub fn notices<'n>(all: impl IntoIterator<Item = &'n Notice>) {
    all.into_iter().for_each(notice);
}

/// Says, to people alone, that something takes effect with the next `attach`.
pub fn not_attached(format: Format, in_force: bool, what: &str) {
    if format == Format::Table && !in_force {
        notice(&Notice(format!(
            "not attached: {what} with the next `sipguard attach{}`",
            container::option()
        )));
    }
}

/// That somebody's mode is monitor; empty where it is nobody's. `whose` as in [`sipguard_core::view::LimitView::monitored_by`].
pub fn only_counted(whose: Option<&str>) -> String {
    whose.map(|whose| format!("; only counted: mode monitor of the {whose}")).unwrap_or_default()
}

/// `1 thing` or `n things`.
pub fn plural(count: usize, thing: &str) -> String {
    if count == 1 {
        return format!("1 {thing}");
    }
    format!("{count} {thing}s")
}

/// `never`, or such as `in 14m 3s`.
pub fn remaining(expires_ms: Option<i64>, clock: &Clock) -> String {
    let Some(end) = expires_ms else { return "never".to_owned() };
    let left = Duration::from_secs(u64::try_from(end - clock.wall_ms()).unwrap_or(0).div_ceil(1000));
    format!("in {}", duration::shown(left))
}
