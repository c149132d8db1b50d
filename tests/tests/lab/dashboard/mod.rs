//! The dashboard in a real browser: its numbers are the counters', it fits a phone, and what offenders send stays text. Beside this file:
//! `numbers.rs`, `plot.rs`, `views.rs`, and `scene.rs`, what there is to be seen.
//!
//! Pictures go to the directory that `SIPGUARD_SCREENSHOTS` names, or below `target/tmp`.

mod numbers;
mod plot;
pub mod scene;
mod views;

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use sipguard_tests::application::{PATIENCE, sip, udp};
use sipguard_tests::browser::Browser;
use sipguard_tests::guard::Site;
use sipguard_tests::message::{OPTIONS, register};
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;

/// Whether the page says that nothing is filtered, and hides what there is of a guard alone.
const DETACHED: &str =
    "!document.querySelector('#begin').hidden && !document.querySelector('#senders').offsetParent";
const URL: &str = "http://127.0.0.1:9506/";
/// Waits until an expression is true.
fn wait(browser: &mut Browser, patience: Duration, expression: &str) -> Result<()> {
    let until = Instant::now() + patience;
    while browser.value(expression)? != true {
        if Instant::now() > until {
            let page = browser.value("document.body.innerText")?;
            anyhow::bail!("never true: {expression}\n{}", page.as_str().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A browser that shows the page, with a whole reading in it.
fn open(site: &Site) -> Result<Browser> {
    let mut browser = Browser::new(&site.pbx)?;
    browser.open(URL)?;
    wait(&mut browser, PATIENCE, "Number(document.body?.dataset.ready) > 0")?;
    Ok(browser)
}

/// Waits for a whole reading that began after now.
fn ready(browser: &mut Browser) -> Result<()> {
    let began = browser.value("Number(document.body.dataset.began)")?;
    browser.value("document.querySelector('button[data-hours][aria-pressed=true]').click()")?;
    wait(browser, PATIENCE * 2, &format!("Number(document.body.dataset.ready) > {began}"))
}

fn pictures() -> Result<PathBuf> {
    let chosen = std::env::var_os("SIPGUARD_SCREENSHOTS").map(PathBuf::from);
    let path = chosen.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots"));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

#[test]
fn who_sends_most_of_a_kind_is_in_the_first_row() -> Result<()> {
    let (site, scratch) = (Site::new(true)?, Scratch::new("dashboard")?);
    let (guard, pbx) = (&site.guard, sip(Site::PBX[0]));
    let service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    let has =
        |text: &str| format!("(document.querySelector('#senders')?.innerText ?? '').includes('{text}')");
    wait(&mut browser, PATIENCE, DETACHED)?;
    guard.attach(&[Site::INTERFACE])?;
    wait(&mut browser, PATIENCE, &has("Nobody has sent anything that is tallied."))?;

    guard.run(&["trunk", "add", "carrier", "--peer", "10.77.0.4"])?.expect(0)?;
    let _server = udp(&site.pbx, pbx)?;
    for (host, options, registers) in [(2, 120, 0), (3, 0, 70), (4, 20, 5)] {
        let own = format!("10.77.0.{host}");
        if host != 2 {
            site.phone.add_address(Site::INTERFACE, &format!("{own}/24"))?;
        }
        let phone = site.phone.enter(|| UdpSocket::bind((own.as_str(), 0)))??;
        for message in vec![OPTIONS.to_vec(); options].into_iter().chain((0..registers).map(register)) {
            site.phone.enter(|| phone.send_to(&message, pbx))??;
        }
    }
    // Sender, what came since the attach, and which column is marked.
    let rows = "JSON.stringify([...document.querySelectorAll('#senders tbody tr')].map(row => \
                [row.cells[0].innerText, Number(row.cells[5]?.dataset.value), row.querySelector('.chosen')?.dataset.head]))";
    let is = |wanted: Value| format!("{rows} === {:?}", wanted.to_string());
    let slot = Duration::from_secs(40);
    let by = "messages, 10 s";
    let wanted =
        serde_json::json!([["10.77.0.2", 120, by], ["10.77.0.3", 70, by], ["trunk carrier", 25, by]]);
    wait(&mut browser, slot, &is(wanted))?;
    browser.value("document.querySelector('[data-of=register]').click()")?;
    let by = "REGISTER, 10 s";
    let wanted = serde_json::json!([["10.77.0.3", 70, by], ["trunk carrier", 5, by], ["10.77.0.2", 0, by]]);
    wait(&mut browser, slot, &is(wanted))?;
    let pressed =
        "JSON.stringify([...document.querySelectorAll('nav [aria-pressed=true]')].map(one => one.innerText))";
    assert_eq!(browser.value(pressed)?, "[\"1 h\",\"REGISTER\"]", "a choice changed another");
    // What came lately is no more than all, and gone after some time.
    let lately =
        "[...document.querySelectorAll('#senders tbody tr')].map(row => Number(row.cells[2].dataset.value))";
    wait(&mut browser, slot, &format!("{lately}.every(count => count === 0)"))?;

    let served = service.json("/api/senders?of=register")?;
    assert_eq!(served["rows"][0]["source"], "10.77.0.3");
    let refused = service.get("/api/senders?of=registers")?;
    ensure!(refused.status == 400 && refused.body.contains("such as ?of=register"), "{refused:?}");
    guard.run(&["detach", "--all"])?.expect(0)?;
    wait(&mut browser, PATIENCE, DETACHED)
}

#[test]
fn it_runs_no_code_but_its_own() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let scratch = Scratch::new("dashboard")?;
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    let script = "try { new Function('return 1')() } catch (error) { 'refused' }";
    assert_eq!(browser.value(script)?, Value::from("refused"), "code in text is refused");
    Ok(())
}
