//! Prometheus itself: its promtool judges metrics, rules and their tests, and it scrapes.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::{
    application::wait_until,
    guard::Site,
    message::negative_length,
    process::{Running, output},
    scratch::Scratch,
    service::{ADDRESS, Service, get},
    user_agent::is_installed,
};

use super::{control_byte, send};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const PROMETHEUS: &str = "127.0.0.1:9090";

/// promtool reads Prometheus' older text, in which a counter is called by its whole name in the lines about it.
fn older(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let counters: BTreeSet<&str> =
        lines.iter().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let older = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let (keyword, rest) = rest.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        let end = if counters.contains(name) { "_total" } else { "" };
        (keyword != "UNIT").then(|| format!("# {keyword} {name}{end} {rest}\n"))
    };
    let line = |line: &&str| {
        if line.starts_with('#') { older(line).unwrap_or_default() } else { format!("{line}\n") }
    };
    lines.iter().map(line).collect()
}

#[test]
fn promtool_accepts_the_metrics() -> Result<()> {
    if !is_installed("promtool", "prometheus") {
        return Ok(());
    }
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    site.guard.run(&["trunk", "add", "carrier", "--peer", "192.0.2.0/24"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    send(&site, &control_byte(), 2)?;
    let answer = service.get("/metrics")?;
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    ensure!(answer.headers.contains(kind) && answer.body.ends_with("# EOF\n"), "{answer:?}");
    ensure!(!answer.body.contains("10.77."), "an address is a label");
    for text in [answer.body, site.guard.run(&["counters", "--format", "prometheus"])?.expect(0)?.stdout] {
        let mut promtool = Command::new("promtool");
        promtool
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut promtool = promtool.spawn().context("starting promtool")?;
        promtool.stdin.take().context("no pipe")?.write_all(older(&text).as_bytes())?;
        let said = promtool.wait_with_output()?;
        let said = (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned());
        ensure!(said == (Some(0), String::new()), "promtool check metrics: {said:?}");
    }
    Ok(())
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() -> Result<()> {
    if !is_installed("promtool", "prometheus") {
        return Ok(());
    }
    let file = |name: &str| format!("{DIRECTORY}/prometheus/{name}");
    println!("{}", output(Command::new("promtool").args(["check", "rules", &file("sipguard.rules.yml")]))?);
    println!("{}", output(Command::new("promtool").args(["test", "rules", &file("tests.yml")]))?);
    Ok(())
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let inside = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == ':';
    text.split(|one| !inside(one)).filter(|name| name.starts_with("sipguard_")).map(str::to_owned).collect()
}

/// The labels by which samples are chosen in a text, with the names of their metrics.
fn asked_labels(text: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for (at, _) in text.match_indices("sipguard_") {
        let Some((name, rest)) = text[at..].split_once('{') else { continue };
        if name.contains(|one: char| !one.is_ascii_alphanumeric() && one != '_') {
            continue;
        }
        let chosen = rest.split_once('}').map_or("", |(chosen, _)| chosen);
        // A value may have a comma, and no equals sign.
        let labels = chosen.split('=').rev().skip(1).filter_map(|before| before.rsplit([',', ' ']).next());
        all.extend(labels.map(|label| (name, label.trim_end_matches(['!', '~']))));
    }
    all
}

#[test]
fn dashboard_and_rules_ask_for_metrics_that_there_are() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    site.guard.run(&["trunk", "add", "carrier", "--peer", "192.0.2.0/24"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    let metrics = service.get("/metrics")?.body;
    let sample = |line: &str| Some(line.split(['{', ' ']).next()?.to_owned());
    let there: BTreeSet<String> =
        metrics.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
    let read = |name: &str| std::fs::read_to_string(format!("{DIRECTORY}/{name}")).context(name.to_owned());
    let dashboard = read("grafana/sipguard.json")?;
    let parsed: Value = serde_json::from_str(&dashboard).context("the dashboard is no JSON")?;
    ensure!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 5), "panels");
    for text in [dashboard, read("prometheus/sipguard.rules.yml")?, read("prometheus/tests.yml")?] {
        let asked = names(&text);
        ensure!(asked.len() > 4, "{asked:?}");
        let missing: Vec<&String> = asked.difference(&there).collect();
        ensure!(missing.is_empty(), "{missing:?} is not among {there:#?}");
        for (name, label) in asked_labels(&text) {
            let has =
                |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(&format!("{label}=\""));
            // Those that Prometheus adds.
            let is_own = ["instance", "job"].contains(&label);
            ensure!(is_own || metrics.lines().any(|line| has(&line)), "{name} has no label {label}");
        }
    }
    Ok(())
}

#[test]
fn prometheus_scrapes_what_the_counters_say() -> Result<()> {
    if !is_installed("prometheus", "prometheus") {
        return Ok(());
    }
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let service = Service::start(&site, &scratch, &[])?;
    send(&site, &negative_length().bytes, 41)?;
    send(&site, &control_byte(), 5)?;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: ['{DIRECTORY}/prometheus/sipguard.rules.yml']\n\
         scrape_configs: [{{job_name: sipguard, static_configs: [{{targets: ['{ADDRESS}']}}]}}]\n"
    );
    let config = scratch.write("prometheus.yml", &config)?;
    let log = File::create(scratch.join("prometheus.log"))?;
    let mut command = site.pbx.command("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", scratch.join("data").display()));
    command.arg(format!("--web.listen-address={PROMETHEUS}")).stderr(log);
    let mut prometheus = Running::start("prometheus", &mut command)?;
    let query = |query: &str| -> Result<Vec<Value>> {
        // Before it listens, and until it has read its own log, there is no answer.
        let Ok(answer) = get(&site, PROMETHEUS, &format!("/api/v1/query?query={query}")) else {
            return Ok(Vec::new());
        };
        let Ok(value) = serde_json::from_str::<Value>(&answer.body) else { return Ok(Vec::new()) };
        Ok(value["data"]["result"].as_array().cloned().unwrap_or_default())
    };
    let samples = || query("sipguard_dropped_packets_total%3E0");
    wait_until("Prometheus answers with what it scraped", || {
        prometheus.expect_alive()?;
        Ok(!samples()?.is_empty())
    })?;
    let mut scraped: Vec<(String, String)> = samples()?
        .iter()
        .map(|row| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            ensure!(row["metric"]["interface"] == "eth0" && row["metric"]["job"] == "sipguard", "{row}");
            Ok((text(&row["metric"]["reason"]), text(&row["value"][1])))
        })
        .collect::<Result<_>>()?;
    scraped.sort();
    let rows =
        site.guard.counter_rows()?.into_iter().filter(|row| ["drop", "reset"].contains(&row.action.as_str()));
    let mut counted: Vec<(String, String)> = rows.map(|row| (row.reason, row.packets.to_string())).collect();
    counted.sort();
    ensure!(scraped == counted && counted.len() == 2, "scraped {scraped:?}, counted {counted:?}");
    let attached = query("sipguard_attached")?;
    ensure!(attached.len() == 1 && attached[0]["value"][1] == "1", "{attached:?}");
    // Nothing is to be told of a guard that works.
    ensure!(query("ALERTS%7Balertstate=%22firing%22%7D")?.is_empty(), "an alert fires");
    let (rss, cpu) = service.cost()?;
    println!("serve, scraped every second: {rss} kB resident, {} ms of CPU since its start", cpu.as_millis());
    Ok(())
}
