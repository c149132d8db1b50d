//! What the page shows beside what the guard has counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_tests::application::{PATIENCE, Server, sip, udp};
use sipguard_tests::browser::Browser;
use sipguard_tests::guard::{Counter, Guard, Site};
use sipguard_tests::message::{OPTIONS, register};
use sipguard_tests::scratch::Scratch;
use sipguard_tests::service::Service;

use super::scene::{AGENT, ERRANT, addresses, datagram, faulty, reconnect};
use super::{open, ready, wait};

/// A message that would be markup, if anybody let it, with a control byte in it.
const HOSTILE: &[u8] = b"OPTIONS sip:<img/src=x:/onerror=document.title='owned'> SIP/2.0\r\n\
      User-Agent: <img/src=x:/onerror=document.title='owned'>\r\nVia: \x01\r\n\r\n";
/// Every number of the page, at one moment.
const PAGE: &str = "(() => {
    const of = (node) => Number(node.dataset.value);
    const rows = (id, ...cells) => Object.fromEntries([...document.querySelectorAll(`#${id} tbody[data-key]`)]
        .map((body) => [body.dataset.key, cells.map((cell) => of(body.rows[0].cells[cell]))]));
    return {
        totals: ['received', 'dropped', 'would_drop'].map((id) => of(document.getElementById(id))),
        reasons: rows('reasons', 3), trunks: rows('trunks', 2, 3, 4), interfaces: rows('interfaces', 4, 5, 6),
    };
})()";

/// The numbers of the page, or the same of the counters: each has a name.
type Numbers = BTreeMap<String, u64>;

fn shown(browser: &mut Browser) -> Result<Numbers> {
    let page = browser.value(PAGE)?;
    let mut numbers = Numbers::new();
    let mut add = |name: String, value: &Value| -> Result<()> {
        let number = value.as_f64().with_context(|| format!("{name} is no number: {page}"))?;
        numbers.insert(name, number as u64);
        Ok(())
    };
    for (name, value) in
        ["received", "dropped", "would drop"].iter().zip(page["totals"].as_array().context("totals")?)
    {
        add((*name).to_owned(), value)?;
    }
    for table in ["reasons", "trunks", "interfaces"] {
        for (key, values) in page[table].as_object().context("a table")? {
            for (at, value) in values.as_array().context("cells")?.iter().enumerate() {
                add(format!("{table} {key} {at}"), value)?;
            }
        }
    }
    Ok(numbers)
}

