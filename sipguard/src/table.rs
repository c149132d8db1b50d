//! Plain tables for people.

use comfy_table::{ContentArrangement, Table, presets};

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
