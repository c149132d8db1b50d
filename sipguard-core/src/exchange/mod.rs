//! Lists of rules in the forms that others write and read. Pure: text in, entries out, and back.

mod csv;
mod ipset;
mod json;
mod txt;

use std::fmt;

use clap::ValueEnum;

use crate::rule::{RuleMode, RuleVerb};
use crate::store::RuleRow;
use crate::target::Target;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Addresses and prefixes, separated by white space; `#` or `;` begins a comment
    Txt,
    /// A table with a head, or with addresses in its first column
    Csv,
    /// What `export` writes, or a list of addresses
    Json,
    /// What `ipset save` writes, of the types hash:ip and hash:net
    Ipset,
}

/// One rule of a list. What the list does not say is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub target: Target,
    /// Block, unless it says otherwise.
    pub verb: RuleVerb,
    /// Enforce, unless it says otherwise.
    pub mode: RuleMode,
    /// Why.
    pub reason: Option<String>,
    /// Who set it.
    pub origin: Option<String>,
    /// By whose hand.
    pub author: Option<String>,
    /// When it was set (milliseconds since 1970, UTC).
    pub created_ms: Option<i64>,
    /// When it ends.
    pub end: End,
}

/// When an entry ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// The list does not say.
    #[default]
    Unsaid,
    /// Never.
    Never,
    /// At a wall time in milliseconds.
    At(i64),
    /// After seconds from now.
    After(u64),
}

/// What is wrong with a list, and where. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

impl Entry {
    /// A block of a target that says nothing else.
    #[must_use]
    pub fn block(target: Target) -> Entry {
        Entry {
            target,
            verb: RuleVerb::Block,
            mode: RuleMode::Enforce,
            reason: None,
            origin: None,
            author: None,
            created_ms: None,
            end: End::Unsaid,
        }
    }

    /// Itself, unless it is a block of a prefix that nobody means.
    fn narrow(self, wide: bool) -> Result<Entry, String> {
        match self.target {
            Target::Source(source) if self.verb == RuleVerb::Block && source.is_wide() && !wide => {
                Err(format!(
                    "{source} is shorter than /{}: leave it out, or take it by `--force`",
                    source.least_bits()
                ))
            }
            _ => Ok(self),
        }
    }
}

/// The form of a list, by its name, or else by how it begins.
#[must_use]
pub fn guess(name: &str, text: &str) -> Form {
    match name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).as_deref() {
        Some("json") => return Form::Json,
        Some("csv") => return Form::Csv,
        Some("ipset") => return Form::Ipset,
        Some("txt" | "netset" | "list") => return Form::Txt,
        _ => {}
    }
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    match line.unwrap_or_default() {
        line if line.starts_with(['{', '[']) => Form::Json,
        line if ["create ", "add "].iter().any(|word| line.starts_with(word)) => Form::Ipset,
        line if line.contains(',') => Form::Csv,
        _ => Form::Txt,
    }
}

/// Reads a list, all of it or the first mistake. A block of a prefix that holds much of the internet is one, unless `wide` takes it.
///
/// # Errors
/// The first mistake.
pub fn read(form: Form, text: &str, wide: bool) -> Result<Vec<Entry>, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match form {
        Form::Txt => txt::read(text, wide),
        Form::Csv => csv::read(text, wide),
        Form::Json if wide => json::read::<true>(text),
        Form::Json => json::read::<false>(text),
        Form::Ipset => ipset::read(text, wide),
    }
}

/// How a list of `count` rules begins, in a form of lines.
#[must_use]
pub fn head(form: Form, count: usize) -> String {
    match form {
        Form::Txt | Form::Json => String::new(),
        Form::Csv => csv::head(),
        Form::Ipset => ipset::head(count),
    }
}

/// Rules in a form of lines; those of one target come together. Forms that can't say who allows or by whom leave it out.
#[must_use]
pub fn lines(form: Form, rows: &[RuleRow], now_ms: i64) -> String {
    match form {
        Form::Txt => txt::lines(rows),
        Form::Csv => csv::lines(rows),
        Form::Json => String::new(),
        Form::Ipset => ipset::lines(rows, now_ms),
    }
}

/// The words of a line with their columns, up to a comment.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let start = line.as_ptr() as usize;
    line.split_whitespace().map(move |word| {
        let offset = word.as_ptr() as usize - start;
        // Counted only where it can differ: most lines are ASCII, and one word long.
        let column = if offset == 0 { 0 } else { line[..offset].chars().count() };
        (column + 1, word)
    })
}

/// RFC 3339 to milliseconds.
fn parse_time(text: &str) -> Result<i64, String> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| format!("`{text}` is no time: write such as 2026-01-31T12:00:00Z"))
}
