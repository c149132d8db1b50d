//! The dashboard in a real browser: its numbers are the counters', it fits a phone, and what offenders send stays text.
//!
//! Pictures go to the directory that `SIPGUARD_SCREENSHOTS` names, or below `target/tmp`.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::application::{PATIENCE, sip, udp, uninterrupted};
use sipguard_tests::browser::{Browser, View};
use sipguard_tests::guard::Site;
use sipguard_tests::message::{OPTIONS, register};
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;

const URL: &str = "http://127.0.0.1:9506/";
/// A message that would be markup, if anybody let it, with a control byte in it.
const HOSTILE: &[u8] = b"OPTIONS sip:<img/src=x:/onerror=document.title='owned'> SIP/2.0\r\n\
      User-Agent: <img/src=x:/onerror=document.title='owned'>\r\nVia: \x01\r\n\r\n";
const VIEWS: [(&str, View); 4] = [
    ("wide", View { size: (1280, 900), dark: false }),
    ("dark", View { size: (1280, 900), dark: true }),
    ("narrow", View { size: (390, 844), dark: false }),
    ("narrow-dark", View { size: (390, 844), dark: true }),
];

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

fn pictures() -> Result<PathBuf> {
    let chosen = std::env::var_os("SIPGUARD_SCREENSHOTS").map(PathBuf::from);
    let path = chosen.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots"));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

#[test]
fn its_numbers_are_the_counters() -> Result<()> {
    let scratch = Scratch::new("dashboard")?;
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    run("trunk add carrier --peer 10.77.0.2 --method OPTIONS")?;
    run("trunk add quiet --peer 192.0.2.200")?;
    run("block 192.0.2.7 --for 1h --comment scanner")?;
    let pbx = Site::PBX[0];
    let server = udp(&site.pbx, sip(pbx))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    for (times, message) in [(3, &register(1)[..]), (5, OPTIONS), (7, HOSTILE)] {
        for _ in 0..times {
            site.phone.enter(|| phone.send_to(message, sip(pbx)))??;
        }
    }
    for _ in 0..5 {
        uninterrupted(|| server.recv(&mut [0; 2048])).context("an OPTIONS did not arrive")?;
    }
    let mut service = Service::start(&site, &scratch, &[])?;
    let mut browser = Browser::new(&site.pbx)?;
    browser.view(VIEWS[0].1)?;
    browser.open(URL)?;
    wait(&mut browser, PATIENCE, "Number(document.body?.dataset.ready) > 0")?;
    ensure!(browser.value("document.querySelector('#error').hidden")? == true, "there is trouble");

    // Some more, so that the history has something to tell of a time that it watched.
    for _ in 0..4 {
        site.phone.enter(|| phone.send_to(HOSTILE, sip(pbx)))??;
    }
    wait(&mut browser, Duration::from_secs(40), "document.querySelectorAll('#stopped polygon').length > 0")?;
    wait(
        &mut browser,
        Duration::from_secs(40),
        "document.querySelector('#reasons').innerText.includes('11')",
    )?;

    let counted = guard.counters()?;
    let rows = guard.counter_rows()?;
    ensure!(rows.iter().map(|row| row.packets).sum::<u64>() > 0, "nothing was counted");
    let shown = |browser: &mut Browser, expression: &str| browser.value(expression);
    let received = shown(&mut browser, "Number(document.querySelector('#received').dataset.value)")?;
    assert_eq!(received, rows.iter().map(|row| row.packets).sum::<u64>() as f64);
    let dropped: u64 = rows.iter().filter(|row| row.action != "pass").map(|row| row.packets).sum();
    assert_eq!(
        shown(&mut browser, "Number(document.querySelector('#dropped').dataset.value)")?,
        dropped as f64
    );
    let reasons = shown(
        &mut browser,
        "Object.fromEntries([...document.querySelectorAll('#reasons tbody tr')].map(row => [row.cells[0].innerText, Number(row.cells[2].dataset.value)]))",
    )?;
    for (reason, packets) in reasons.as_object().context("reasons")? {
        assert_eq!(packets.as_f64(), counted.get(reason).map(|count| *count as f64), "{reason}");
    }
    ensure!(reasons.as_object().is_some_and(|reasons| reasons.len() == 2), "{reasons}");

    let trunks = shown(
        &mut browser,
        "[...document.querySelectorAll('#trunks tbody tr')].map(row => [row.cells[0].innerText, Number(row.cells[3].dataset.value), row.cells[3].classList.contains('bad')])",
    )?;
    assert_eq!(trunks, serde_json::json!([["carrier", 14, true], ["quiet", 0, false]]));
    let blocks = shown(&mut browser, "document.querySelector('#blocks').innerText")?;
    ensure!(
        blocks.as_str().is_some_and(|text| text.contains("192.0.2.7") && text.contains("scanner")),
        "{blocks}"
    );
    for table in ["offenders", "events"] {
        let text = shown(&mut browser, &format!("document.querySelector('#{table}').innerText"))?;
        ensure!(
            text.as_str().is_some_and(|text| text.contains("<img/src") && text.contains("10.77.0.2")),
            "{table}: {text}"
        );
    }
    assert_eq!(shown(&mut browser, "document.title")?, "sipguard", "what an offender sent became code");
    assert_eq!(shown(&mut browser, "document.querySelectorAll('main img, main script').length")?, 0);

    let pictures = pictures()?;
    for (name, view) in VIEWS {
        browser.view(view)?;
        let ready = browser.value("Number(document.body?.dataset.ready)")?;
        wait(&mut browser, PATIENCE * 2, &format!("Number(document.body?.dataset.ready) > {ready}"))?;
        let width = browser.value("document.documentElement.scrollWidth")?;
        ensure!(width.as_u64() <= Some(u64::from(view.size.0)), "{name}: the page is {width} pixels wide");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor")?;
        let lightness: u64 = ground
            .as_str()
            .unwrap_or_default()
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse::<u64>().ok())
            .sum();
        ensure!((lightness < 384) == view.dark, "{name}: the ground is {ground}");
        let path = pictures.join(format!("dashboard-{name}.png"));
        browser.picture(&path)?;
        println!("{}", path.display());
    }

    // The page says so when nobody answers, and that the guard does not need it.
    service.running.stop()?;
    wait(
        &mut browser,
        PATIENCE * 2,
        "document.querySelector('#error').innerText.includes('filters all the same')",
    )?;
    Ok(())
}

