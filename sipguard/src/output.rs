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
                eprint!("sipguard: {line}");
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
