//! `check` and `config`.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use sipguard_core::config::{DEFAULT_FILE, Invalid, LoadedConfig, Location, Problem, Shown};

use super::{Format, object, rows};

/// Whether the configuration is valid.
#[derive(Serialize)]
struct CheckDocument<'a> {
    valid: bool,
    /// The files that were read; left out of an invalid configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<&'a Path>>,
    /// What is doubtful; left out of an invalid configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a [String]>,
    problems: Vec<ProblemRow<'a>>,
}

/// What is wrong, and where; the place is left out where it is about no content of a file.
#[derive(Default, Serialize)]
struct ProblemRow<'a> {
    #[serde(flatten)]
    location: Option<LocationRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    problem: &'a str,
}

/// A place in a file; line and column count from 1.
#[derive(Serialize)]
struct LocationRow<'a> {
    file: &'a Path,
    line: usize,
    column: usize,
}

/// A setting that is in effect.
#[derive(Serialize)]
struct SettingRow<'a> {
    table: &'a str,
    key: &'a str,
    value: &'a Value,
    /// The file that sets it; null for a default.
    file: Option<&'a Path>,
    line: Option<usize>,
}

/// Prints what `check` found; what is wrong is for people the failure of the verb.
pub fn check(format: Format, loaded: &Result<LoadedConfig, Invalid>) -> Result<()> {
    let document = match loaded {
        Ok(LoadedConfig { sources, warnings, .. }) => CheckDocument {
            valid: true,
            files: Some(sources.paths()),
            warnings: Some(warnings),
            problems: Vec::new(),
        },
        Err(invalid) => {
            CheckDocument { valid: false, files: None, warnings: None, problems: problems(invalid) }
        }
    };
    if loaded.is_err() && format == Format::Table {
        return Ok(());
    }
    object(format, "sipguard.check/1", &document, || match loaded {
        Ok(LoadedConfig { sources, .. }) if sources.0.is_empty() => {
            format!("there is no {DEFAULT_FILE}: the defaults hold\n")
        }
        Ok(LoadedConfig { sources, .. }) => {
            sources.paths().iter().map(|file| format!("{}: valid\n", file.display())).collect()
        }
        Err(_) => String::new(),
    })
}

fn problems(invalid: &Invalid) -> Vec<ProblemRow<'_>> {
    let Invalid { sentences, problems } = invalid;
    if problems.is_empty() {
        return sentences.iter().map(|problem| ProblemRow { problem, ..ProblemRow::default() }).collect();
    }
    problems.iter().map(problem_row).collect()
}

fn problem_row(problem: &Problem) -> ProblemRow<'_> {
    let Problem { location: Location { path, line, column, .. }, key, text } = problem;
    let location = Some(LocationRow { file: path, line: *line, column: *column });
    ProblemRow { location, key: Some(key), problem: text }
}

fn setting_row(shown: &Shown) -> SettingRow<'_> {
    let Shown { table, key, value, location } = shown;
    let location = location.as_ref();
    SettingRow {
        table,
        key,
        value,
        file: location.map(|one| one.path.as_path()),
        line: location.map(|one| one.line),
    }
}

pub fn show(format: Format, shown: &[Shown]) -> Result<()> {
    rows(format, "sipguard.config/1", shown.iter().map(setting_row).collect(), || {
        let mut text = String::new();
        for all in shown.chunk_by(|one, other| one.table == other.table) {
            let blank = if text.is_empty() { "" } else { "\n" };
            text += &format!("{blank}[{}]\n", all[0].table);
            all.iter().for_each(|one| text += &format!("{one}\n"));
        }
        text
    })
}
