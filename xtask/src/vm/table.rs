//! What came of it.

use std::fmt;

/// What became of a cell.
#[derive(Debug)]
pub struct Outcome {
    /// The cell.
    pub name: String,
    /// What failed.
    pub failure: Option<String>,
    /// What is worth knowing of one that is good.
    pub detail: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Some(failure) => write!(f, "{}: FAILED: {failure}", self.name),
            None if self.detail.is_empty() => write!(f, "{}: ok", self.name),
            None => write!(f, "{}: ok, {}", self.name, self.detail),
        }
    }
}

/// A row a kernel, a column a cell or step.
#[derive(Debug)]
pub struct Table {
    what: &'static str,
    cells: Vec<String>,
    rows: Vec<(String, Vec<Outcome>)>,
}

impl Table {
    /// A table of these cells, without rows; `what` the rows are.
    pub fn new(what: &'static str, cells: &[String]) -> Self {
        Self { what, cells: cells.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, name: &str, outcomes: Vec<Outcome>) {
        self.rows.push((name.to_owned(), outcomes));
    }

    /// Whether every cell of every row is good.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|(_, row)| self.cells.iter().all(|name| is_good(row, name) == Some(true)))
    }
}

/// `None` when there is no outcome.
fn is_good(row: &[Outcome], name: &str) -> Option<bool> {
    row.iter().find(|outcome| outcome.name == name).map(|outcome| outcome.failure.is_none())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let first = self.rows.iter().map(|(kernel, _)| kernel.len()).max().unwrap_or(0).max(self.what.len());
        write!(f, "{:first$}", self.what)?;
        self.cells.iter().try_for_each(|name| write!(f, "  {name:6}"))?;
        writeln!(f)?;
        for (kernel, row) in &self.rows {
            write!(f, "{kernel:first$}")?;
            for name in &self.cells {
                let word = match is_good(row, name) {
                    Some(true) => "ok",
                    Some(false) => "FAILED",
                    None => "none",
                };
                write!(f, "  {word:width$}", width = name.len().max(6))?;
            }
            writeln!(f)?;
        }
        for (kernel, row) in &self.rows {
            for outcome in row.iter().filter(|outcome| outcome.failure.is_some()) {
                writeln!(f, "{kernel}: {outcome}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, failure: Option<&str>) -> Outcome {
        Outcome { name: name.to_owned(), failure: failure.map(str::to_owned), detail: "native 8s".to_owned() }
    }

    #[test]
    fn a_failure_and_a_cell_without_outcome_are_not_good() {
        let cells = ["veth".to_owned(), "bridge-port".to_owned()];
        let mut table = Table::new("kernel", &cells);
        table.add("6.1.192-3", vec![outcome("veth", None), outcome("bridge-port", None)]);
        assert!(table.is_good());
        table.add("6.12", vec![outcome("veth", Some("no load"))]);
        assert!(!table.is_good());
        let text = "kernel     veth    bridge-port\n6.1.192-3  ok      ok         \n6.12       FAILED  none       \n\
                    6.12: veth: FAILED: no load\n";
        assert_eq!(table.to_string(), text);
    }
}
