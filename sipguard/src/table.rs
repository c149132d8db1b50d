//! Plain tables for people.

use std::os::fd::AsFd;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Blanks around the content of a cell.
const PADDING: usize = 2;
/// A label is no longer than this.
const LONGEST_LABEL: usize = 16;
/// Blanks before the second line of a row, and what follows.
const INDENT: usize = 4;
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
    fitted_to(&std::io::stdout(), text)
}

/// The same for another stream than standard output.
#[must_use]
pub fn fitted_to(stream: &impl AsFd, text: &str) -> String {
    let columns = terminal_size::terminal_size_of(stream.as_fd());
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

/// Each row as heads with their values, as many beside each other as fit; what is empty is left out. Lines after the first of a row are indented.
fn records(columns: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let room = columns.saturating_sub(INDENT).max(8);
    let record = |row: &Vec<String>| {
        let mut lines: Vec<String> = Vec::new();
        for (head, value) in head.iter().zip(row).filter(|(_, value)| !value.is_empty()) {
            let pair = wrapped(&format!("{head} {value}"), room);
            match lines.last_mut() {
                Some(last)
                    if last.chars().count() + PADDING + pair[0].chars().count() <= room
                        && pair.len() == 1 =>
                {
                    *last += &format!("{:PADDING$}{}", "", pair[0]);
                }
                _ => lines.extend(pair),
            }
        }
        let line =
            |(at, line): (usize, &String)| format!("{:1$}{line}\n", "", if at == 0 { 1 } else { INDENT });
        lines.iter().enumerate().map(line).collect::<String>()
    };
    rows.iter().map(record).collect()
}

/// A text in lines of at most `room` characters, at least one. A command between backquotes stays on one line where it fits one.
#[must_use]
pub fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text, room) {
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

/// The words of a text. What is between backquotes is one, with what stands around it, unless it is longer than `room`.
fn words(text: &str, room: usize) -> Vec<String> {
    let (mut words, mut open): (Vec<String>, bool) = (Vec::new(), false);
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(last) if open && last.chars().count() + 1 + word.chars().count() <= room => {
                *last += &format!(" {word}");
            }
            _ => words.push(word.to_owned()),
        }
        open ^= word.matches('`').count() % 2 == 1;
    }
    words
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
    fn a_command_is_not_broken() {
        let text = "nothing is stopped; `sipguard mode enforce` stops it, (`sipguard list`). A ` alone";
        for room in [24, 30, 40, 60] {
            let lines = wrapped(text, room);
            assert!(lines.iter().any(|line| line.contains("`sipguard mode enforce`")), "{room}: {lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= room), "{room}: {lines:?}");
        }
        assert_eq!(wrapped("`a command that is longer than all`", 10).len(), 4);
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
            let is_table = text.lines().next().is_some_and(|head| head.ends_with("TEXT"));
            assert_eq!(is_table, columns > 70, "{columns}: {text}");
        }
        // A row is a few lines, not one for each column.
        let narrow = within(Some(60), &HEAD, vec![row(), row()]);
        assert!(
            narrow.contains("\n ADDRESS 2001:db8:1234:5678::7  PACKETS 12\n    REASON missing"),
            "{narrow}"
        );
        let whole = within(None, &HEAD, vec![row()]);
        assert_eq!(whole.lines().count(), 2, "{whole}");
        // Where all fits, nothing is stretched.
        let short = || vec![vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(within(Some(80), &["A", "B"], short()), within(None, &["A", "B"], short()));
    }
}
