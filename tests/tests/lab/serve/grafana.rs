//! The dashboard for Grafana: Prometheus has data for each of its queries, and its panels are as Grafana takes them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::abi::Ban;
use sipguard_core::{bans::Bans, clock::Clock, pins::Pins};
use sipguard_tests::{
    application::{Server, sip},
    guard::Site,
    message::OPTIONS,
    scratch::Scratch,
    service::Service,
    user_agent::is_installed,
};

use super::{
    control_byte,
    prometheus::{DIRECTORY, Prometheus},
    send,
};

fn read(name: &str) -> Result<String> {
    std::fs::read_to_string(format!("{DIRECTORY}/{name}")).context(name.to_owned())
}

fn dashboard() -> Result<Value> {
    serde_json::from_str(&read("grafana/sipguard.json")?).context("the dashboard is no JSON")
}

fn list<'v>(value: &'v Value, key: &str) -> Result<&'v Vec<Value>> {
    value[key].as_array().with_context(|| format!("no {key} in {value}"))
}

fn word<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

/// The names of metrics in a text; one that ends so is the beginning of a pattern.
fn names(text: &str) -> BTreeSet<String> {
    let inside = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == ':';
    text.split(|one| !inside(one))
        .filter(|name| name.starts_with("sipguard_") && !name.ends_with('_'))
        .map(str::to_owned)
        .collect()
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
    let metrics = service.get("/metrics?all=1")?.body;
    let sample = |line: &str| Some(line.split(['{', ' ']).next()?.to_owned());
    let there: BTreeSet<String> =
        metrics.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
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

/// Every query: of panels, of annotations and of variables, with what asks it.
fn queries(dashboard: &Value) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for panel in list(dashboard, "panels")?.iter().filter(|panel| panel["type"] != "row") {
        for target in list(panel, "targets")? {
            all.push((word(panel, "title")?.to_owned(), word(target, "expr")?.to_owned()));
        }
    }
    for annotation in list(&dashboard["annotations"], "list")?.iter().filter(|one| one["builtIn"].is_null()) {
        all.push((word(annotation, "name")?.to_owned(), word(annotation, "expr")?.to_owned()));
    }
    for variable in list(&dashboard["templating"], "list")?.iter().filter(|one| one["type"] == "query") {
        let query = word(&variable["query"], "query")?;
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inside.and_then(|inside| inside.rsplit_once(", ")).context("label_values")?;
        all.push((word(variable, "name")?.to_owned(), format!("count by ({label}) ({selector})")));
    }
    Ok(all)
}

