//! What an operator looks up in an alarm: each alert is in the document, with the first thing to do.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

#[test]
fn each_alert_has_a_first_thing_to_do() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = fs::read_to_string(root.join("deploy/prometheus/sipguard.rules.yml"))?;
    let mut alerts = BTreeMap::new();
    for rule in rules.split("- alert: ").skip(1) {
        let (name, rest) = rule.split_once('\n').context("a name")?;
        let severity = rest.split_once("severity: ").context("a severity")?.1;
        alerts.insert(name.trim(), severity.lines().next().unwrap_or_default().trim());
    }
    ensure!(alerts.len() > 5, "{alerts:?}");
    let page = fs::read_to_string(root.join("docs/guide/operations.md"))?;
    let table = page.split_once("## What each alert means").context("a section of alerts")?.1;
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let mut told = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, severity, meaning, first] = cells[..] else { anyhow::bail!("not four cells: {row}") };
        ensure!(!meaning.is_empty(), "{name} means nothing");
        let says =
            ["`sipguard ", "`systemctl ", "`journalctl ", "](#"].iter().any(|what| first.contains(what));
        ensure!(says, "{name}: the first thing to do is no command: {first}");
        told.insert(name.trim_matches('`'), severity);
    }
    ensure!(told == alerts, "the rules have {alerts:?}, docs/guide/operations.md has {told:?}");
    Ok(())
}
