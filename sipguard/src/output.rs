//! Tables, JSON and metrics. JSON objects carry their schema's name and version.

use std::io::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

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
pub fn rows(format: Format, schema: &str, rows: Vec<Value>, table: impl FnOnce() -> String) -> Result<()> {
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&format!("{:#}\n", json!({ "schema": schema, "rows": rows }))),
        Format::Ndjson => {
            let lines: String = rows
                .into_iter()
                .map(|mut row| {
                    row["schema"] = Value::from(schema);
                    format!("{row}\n")
                })
                .collect();
            print(&lines)
        }
    }
}

/// Prints one object.
///
/// # Errors
/// When standard output can't be written.
pub fn object(format: Format, schema: &str, mut object: Value, table: impl FnOnce() -> String) -> Result<()> {
    object["schema"] = Value::from(schema);
    match format {
        Format::Table => print(&table()),
        Format::Json => print(&format!("{object:#}\n")),
        Format::Ndjson => print(&format!("{object}\n")),
    }
}

/// A plain table with a head.
#[must_use]
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text
}