fn counted(guard: &Guard) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    let mut add = |name: String, packets: u64| *numbers.entry(name).or_default() += packets;
    let mut sums = |place: &str, rows: &[Counter]| {
        let sum = |ends: &[&str]| {
            rows.iter().filter(|row| ends.contains(&row.action.as_str())).map(|row| row.packets).sum::<u64>()
        };
        let (dropped, would) = (sum(&["drop", "reset"]), sum(&["would-drop", "would-reset"]));
        let all = sum(&["pass"]) + dropped + would;
        for (at, packets) in [all, dropped, would].into_iter().enumerate() {
            let total = ["received", "dropped", "would drop"][at];
            add(if place.is_empty() { total.to_owned() } else { format!("{place} {at}") }, packets);
        }
    };
    let rows = guard.counter_rows()?;
    sums("", &rows);
    sums("interfaces eth0", &rows);
    let of_trunks = guard.rows(&["counters", "--by", "trunk"])?;
    for trunk in guard.rows(&["trunk", "list"])? {
        let name = trunk["trunk"].as_str().context("a name")?;
        let own = of_trunks.iter().filter(|row| row["trunk"] == name);
        let own: Vec<Counter> = own
            .map(|row| {
                let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                let packets = row["packets"].as_u64().unwrap_or_default();
                Counter { interface: String::new(), reason: text("reason"), action: text("action"), packets }
            })
            .collect();
        sums(&format!("trunks {name}"), &own);
    }
    for row in rows.iter().filter(|row| row.action != "pass" && row.packets > 0) {
        add(format!("reasons {} {} 0", row.reason, row.action), row.packets);
    }
    Ok(numbers)
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
    let _pbx = udp(&site.pbx, sip(Site::PBX[0]))?;
    for (times, message) in [(3, &register(1)[..]), (5, OPTIONS), (11, HOSTILE)] {
        (0..times).try_for_each(|_| datagram(&site, "10.77.0.2", message))?;
    }
    let mut service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    ensure!(browser.value("document.querySelector('#error').hidden")? == true, "there is trouble");
    // A host has packets of its own, so both are compared when nothing was counted meanwhile.
    let until = Instant::now() + PATIENCE * 4;
    loop {
        let before = counted(guard)?;
        ready(&mut browser)?;
        let page = shown(&mut browser)?;
        if page == before && page == counted(guard)? {
            break;
        }
        ensure!(Instant::now() < until, "the page has {page:#?}\nthe counters had {before:#?}");
    }
    let page = shown(&mut browser)?;
    let of = |name: &str| page.get(name).copied();
    assert_eq!(of("reasons control-byte drop 0"), Some(11));
    assert_eq!(of("reasons method-denied drop 0"), Some(3));
    assert_eq!((of("trunks carrier 1"), of("trunks quiet 0"), of("dropped")), (Some(14), Some(0), Some(14)));

    let blocks = browser.value("document.querySelector('#blocks').innerText")?;
    let has =
        |words: &[&str]| words.iter().all(|word| blocks.as_str().is_some_and(|text| text.contains(word)));
    ensure!(has(&["192.0.2.7", "scanner", "sipguard unblock 192.0.2.7"]), "{blocks}");
    for table in ["offenders", "events"] {
        let text = browser.value(&format!("document.querySelector('#{table}').textContent"))?;
        ensure!(
            text.as_str().is_some_and(|text| text.contains("<img/src") && text.contains("10.77.0.2")),
            "{table}: {text}"
        );
    }
    let title = browser.value("document.title")?;
    ensure!(title.as_str().is_some_and(|title| title.ends_with(" ENFORCING – sipguard")), "{title}");
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length")?, 0);

    // The page says so when nobody answers, and that the guard does not need it.
    service.running.stop()?;
    wait(
        &mut browser,
        PATIENCE * 2,
        "document.querySelector('#error').innerText.includes('filters all the same')",
    )
}

/// Sends until it is told to end: what passes, what is malformed, what is blocked, and what is too much.
fn load(site: &Site, ends: &AtomicBool) -> Result<()> {
    let _pbx = udp(&site.pbx, sip(Site::PBX[0]))?;
    let sockets = ["10.77.0.2", "10.77.0.66", "10.77.0.80"]
        .map(|from| site.phone.enter(|| std::net::UdpSocket::bind((from, 0))));
    let [phone, blocked, fast] = sockets;
    let (phone, blocked, fast) = (phone??, blocked??, fast??);
    let pbx = sip(Site::PBX[0]);
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        phone.send_to(if number % 3 == 0 { HOSTILE } else { OPTIONS }, pbx)?;
        blocked.send_to(OPTIONS, pbx)?;
        fast.send_to(&register(number), pbx)?;
        // Some thousand packets a second beside a browser.
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

#[test]
fn under_load_each_number_is_that_of_the_counters_at_the_same_time() -> Result<()> {
    let scratch = Scratch::new("dashboard")?;
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let run = |words: &str| guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0);
    addresses(&site, &["10.77.0.66", "10.77.0.80"])?;
    run("trunk add carrier --peer 10.77.0.2")?;
    run("block 10.77.0.66 --comment scanner")?;
    run("limit set --of register 5/s burst 5")?;
    let _service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| load(&site, &ends));
        let outcome = compare(guard, &mut browser);
        ends.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        outcome
    })
}