#[test]
fn who_sends_most_of_a_kind_is_in_the_first_row() -> Result<()> {
    let (site, scratch) = (Site::new(true)?, Scratch::new("dashboard")?);
    let (guard, pbx) = (&site.guard, sip(Site::PBX[0]));
    let service = Service::start(&site, &scratch, &[])?;
    let mut browser = Browser::new(&site.pbx)?;
    browser.open(URL)?;
    let has =
        |text: &str| format!("(document.querySelector('#senders')?.innerText ?? '').includes('{text}')");
    wait(&mut browser, PATIENCE, &has("The guard is not attached: nothing is tallied."))?;
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
        "JSON.stringify([...document.querySelectorAll('[aria-pressed=true]')].map(one => one.innerText))";
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
    wait(&mut browser, PATIENCE, &has("The guard is not attached: nothing is tallied."))
}

#[test]
fn it_runs_no_code_but_its_own() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let scratch = Scratch::new("dashboard")?;
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = Browser::new(&site.pbx)?;
    browser.open(URL)?;
    wait(&mut browser, PATIENCE, "Number(document.body?.dataset.ready) > 0")?;
    let script = "try { new Function('return 1')() } catch (error) { 'refused' }";
    assert_eq!(browser.value(script)?, Value::from("refused"), "code in text is refused");
    Ok(())
}

#[test]
fn what_monitor_mode_lets_pass_is_not_stopped_and_each_reason_keeps_its_colour() -> Result<()> {
    let scratch = Scratch::new("dashboard")?;
    let site = Site::guarded(true, &["--monitor"])?;
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = Browser::new(&site.pbx)?;
    browser.open(URL)?;
    wait(&mut browser, PATIENCE, "Number(document.body?.dataset.ready) > 0")?;
    let phone = site.phone.enter(|| UdpSocket::bind("10.77.0.2:0"))??;
    let send = |message: &[u8], times: usize| -> Result<()> {
        for _ in 0..times {
            site.phone.enter(|| phone.send_to(message, sip(Site::PBX[0])))??;
        }
        Ok(())
    };
    // The reasons of a plot in their order, with the colour of each.
    let legend = "JSON.stringify([...document.querySelectorAll('#monitored figcaption span')].map(one => \
                  [one.innerText, one.querySelector('i').style.background]).filter(one => one[0] !== 'not watched'))";
    let slot = Duration::from_secs(40);
    send(HOSTILE, 3)?;
    wait(&mut browser, slot, &format!("{legend}.includes('control-byte')"))?;
    let before = browser.value(legend)?;
    send(b"NO SENSE\r\n\r\n", 50)?;
    wait(&mut browser, slot, &format!("JSON.parse({legend}).length === 2"))?;
    let after: Vec<Value> = serde_json::from_str(browser.value(legend)?.as_str().context("a legend")?)?;
    let before: Vec<Value> = serde_json::from_str(before.as_str().context("a legend")?)?;
    assert_eq!((after[1].clone(), after.len()), (before[0].clone(), 2), "another reason is the first now");
    assert_ne!(after[0][1], after[1][1], "two reasons, two colours");

    assert_eq!(browser.value("document.querySelectorAll('#stopped polygon').length")?, 0);
    assert_eq!(browser.value("document.querySelector('#dropped').dataset.value")?, "0");
    wait(&mut browser, PATIENCE, "document.querySelector('#would_drop').dataset.value === '53'")
}
