//! What a killed `serve` leaves behind.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::wait_until,
    guard::{Site, number, text},
    message::negative_length,
    scratch::Scratch,
    service::Service,
};

use super::{TWO_SLOTS, control_byte, send};

/// The points of the last hour: milliseconds that were watched, and packets that were dropped for a reason, `None` for a gap.
fn history(service: &Service<'_>, reason: Reason) -> Result<Vec<(u64, Option<f64>)>> {
    let told = service.json("/api/history?hours=1")?;
    let list = |value: &Value| value.as_array().cloned().context("no list");
    let watched = list(&told["watched_ms"])?;
    let mut points = Vec::new();
    let lines = list(&told["series"])?;
    let line = lines.iter().find(|line| line["what"] == "dropped" && line["reason"] == reason.name());
    for (at, ms) in watched.iter().enumerate() {
        let ms = ms.as_u64().context("no time")?;
        let rate = line.map_or(Value::from(0.0), |line| line["packets_per_second"][at].clone());
        ensure!(line.is_none() || rate.is_null() == (ms == 0), "a gap is a gap in both: {told}");
        points.push((ms, rate.as_f64().filter(|_| ms > 0).map(|rate| rate * ms as f64 / 1000.0)));
    }
    Ok(points)
}

fn sum(points: &[(u64, Option<f64>)]) -> f64 {
    points.iter().filter_map(|(_, packets)| *packets).sum::<f64>().round()
}

#[test]
fn a_killed_serve_leaves_the_filter_its_counters_and_a_gap() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("serve")?);
    let guard = &site.guard;
    let (bad, other) = (negative_length(), control_byte());
    let mut service = Service::start(&site, &scratch, &[])?;
    // From the first reading on.
    wait_until("a slot was watched", || Ok(history(&service, bad.reason)?.iter().any(|(ms, _)| *ms > 0)))?;
    send(&site, &bad.bytes, 30)?;
    wait_until("30 packets are in the history", || Ok(sum(&history(&service, bad.reason)?) == 30.0))?;

    // In the middle of traffic.
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| send(&site, &bad.bytes, 1000));
        service.running.signal(Signal::SIGKILL)?;
        traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(service.running.stop()?.code().is_none(), "it was not killed");
    ensure!(guard.counted(bad.reason)? == 1030, "without it {} were dropped", guard.counted(bad.reason)?);
    send(&site, &other, 7)?;
    ensure!(guard.counted(Reason::ControlByte)? == 7, "{:?}", guard.counters()?);
    std::thread::sleep(TWO_SLOTS);
    ensure!(guard.counted(bad.reason)? == 1030, "a counter changed by itself");

    let service = Service::start(&site, &scratch, &[])?;
    // What was stopped in between is told, as long as it is in the ring, and nothing twice.
    let events = || {
        Ok::<_, anyhow::Error>(service.json("/api/events")?["rows"].as_array().cloned().unwrap_or_default())
    };
    wait_until("the event of the pause", || {
        Ok(events()?.iter().any(|event| event["reason"] == "control-byte"))
    })?;
    let numbers: Vec<u64> = events()?.iter().map(|event| number(event, "number")).collect::<Result<_>>()?;
    ensure!(
        numbers.iter().all(|one| *one > 0),
        "what was told before the kill is told again: {:?}",
        events()?
    );
    ensure!(text(&events()?[0], "interface")? == "eth0", "{:?}", events()?);

    let watched = |points: &[(u64, Option<f64>)]| points.iter().rposition(|(ms, _)| *ms > 0);
    let before = watched(&history(&service, bad.reason)?);
    send(&site, &bad.bytes, 20)?;
    wait_until("20 more packets are in the history", || Ok(sum(&history(&service, bad.reason)?) >= 50.0))?;
    let points = history(&service, bad.reason)?;
    ensure!(
        sum(&points) == 50.0,
        "{} packets in the history; those of the pause were not watched",
        sum(&points)
    );
    let first = points.iter().position(|(ms, _)| *ms > 0).context("nothing")?;
    let last = watched(&points).context("nothing")?;
    let gap = points[first..last].iter().filter(|(ms, _)| *ms == 0).count();
    ensure!(
        gap >= 1,
        "no gap from {first} to {last} (it was {before:?} before): {:?}",
        &points[first..=last]
    );
    ensure!(sum(&history(&service, Reason::ControlByte)?) == 0.0, "what nobody watched is in the history");
    ensure!(guard.counted(bad.reason)? == 1050, "{:?}", guard.counters()?);

    let (rss, cpu) = service.cost()?;
    println!("serve: {rss} kB resident, {} ms of CPU since its start", cpu.as_millis());
    Ok(())
}
