//! The dashboard as it is seen: by day and by night, on a desk and on a phone, and in each state of the guard.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sipguard_tests::application::{PATIENCE, Server, sip, udp};
use sipguard_tests::browser::{Browser, View};
use sipguard_tests::guard::Site;
use sipguard_tests::message::{OPTIONS, register};
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;

use super::scene::{AGENT, ERRANT, addresses, datagram, faulty, history, reconnect};
use super::{open, pictures, ready, wait};

const DESK: (u32, u32) = (1400, 900);
const PHONE: (u32, u32) = (390, 844);

/// Looks at the page in each way, and keeps the pictures.
fn look(browser: &mut Browser, name: &str) -> Result<()> {
    for (size, dark) in [(DESK, false), (DESK, true), (PHONE, false), (PHONE, true)] {
        let which = format!("{name}-{}{}", size.0, if dark { "-dark" } else { "" });
        browser.view(View { size, dark })?;
        ready(browser)?;
        let is_drawn = "document.querySelector('#error').hidden && !!document.querySelector('#plot canvas')";
        let states = ["detached", "empty"];
        ensure!(states.contains(&name) || browser.value(is_drawn)? == true, "{which}: there is trouble");
        let width = browser.value("document.documentElement.scrollWidth")?;
        ensure!(width.as_u64() <= Some(u64::from(size.0)), "{which}: the page is {width} pixels wide");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor")?;
        let parts = ground.as_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
        let lightness: u64 = parts.filter_map(|part| part.parse::<u64>().ok()).sum();
        ensure!((lightness < 384) == dark, "{which}: the ground is {ground}");
        if size == PHONE {
            // Three lines of text, the last of which is what did not fit into the second, and what is around them.
            let high = browser.value(
                "Math.max(0, ...[...document.querySelectorAll('table.stack tbody[data-key] > tr:first-child')]\
                 .filter(row => row.offsetParent && !row.querySelector('.long')).map(row => row.offsetHeight))",
            )?;
            ensure!(high.as_f64() < Some(88.0), "{which}: a row is {high} pixels high");
        }
        let path = pictures()?.join(format!("dashboard-{which}.png"));
        browser.picture(&path)?;
        println!("{}", path.display());
    }
    browser.view(View { size: DESK, dark: false })
}

/// An hour of an incident on a host that guards two trunks and some phones.
fn incident(site: &Site) -> Result<()> {
    let run = |words: &str| site.guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    addresses(site, &[ERRANT, "10.77.0.9", "10.77.0.31", "10.77.0.66", "10.77.0.80"])?;
    run("trunk add carrier --peer 10.77.0.9 --method OPTIONS,INVITE,ACK,BYE,CANCEL")?;
    run("trunk add backup --peer 192.0.2.200 --mode monitor")?;
    run("block 10.77.0.66 --for 1h --comment scanner")?;
    run("limit set --of register 5/s burst 5")?;
    let _pbx = udp(&site.pbx, sip(Site::PBX[0]))?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    for number in 0..12 {
        reconnect(site, &server, ERRANT, &faulty(number))?;
        datagram(site, "10.77.0.66", OPTIONS)?;
        datagram(site, "10.77.0.9", if number % 4 == 0 { &b"NO SENSE\r\n\r\n"[..] } else { OPTIONS })?;
        datagram(site, "10.77.0.31", OPTIONS)?;
    }
    for number in 0..30 {
        datagram(site, "10.77.0.80", &register(number))?;
    }
    datagram(site, "10.77.0.9", &register(1))
}

#[test]
fn each_state_says_what_to_do_on_every_screen() -> Result<()> {
    let (site, scratch) = (Site::new(true)?, Scratch::new("dashboard")?);
    let guard = &site.guard;
    let config = crashes(&scratch)?;
    let service = Service::start(&site, &scratch, &[("SIPGUARD_CONFIG", &config)])?;
    let mut browser = open(&site)?;
    wait(&mut browser, PATIENCE, "document.querySelector('#crashes').innerText.includes('Errant-Phone')")?;
    let host = service.json("/api/overview")?["host"].as_str().context("no host")?.to_owned();
    let text = |selector: &str, has: &str| {
        let is = format!("document.querySelector('{selector}')?.innerText ?? ''");
        format!("({is}).includes({})", json!(has))
    };
    let title = |word: &str| format!("document.title === {}", json!(format!("{host} {word} – sipguard")));

    // Rules that nothing enforces yet are seen all the same.
    for words in
        ["block 192.0.2.9 --comment scanner", "allow 192.0.2.10", "trunk add later --peer 192.0.2.11"]
    {
        guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?;
    }
    wait(&mut browser, PATIENCE, &text("#stored", "Kept: 1 block, 1 allowance, the trunk later."))?;
    wait(&mut browser, PATIENCE, &text("#blocks", "192.0.2.9"))?;
    wait(&mut browser, PATIENCE, &title("NOT FILTERING"))?;
    wait(&mut browser, PATIENCE, &text("#steps", "sipguard attach eth0 --monitor"))?;
    wait(&mut browser, PATIENCE, &text("#plot", "Nothing was kept of this time."))?;
    look(&mut browser, "detached")?;

    for words in ["unblock 192.0.2.9", "unallow 192.0.2.10", "trunk remove later"] {
        guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?;
    }
    guard.attach(&[Site::INTERFACE])?;
    wait(&mut browser, PATIENCE, &title("ENFORCING"))?;
    wait(&mut browser, PATIENCE, &text("#where", "on eth0, attached since "))?;
    ensure!(browser.value("document.querySelector('#advice').hidden")? == true, "there is nothing to advise");
    ensure!(browser.value(&text("#reasons", "Nothing was stopped."))? == true, "an empty table");
    look(&mut browser, "empty")?;

    guard.run(&["mode", "monitor"])?.expect(0)?;
    wait(&mut browser, PATIENCE, &title("MONITOR"))?;
    wait(&mut browser, PATIENCE, &text("#advice", "sipguard mode enforce"))?;
    incident(&site)?;
    history(&scratch.join("history.db"), 1, "would-drop")?;
    wait(&mut browser, PATIENCE, "Number(document.querySelector('#would_drop').dataset.value) >= 12")?;
    ensure!(browser.value("document.querySelector('#dropped').dataset.value")? == "0", "monitor dropped");
    look(&mut browser, "monitor")?;

    guard.run(&["mode", "enforce"])?.expect(0)?;
    wait(&mut browser, PATIENCE, &title("ENFORCING"))?;
    incident_goes_on(&site)?;
    wait(&mut browser, PATIENCE, "Number(document.querySelector('#dropped').dataset.value) >= 12")?;
    browser.value("document.querySelector('#offenders button.open').click()")?;
    wait(&mut browser, PATIENCE, &text("#offenders .detail", "User-Agent"))?;
    look(&mut browser, "enforcing")?;
    history(&scratch.join("history.db"), 168, "dropped")?;
    browser.value("document.querySelector('[data-hours=\"168\"]').click()")?;
    wait(&mut browser, PATIENCE, &text("#plot", "limited"))?;
    look(&mut browser, "week")
}

