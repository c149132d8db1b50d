//! Prometheus itself: its promtool judges metrics, rules and their tests, and it scrapes.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::wait_until,
    guard::Site,
    message::negative_length,
    process::{Running, output},
    scratch::Scratch,
    service::{ADDRESS, Service, ask, get},
    user_agent::is_installed,
};

use super::{control_byte, send};

pub const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const LISTENS: &str = "127.0.0.1:9090";

/// Prometheus, which scrapes `serve` every second and evaluates the rules as often; beside it, in the namespace of the PBX.
pub struct Prometheus<'s> {
    site: &'s Site,
    _running: Running,
}

impl<'s> Prometheus<'s> {
    /// Starts it.
    pub fn start(site: &'s Site, scratch: &Scratch) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{DIRECTORY}/prometheus/sipguard.rules.yml']\n\
             scrape_configs: [{{job_name: sipguard, static_configs: [{{targets: ['{ADDRESS}']}}]}}]\n"
        );
        let config = scratch.write("prometheus.yml", &config)?;
        let log = File::create(scratch.join("prometheus.log"))?;
        let mut command = site.pbx.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", scratch.join("data").display()));
        command.arg(format!("--web.listen-address={LISTENS}")).stderr(log);
        Ok(Self { site, _running: Running::start("prometheus", &mut command)? })
    }

    /// What it answers about a path of its API; nothing before it listens, and until it has read its own log.
    pub fn answer(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&get(self.site, LISTENS, &format!("/api/v1/{path}")).ok()?.body).ok()
    }

    /// The samples that a query gives now.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let plain = |byte: u8| {
            if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        let encoded: String = query.bytes().map(plain).collect();
        let Some(value) = self.answer(&format!("query?query={encoded}")) else { return Ok(Vec::new()) };
        ensure!(value["status"] == "success", "{query}: {value}");
        Ok(value["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a query gives samples.
    pub fn wait_for(&self, query: &str) -> Result<()> {
        wait_until(&format!("there are samples of {query}"), || Ok(!self.query(query)?.is_empty()))
    }
}

/// Who reads OpenMetrics as its specification demands it: Prometheus itself takes more.
const STRICT: &str = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                      print(sum(len(family.samples) for family in read(sys.stdin.read())))";

/// What a program says of a text: its exit status, and both of its streams.
fn judged(command: &mut Command, text: &str) -> Result<(Option<i32>, String)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting a judge")?;
    child.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
    let said = child.wait_with_output()?;
    let streams = [said.stdout, said.stderr].concat();
    Ok((said.status.code(), String::from_utf8_lossy(&streams).trim().to_owned()))
}

/// Samples by name and labels, whose values say nothing here.
fn samples(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[test]
fn both_forms_are_what_their_readers_demand() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    site.guard.run(&["trunk", "add", "carrier", "--peer", "192.0.2.0/24"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    send(&site, &control_byte(), 2)?;
    wait_until("it is counted", || Ok(site.guard.counted(Reason::ControlByte)? == 2))?;
    let printed = |form: &str| anyhow::Ok(site.guard.run(&["counters", "--format", form])?.expect(0)?.stdout);
    let ask = |accept: &str| {
        ask(&site, ADDRESS, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"))
    };
    let (older, open) =
        (service.get("/metrics")?, ask("application/openmetrics-text;version=1.0.0,*/*;q=0.1")?);
    ensure!(older.headers.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{older:?}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    ensure!(open.headers.contains(kind) && open.body.ends_with("# EOF\n"), "{open:?}");
    ensure!([&older, &open].iter().all(|answer| answer.headers.contains("vary: accept")), "{older:?}");
    ensure!(samples(&older.body) == samples(&open.body), "the forms differ: {older:?} {open:?}");
    ensure!(!open.body.contains("10.77."), "an address is a label");
    for reason in ["control-byte", "bare-lf"] {
        let label = format!("reason=\"{reason}\"");
        ensure!(older.body.contains(&label) == (reason == "control-byte"), "{reason}: {}", older.body);
        ensure!(service.get("/metrics?all=1")?.body.contains(&label), "{reason} is not among all");
        let all = site.guard.run(&["counters", "--format", "prometheus", "--all"])?.expect(0)?.stdout;
        ensure!(all.contains(&label), "{reason} is not among all: {all}");
    }
    ensure!(site.guard.run(&["counters", "--format", "json", "--all"])?.status == 2, "--all of JSON");
    let (printed_older, printed_open) = (printed("prometheus")?, printed("openmetrics")?);
    ensure!(samples(&printed_older) == samples(&printed_open), "the printed forms differ");
    if is_installed("promtool", "prometheus") {
        let all = service.get("/metrics?all=1")?.body;
        for text in [&older.body, &all, &printed_older] {
            let said = judged(Command::new("promtool").args(["check", "metrics"]), text)?;
            ensure!(said == (Some(0), String::new()), "promtool check metrics: {said:?}");
        }
    }
    // Debian's: another Python may come first in the path.
    let mut python = Command::new("/usr/bin/python3");
    if python.args(["-c", "import prometheus_client"]).output().is_ok_and(|output| output.status.success()) {
        for text in [&open.body, &printed_open] {
            let said = judged(Command::new("/usr/bin/python3").args(["-c", STRICT]), text)?;
            let count = samples(text).len().to_string();
            ensure!(said == (Some(0), count.clone()), "of {count} samples: {said:?}");
        }
    } else {
        println!("skipped: the strict reader of OpenMetrics is not installed (python3-prometheus-client)");
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

#[test]
fn prometheus_scrapes_what_the_counters_say() -> Result<()> {
    if !is_installed("prometheus", "prometheus") {
        return Ok(());
    }
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let service = Service::start(&site, &scratch, &[])?;
    send(&site, &negative_length().bytes, 41)?;
    send(&site, &control_byte(), 5)?;
    let prometheus = Prometheus::start(&site, &scratch)?;
    let query = |query: &str| prometheus.query(query);
    let samples = || query("sipguard_dropped_packets_total > 0");
    prometheus.wait_for("sipguard_dropped_packets_total > 0")?;
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
    ensure!(query("ALERTS{alertstate=\"firing\"}")?.is_empty(), "an alert fires");
    let (rss, cpu) = service.cost()?;
    println!("serve, scraped every second: {rss} kB resident, {} ms of CPU since its start", cpu.as_millis());
    Ok(())
}
