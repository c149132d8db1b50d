//! Tables with commas (RFC 4180). A head names the columns; without one the first column has the addresses.

use std::fmt::Write as _;

use super::{End, Entry, Mistake, parse_time};
use crate::rule::{RuleMode, RuleVerb};
use crate::store::{RuleRow, parse_origin, parse_reason};
use crate::target::Target;
use crate::view::exact_time;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Target,
    Rule,
    Mode,
    Reason,
    Origin,
    Author,
    Created,
    Ends,
    Other,
}

const HEAD: &str = "source,rule,mode,origin,author,reason,created,ends";

fn column(name: &str) -> Column {
    match name.trim().to_ascii_lowercase().as_str() {
        "source" | "address" | "ip" | "cidr" | "network" | "target" => Column::Target,
        "rule" => Column::Rule,
        "mode" => Column::Mode,
        "reason" | "comment" => Column::Reason,
        "origin" => Column::Origin,
        "author" => Column::Author,
        "created" => Column::Created,
        "ends" | "expires" => Column::Ends,
        _ => Column::Other,
    }
}

pub(super) fn read(text: &str, wide: bool) -> Result<Vec<Entry>, Mistake> {
    let mut entries = Vec::new();
    let mut columns: Option<Vec<Column>> = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields = split(line).map_err(|column| Mistake {
            line: number + 1,
            column,
            text: "this quotation mark is not closed on its line".to_owned(),
        })?;
        let Some(columns) = &columns else {
            let head: Vec<Column> = fields.iter().map(|(_, field)| column(field)).collect();
            if head.contains(&Column::Target) {
                columns = Some(head);
                continue;
            }
            // No head: the addresses come first, and nothing is known of the rest.
            columns = Some(vec![Column::Target]);
            lines = text.lines().enumerate();
            continue;
        };
        entries.push(entry(columns, &fields, wide).map_err(|(column, text)| Mistake {
            line: number + 1,
            column,
            text,
        })?);
    }
    Ok(entries)
}

fn entry(columns: &[Column], fields: &[(usize, String)], wide: bool) -> Result<Entry, (usize, String)> {
    let target = columns.iter().position(|column| *column == Column::Target).and_then(|at| fields.get(at));
    let Some((at, target)) = target else {
        return Err((1, "this line has no address: it has fewer columns than the head".to_owned()));
    };
    let mut entry = Entry::block(target.trim().parse().map_err(|text| (*at, text))?);
    for (column, (at, field)) in columns.iter().zip(fields) {
        let field = field.trim();
        if field.is_empty() {
            continue;
        }
        let wrong = |text: String| (*at, text);
        match column {
            Column::Target | Column::Other => {}
            Column::Rule => {
                let unknown = || wrong(format!("`{field}` is no rule: write block or allow"));
                entry.verb = RuleVerb::of(field).ok_or_else(unknown)?;
            }
            Column::Mode => {
                let unknown = || wrong(format!("`{field}` is no mode: write enforce or monitor"));
                entry.mode = RuleMode::of(field).ok_or_else(unknown)?;
            }
            Column::Reason => entry.reason = Some(parse_reason(field).map_err(wrong)?),
            Column::Origin => entry.origin = Some(parse_origin(field).map_err(wrong)?),
            Column::Author => entry.author = Some(field.to_owned()),
            Column::Created => entry.created_ms = Some(parse_time(field).map_err(wrong)?),
            Column::Ends => entry.end = End::At(parse_time(field).map_err(wrong)?),
        }
    }
    entry.narrow(wide).map_err(|text| (*at, text))
}

/// The fields of a line with their columns; the column of a quotation mark that is not closed.
fn split(line: &str) -> Result<Vec<(usize, String)>, usize> {
    let mut fields = Vec::new();
    let mut characters = line.chars().enumerate().peekable();
    loop {
        let start = characters.peek().map_or(line.chars().count(), |(at, _)| *at) + 1;
        let mut field = String::new();
        if characters.next_if(|(_, character)| *character == '"').is_some() {
            loop {
                match characters.next() {
                    None => return Err(start),
                    Some((_, '"')) if characters.next_if(|(_, next)| *next == '"').is_none() => break,
                    Some((_, character)) => field.push(character),
                }
            }
        }
        while let Some((_, character)) = characters.next_if(|(_, character)| *character != ',') {
            field.push(character);
        }
        fields.push((start, field));
        if characters.next().is_none() {
            return Ok(fields);
        }
    }
}

/// A field between quotation marks.
fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

fn shown(target: &Target) -> String {
    let text = target.to_string();
    if target.source().is_some() { text } else { quoted(&text) }
}

pub(super) fn head() -> String {
    format!("{HEAD}\n")
}

pub(super) fn lines(rows: &[RuleRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let _infallible = writeln!(
            text,
            "{},{},{},{},{},{},{},{}",
            shown(&row.target),
            row.verb.name(),
            row.mode.name(),
            row.origin,
            quoted(&row.author),
            quoted(&row.reason),
            exact_time(row.created_ms),
            row.expires_ms.map(exact_time).unwrap_or_default()
        );
    }
    text
}