/// A configuration by which a PBX is watched that has crashed before, and core dumps are looked after.
fn crashes(scratch: &Scratch) -> Result<String> {
    let (reports, cores) = (scratch.join("crashes"), scratch.join("cores"));
    std::fs::create_dir_all(&reports)?;
    std::fs::create_dir_all(&cores)?;
    let name = "crash-20260102T030405.678Z";
    let suspect = json!({ "target": "10.77.0.23", "user_agent": AGENT, "identity": "sip:desk@sipguard.test", "score": 21.5,
        "oddness": 12.0, "recency": 9.5, "earlier": 0.0, "before_ms": 3.0, "why": [] });
    let report = json!({ "name": name, "crashed_at": "2026-01-02T03:04:05.678Z", "how": "SIGSEGV", "clear": true,
        "suspects": [suspect], "quarantine": { "target": "10.77.0.23", "why": "" } });
    std::fs::write(reports.join(format!("{name}.json")), report.to_string())?;
    let text = format!(
        "[serve]\njournal = false\nevidence = \"none\"\n[crash]\npid-file = \"{0}/pid\"\ndirectory = \"{0}\"\n[cores]\ndirectory = \"{1}\"\n",
        reports.display(),
        cores.display()
    );
    Ok(scratch.write("sipguard.toml", &text)?.to_string_lossy().into_owned())
}

#[test]
fn where_an_interface_is_not_filtered_any_more_the_bar_says_so() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("dashboard")?);
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    let verdict = |word: &str| format!("document.querySelector('#verdict').innerText === '{word}'");
    wait(&mut browser, PATIENCE, &verdict("ENFORCING"))?;
    let add = |name: &str| {
        site.pbx.run(&["ip", "link", "add", name, "type", "veth", "peer", "name", &format!("{name}b")])
    };
    add("eth1")?;
    site.guard.attach(&["eth1"])?;
    wait(&mut browser, PATIENCE, "document.querySelector('#where').innerText.startsWith('on eth0, eth1, ')")?;
    for (name, word, advice) in [
        ("eth1", "PARTLY FILTERING", "on eth1. Attach again: sipguard attach eth1"),
        ("eth0", "NOT FILTERING", "on eth0, eth1."),
    ] {
        // Made anew, nothing is on it.
        site.pbx.run(&["ip", "link", "del", name])?;
        add(name)?;
        wait(&mut browser, PATIENCE, &verdict(word))?;
        wait(
            &mut browser,
            PATIENCE,
            &format!("document.querySelector('#advice').textContent.includes('{advice}')"),
        )?;
        ensure!(browser.value("document.querySelector('#bar').className")? == "bad", "{word}");
    }
    Ok(())
}

/// The picture of the documents. It is another one each time, so it is kept where that is asked for.
#[test]
fn the_picture_of_the_documents_is_of_a_night_with_an_answer() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("dashboard")?);
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    history(&scratch.join("history.db"), 6, "dropped")?;
    incident(&site)?;
    browser.value("document.querySelector('[data-hours=\"6\"]').click()")?;
    browser.view(View { size: DESK, dark: false })?;
    let answer =
        "[...document.querySelectorAll('#offenders tbody[data-key]')].map(row => row.innerText).join()";
    for words in [
        ERRANT,
        AGENT,
        "12 ports",
        "nothing good",
        "a peer of trunk carrier",
        "X-Serial",
        &format!("sipguard block {ERRANT}"),
    ] {
        wait(&mut browser, PATIENCE, &format!("{answer}.includes({})", json!(words)))?;
    }
    wait(&mut browser, PATIENCE, "!!document.querySelector('#plot [data-cause=\"transport\"]')")?;
    // Rates are over some seconds.
    wait(&mut browser, PATIENCE, "document.querySelector('#dropped_rate').innerText.includes('/s')")?;
    ready(&mut browser)?;
    // Whatever the host of the test is called.
    browser.value("document.querySelector('#host').textContent = 'pbx1'")?;
    let path = if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/dashboard.png")
    } else {
        pictures()?.join("dashboard.png")
    };
    browser.window(&path)
}

fn incident_goes_on(site: &Site) -> Result<()> {
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    (0..12).try_for_each(|number| {
        datagram(site, "10.77.0.66", OPTIONS)?;
        reconnect(site, &server, ERRANT, &faulty(number))
    })
}
