//! Plain tables for people.

use std::os::fd::AsFd as _;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Blanks around the content of a cell.
const PADDING: usize = 2;
/// A label is no longer than this.
const LONGEST_LABEL: usize = 16;
/// A word that is longer than this may be broken.
const LONGEST_WORD: usize = 40;

/// A plain table with a head. On a terminal it is as wide as that: a long cell takes several lines, and where the words of a row do not fit beside
/// each other, they stand below each other. In a pipe each row is one line.
#[must_use]
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let columns = terminal_size::terminal_size_of(std::io::stdout().as_fd());
    within(columns.map(|(width, _)| usize::from(width.0)), head, rows.into_iter().collect())
}

/// Lines that are no wider than the terminal: what is too long goes on below, behind its label. In a pipe all stays as it is.
#[must_use]
pub fn fitted(text: &str) -> String {
    let columns = terminal_size::terminal_size_of(std::io::stdout().as_fd());
    columns.map_or_else(|| text.to_owned(), |(width, _)| folded(usize::from(width.0), text))
}

/// The same in so many columns. A command to copy stays one line.
fn folded(columns: usize, text: &str) -> String {
    let fold = |line: &str| {
        let label = label(line);
        let (head, rest) = line.split_at(label);
        if line.chars().count() <= columns || rest.starts_with("sipguard ") {
            return format!("{line}\n");
        }
        let head_width = head.chars().count();
        // Of what has no label the second line is told from the next one.
        let indent = if head_width == 0 { 4 } else { head_width };
        let lines = wrapped(rest, columns.saturating_sub(indent.max(head_width)).max(8));
        let blank = " ".repeat(indent);
        let each = |(at, part): (usize, &String)| format!("{}{part}\n", if at == 0 { head } else { &blank });
        lines.iter().enumerate().map(each).collect()
    };
    text.lines().map(fold).collect()
}

/// Bytes of a line before its text: blanks, and a label that two blanks or more set apart.
fn label(line: &str) -> usize {
    let blanks = line.len() - line.trim_start().len();
    let Some(gap) = line[blanks..].find("  ").filter(|gap| *gap < LONGEST_LABEL) else { return blanks };
    let from = blanks + gap;
    from + (line[from..].len() - line[from..].trim_start().len())
}

/// The same in so many columns; without, as wide as its cells are.
fn within(columns: Option<usize>, head: &[&str], rows: Vec<Vec<String>>) -> String {
    let widths = |width: fn(&str) -> usize| -> Vec<usize> {
        let widest = |(at, head): (usize, &&str)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell));
            cells.chain([width(head)]).max().unwrap_or(0) + PADDING
        };
        head.iter().enumerate().map(widest).collect()
    };
    let words = widths(|text| longest_word(text).min(LONGEST_WORD));
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut is_wrapped = false;
    if let Some(columns) = columns
        && widths(|text| text.chars().count()).iter().sum::<usize>() > columns
    {
        if words.iter().sum::<usize>() > columns {
            return records(columns, head, &rows);
        }
        is_wrapped = true;
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(columns).unwrap_or(u16::MAX));
    }
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    if is_wrapped {
        for (column, width) in table.column_iter_mut().zip(words) {
            let width = Width::Fixed(u16::try_from(width).unwrap_or(u16::MAX));
            column.set_constraint(ColumnConstraint::LowerBoundary(width));
        }
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn longest_word(text: &str) -> usize {
    text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0)
}

/// Each row as lines of a head and a value; what is empty is left out.
fn records(columns: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let label = head.iter().map(|head| head.chars().count()).max().unwrap_or(0);
    let room = columns.saturating_sub(label + PADDING + 1).max(8);
    let record = |row: &Vec<String>| {
        let mut text = String::new();
        for (head, value) in head.iter().zip(row).filter(|(_, value)| !value.is_empty()) {
            for (at, line) in wrapped(value, room).iter().enumerate() {
                text += &format!(" {:<label$}  {line}\n", if at == 0 { head } else { "" });
            }
        }
        text
    };
    rows.iter().map(record).collect::<Vec<_>>().join("\n")
}

/// A text in lines of at most `room` characters, at least one.
#[must_use]
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let chars: Vec<char> = word.chars().collect();
        for part in chars.chunks(room) {
            let last = lines.last_mut().map_or(0, |line| line.chars().count());
            if last > 0 && last + 1 + part.len() > room {
                lines.push(String::new());
            }
            let Some(line) = lines.last_mut() else { continue };
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(part);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [&str; 4] = ["ADDRESS", "PACKETS", "REASON", "TEXT"];

    fn row() -> Vec<String> {
        let text = "a text of many words ".repeat(8);
        ["2001:db8:1234:5678::7", "12", "missing-content-length", &text].map(str::to_owned).into()
    }

    #[test]
    fn a_long_line_goes_on_behind_its_label() {
        let words = "a text of many words ".repeat(8);
        let text = format!("now         {words}\n{words}\n            sipguard block {words}\nshort\n");
        for columns in [40, 60, 80] {
            let shown = folded(columns, &text);
            let lines: Vec<&str> = shown.lines().collect();
            let wide: Vec<&&str> = lines.iter().filter(|line| line.chars().count() > columns).collect();
            assert!(
                matches!(wide[..], [one] if one.trim().starts_with("sipguard block")),
                "{columns}: {shown}"
            );
            assert!(
                lines[1].starts_with("            ") && !lines[1].starts_with("             "),
                "{shown}"
            );
            assert!(shown.contains("\na text") && shown.ends_with("\nshort\n"), "{shown}");
            assert_eq!(shown.split_whitespace().count(), text.split_whitespace().count());
        }
    }

    #[test]
    fn a_table_fits_its_terminal_and_is_whole_in_a_pipe() {
        for columns in [30, 40, 60, 80, 100] {
            let text = within(Some(columns), &HEAD, vec![row(), row()]);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{columns}: {widest:?}\n{text}");
            // No word is broken that has room.
            for word in ["2001:db8:1234:5678::7", "missing-content-length", "PACKETS"] {
                assert!(columns < 40 || text.contains(word), "{columns}: {text}");
            }
            assert_eq!(text.starts_with(" ADDRESS  2001:db8"), columns < 70, "{columns}: {text}");
        }
        let whole = within(None, &HEAD, vec![row()]);
        assert_eq!(whole.lines().count(), 2, "{whole}");
        // Where all fits, nothing is stretched.
        let short = || vec![vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(within(Some(80), &["A", "B"], short()), within(None, &["A", "B"], short()));
    }
}