fn compare(guard: &Guard, browser: &mut Browser) -> Result<()> {
    let reasons = ["control-byte drop", "blocked-host drop", "rate-register drop"];
    for reason in reasons {
        wait(browser, PATIENCE, &format!("!!document.querySelector('#reasons [data-key=\"{reason}\"]')"))?;
    }
    for _ in 0..4 {
        let before = counted(guard)?;
        ready(browser)?;
        let page = shown(browser)?;
        let after = counted(guard)?;
        for (name, number) in &page {
            let (low, high) = (before.get(name).copied().unwrap_or(0), after.get(name).copied().unwrap_or(0));
            ensure!(
                (low..=high).contains(number),
                "{name} is {number}, and was {low} before and {high} after"
            );
        }
        ensure!(after["received"] > before["received"], "there is no load");
        // Of one reading, so they agree to the packet.
        let stopped: u64 = reasons.iter().map(|reason| page[&format!("reasons {reason} 0")]).sum();
        let of = |name: &str| page[name];
        assert_eq!((stopped, of("interfaces eth0 1")), (of("dropped"), of("dropped")));
        assert_eq!(of("interfaces eth0 0"), of("received"));
        ensure!(before.keys().all(|name| page.contains_key(name)), "{before:?} and {page:?}");
    }
    Ok(())
}

#[test]
fn a_phone_that_reconnects_is_one_row_that_opens_to_its_ports() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("dashboard")?);
    addresses(&site, &[ERRANT])?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    (0..25).try_for_each(|number| reconnect(&site, &server, ERRANT, &faulty(number)))?;
    let service = Service::start(&site, &scratch, &[])?;
    let mut browser = open(&site)?;
    let row = "document.querySelector('#offenders tbody[data-key]')";
    wait(
        &mut browser,
        PATIENCE,
        &format!("Number({row}?.querySelector('td.b [data-value]').dataset.value) === 25"),
    )?;
    assert_eq!(browser.value("document.querySelectorAll('#offenders tbody[data-key]').length")?, 1);
    let counted = site.guard.rows(&["counters", "--by", "source"])?;
    let served = service.json("/api/offenders")?["rows"].clone();
    for (whose, rows) in
        [("the page of numbers", &counted[..]), ("the service", served.as_array().context("rows")?)]
    {
        let [one] = rows else { anyhow::bail!("{whose} has {rows:?}") };
        assert_eq!((&one["packets"], &one["user_agent"]), (&25.into(), &AGENT.into()));
        // The kernel may give a port twice.
        ensure!(one["ports_seen"].as_u64() > Some(20), "{whose} has {one}");
    }
    // It opens, and stays so when the page is read again and when the row changes.
    browser.value(&format!("{row}.querySelector('button.open').click()"))?;
    let detail = format!("{row}.querySelector('.detail')?.innerText ?? ''");
    for words in
        [AGENT, "sipguard block 10.77.0.23", "sipguard explain control-byte", "no message, nothing good"]
    {
        wait(&mut browser, PATIENCE, &format!("({detail}).includes('{words}')"))?;
    }
    let fault = browser.value(&format!("{row}.querySelector('.message .fault').innerText"))?;
    ensure!(fault.as_str().is_some_and(|line| line.starts_with("X-Serial: 00\\x01")), "{fault}");
    assert_eq!(browser.value(&format!("{row}.querySelectorAll('.ports tbody tr').length"))?, 20);
    let command = browser.value(&format!("{row}.querySelector('.copy').getAttribute('aria-label')"))?;
    assert_eq!(command, "copy: sipguard block 10.77.0.23");
    reconnect(&site, &server, ERRANT, &faulty(99))?;
    wait(
        &mut browser,
        PATIENCE,
        &format!("Number({row}.querySelector('td.b [data-value]').dataset.value) === 26"),
    )?;
    wait(&mut browser, PATIENCE, &format!("({detail}).includes('control-byte 26')"))?;
    browser.value(&format!("{row}.querySelector('button.open').click()"))?;
    wait(&mut browser, PATIENCE, &format!("!{row}.querySelector('.detail')"))
}
