//! The plot: what it has drawn is the history, from where that begins.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sipguard_tests::application::{PATIENCE, wait_until};
use sipguard_tests::browser::Browser;
use sipguard_tests::guard::Site;
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;

use super::scene::{datagram, faulty, history};
use super::{open, wait};

/// Puts the cursor upon a value, by its place from 0 to 1, and gives the time and what the legend has of each line.
fn at(browser: &mut Browser, place: f64) -> Result<Value> {
    browser.value(&format!(
        "(() => {{
            const over = document.querySelector('#plot .u-over');
            const box = over.getBoundingClientRect();
            const at = {{ clientX: box.left + box.width * {place}, clientY: box.top + 20, bubbles: true }};
            over.dispatchEvent(new MouseEvent('mouseenter', at));
            over.dispatchEvent(new MouseEvent('mousemove', at));
            return new Promise((done) => setTimeout(() => done(Object.fromEntries(
                [...document.querySelectorAll('#plot figcaption button')]
                    .map((one) => [one.dataset.cause, one.lastChild.textContent]))), 50));
        }})()"
    ))
}

/// The rates of a reason in the history, where it was watched.
fn rates(service: &Service, what: &str, reason: &str) -> Result<Vec<f64>> {
    let history = service.json("/api/history?hours=1")?;
    let series = history["series"].as_array().context("series")?;
    let is = |one: &&Value| one["what"] == what && one["reason"] == reason && one["kind"] == "interface";
    let rates = series.iter().find(is).map(|one| one["packets_per_second"].clone()).unwrap_or_default();
    Ok(rates.as_array().into_iter().flatten().filter_map(Value::as_f64).collect())
}

#[test]
fn the_plot_is_the_history_from_where_it_begins() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &["--monitor"])?, Scratch::new("dashboard")?);
    let service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    // A slot was watched, and then one in which something was let pass.
    let patience = PATIENCE * 4;
    wait_until("a slot is watched", || Ok(!rates(&service, "received", "")?.is_empty()))?;
    (0..30).try_for_each(|number| datagram(&site, "10.77.0.2", &faulty(number)))?;
    let legend = "document.querySelector('#plot figcaption [data-cause=\"malformed\"]')";
    wait(&mut browser, patience, &format!("!!{legend}"))?;
    let names = "JSON.stringify([...document.querySelectorAll('#plot figcaption button')].map(one => one.dataset.cause))";
    let expected: Vec<String> = ["malformed", "blocked", "limited", "denied"].map(str::to_owned).to_vec();
    wait(&mut browser, patience, &format!("{names} === {:?}", json!(expected).to_string()))?;
    let first =
        browser.value("Number(document.querySelector('#plot').dataset.from)")?.as_f64().context("a time")?;
    let begins: jiff::Timestamp =
        service.json("/api/history?hours=1")?["begins_at"].as_str().context("a time")?.parse()?;
    ensure!(first > begins.as_second() as f64 + 1800.0, "the plot begins at {first}, half an hour too early");

    // Half an hour of slots, whose values are known.
    history(&scratch.join("history.db"), 1, "would-drop")?;
    wait(
        &mut browser,
        patience,
        &format!("document.querySelector('#plot').dataset.from < {}", first - 1800.0),
    )?;
    let colour =
        "getComputedStyle(document.querySelector('#plot [data-cause=\"malformed\"] i')).backgroundColor";
    assert_eq!(browser.value(colour)?, "rgb(200, 16, 46)");
    let all = rates(&service, "would-drop", "control-byte")?;
    for place in [0.1, 0.5, 0.9] {
        let shown = at(&mut browser, place)?;
        let value =
            shown["malformed"].as_str().and_then(|text| text.strip_suffix("/s")).context("no value")?;
        let value: f64 = value.parse()?;
        let index = (place * (all.len() - 1) as f64) as usize;
        let near = &all[index.saturating_sub(3)..(index + 4).min(all.len())];
        ensure!(
            near.iter().any(|rate| (rate - value).abs() < 0.01),
            "{value} is none of {near:?} at {place}"
        );
    }
    // A line that was put out stays out.
    browser.value(&format!("{legend}.click()"))?;
    wait(&mut browser, PATIENCE, &format!("{legend}.getAttribute('aria-pressed') === 'false'"))
}