#[test]
fn prometheus_has_data_for_each_query_and_rule() -> Result<()> {
    if !is_installed("prometheus", "prometheus") {
        return Ok(());
    }
    let (site, scratch) = (Site::new(true)?, Scratch::new("serve")?);
    let guard = &site.guard;
    // A connection older than the guard is in the middle of a message.
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let (phone, application) = server.connect(&site.phone)?;
    phone.write(&OPTIONS[..20])?;
    application.wait_for(20)?;
    guard.attach(&["eth0"])?;
    phone.write(&OPTIONS[20..])?;
    application.wait_for(OPTIONS.len())?;
    guard.run(&["trunk", "add", "carrier", "--peer", "192.0.2.0/24"])?.expect(0)?;
    let _service = Service::start(&site, &scratch, &[])?;
    let prometheus = Prometheus::start(&site, &scratch)?;
    prometheus
        .wait_for("sipguard_mode{mode=\"enforce\"} == 1 and on () sipguard_blocks{origin=\"guard\"} == 0")?;
    guard.run(&["mode", "monitor"])?.expect(0)?;
    send(&site, &control_byte(), 3)?;
    prometheus
        .wait_for("sipguard_would_drop_packets_total > 2 and on () sipguard_mode{mode=\"monitor\"} == 1")?;
    guard.run(&["mode", "enforce"])?.expect(0)?;
    send(&site, &control_byte(), 5)?;
    let (pins, now_ns) = (Pins::new(guard.pins()), Clock::now()?.boot_ns);
    let mut ban: Ban = bytemuck::Zeroable::zeroed();
    (ban.since_ns, ban.until_ns, ban.times) = (now_ns, now_ns + 3_600_000_000_000, 1);
    Bans::open(&pins)?.set(&"192.0.2.11:5060".parse().map_err(anyhow::Error::msg)?, Some(ban))?;

    let dashboard = dashboard()?;
    for (asks, query) in queries(&dashboard)? {
        // As Grafana does it, of all; and a machine under load takes its time.
        let query = ["instance", "interface", "reason", "trunk"]
            .iter()
            .fold(query.clone(), |query, name| query.replace(&format!("${name}"), ".*"))
            .replace("[$__rate_interval]", "[10m]")
            .replace("[1m]", "[10m]")
            .replace("< 60", "< 600");
        ensure!(!query.contains('$'), "{asks} has an unknown variable: {query}");
        // No PBX crashes here.
        let query = if query.contains("_pbx_crashes_") { query.replace(" > 0", "") } else { query };
        prometheus.wait_for(&query).with_context(|| asks.clone())?;
    }
    let groups = prometheus.answer("rules").context("no rules")?;
    let mut rules = 0;
    for rule in list(&groups["data"], "groups")?.iter().flat_map(|group| group["rules"].as_array()).flatten()
    {
        rules += 1;
        ensure!(rule["health"] == "ok" && rule["lastError"].is_null(), "{rule}");
        for name in names(word(rule, "query")?) {
            prometheus.wait_for(&name).with_context(|| rule.to_string())?;
        }
    }
    ensure!(rules > 10, "{groups}");
    Ok(())
}

#[test]
fn panels_are_as_grafana_takes_them() -> Result<()> {
    let dashboard = dashboard()?;
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
    let variables: BTreeSet<&str> =
        list(&dashboard["templating"], "list")?.iter().map(|one| word(one, "name")).collect::<Result<_>>()?;
    ensure!(
        ["instance", "interface", "reason", "trunk"].iter().all(|name| variables.contains(name)),
        "{variables:?}"
    );
    let annotations = list(&dashboard["annotations"], "list")?;
    for name in ["Attached", "Mode", "Bans"] {
        ensure!(annotations.iter().any(|one| one["name"] == name && one["enable"] == true), "{name}");
    }
    for panel in list(&dashboard, "panels")? {
        let title = word(panel, "title")?;
        ensure!(ids.insert(panel["id"].as_u64().context("an id")?), "{title} has another's id");
        let at = |key: &str| panel["gridPos"][key].as_u64().with_context(|| format!("{title}: {key}"));
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        ensure!(w > 0 && h > 0 && x + w <= 24, "{title} is wider than the grid of 24 columns");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(place, title);
            ensure!(other.is_none(), "{title} lies on {other:?}");
        }
        let kind = word(panel, "type")?;
        if kind == "row" {
            continue;
        }
        ensure!(
            ["stat", "timeseries", "table", "bargauge", "state-timeline"].contains(&kind),
            "{title}: {kind}"
        );
        ensure!(word(&panel["datasource"], "uid")? == "${datasource}", "{title} asks another data source");
        let refs: BTreeSet<&str> =
            list(panel, "targets")?.iter().map(|target| word(target, "refId")).collect::<Result<_>>()?;
        ensure!(refs.len() == list(panel, "targets")?.len() && !refs.is_empty(), "{title}: {refs:?}");
        let defaults = &panel["fieldConfig"]["defaults"];
        ensure!(!word(defaults, "unit")?.is_empty(), "{title} has no unit");
        let steps = list(&defaults["thresholds"], "steps")?;
        let values: Vec<f64> = steps
            .iter()
            .skip(1)
            .map(|step| step["value"].as_f64().context("a value"))
            .collect::<Result<_>>()?;
        ensure!(steps[0]["value"].is_null() && values.is_sorted(), "{title}: {steps:?}");
    }
    Ok(())
}
