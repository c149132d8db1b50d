//! Feeds over HTTP and from files: the difference is applied, absurd changes and protected addresses are not, and what fails keeps what it had.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site, text},
    process::{Running, output},
    scratch::Scratch,
    service::Service,
};

/// Where the lists are.
const SERVER: &str = "127.0.0.1:8099";

/// The status of a path that is not answered.
const SILENT: u16 = 0;

/// A server of lists in the namespace of the PBX: what each path answers, and how many wait for an answer that does not come.
#[derive(Clone, Default)]
struct Lists(Arc<Mutex<HashMap<String, (u16, String)>>>, Arc<AtomicUsize>);

impl Lists {
    fn start(site: &Site) -> Result<Self> {
        let lists = Self::default();
        let listener = site.pbx.enter(|| TcpListener::bind(SERVER))??;
        let answers = lists.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = answers.clone();
                std::thread::spawn(move || {
                    let _gone = answers.answer(stream);
                });
            }
        });
        Ok(lists)
    }

    fn set(&self, path: &str, status: u16, body: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(path.to_owned(), (status, body.to_owned()));
    }

    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        reader.read_line(&mut line)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = all.get(path).cloned().unwrap_or((404, String::new()));
        drop(all);
        if status == SILENT {
            self.1.fetch_add(1, Ordering::Relaxed);
            let _end = reader.read_to_end(&mut Vec::new());
            self.1.fetch_sub(1, Ordering::Relaxed);
            return Ok(());
        }
        write!(
            stream,
            "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        Ok(())
    }
}

fn listed(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("203.0.113.{number}\n")).collect()
}

fn state(guard: &Guard, name: &str) -> Result<(u64, String)> {
    let feed = guard.json(&["feed", "show", name])?;
    let failure = feed["failure"].as_str().unwrap_or_default().to_owned();
    Ok((feed["entries"].as_u64().context("no entries")?, failure))
}

#[test]
fn what_changes_in_a_feed_is_applied_and_what_is_absurd_is_not() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let (guard, lists) = (&site.guard, Lists::start(&site)?);
    site.pbx.run(&["ip", "link", "set", "lo", "up"])?;
    guard.run(&["trunk", "add", "carrier", "--peer", "198.51.100.0/28"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.0/24"])?.expect(0)?;
    let protected = "198.51.100.3\n192.0.2.7\n10.0.0.0/8\n10.77.0.1\n";
    let url = format!("http://{SERVER}/drop.txt?key=SECRET");
    let add = ["feed", "add", "drop", &url, "--every", "1h"];
    let refresh = || guard.run(&["feed", "refresh", "drop"]);
    guard.run(&add)?.expect(1)?;
    ensure!(guard.rows(&["feed"])?.is_empty(), "a feed that can't be read was added");
    lists.set("/drop.txt?key=SECRET", 200, &format!("# a list\n{}{protected}", listed(0..40)));
    let added = guard.run(&add)?.expect(0)?;
    ensure!(added.stdout == "drop: added 40, 0 as before\n", "it said {added:?}");
    for why in [
        "198.51.100.3 is allowed, or a trunk's",
        "192.0.2.7 is allowed, or a trunk's",
        "10.0.0.0/8 is this machine's own address (10.77.0.1)",
        "10.77.0.1 is this machine's own address (10.77.0.1)",
    ] {
        ensure!(
            added.stderr.contains(&format!("drop: {why} and was skipped")),
            "{why}: it said {}",
            added.stderr
        );
    }
    guard.run(&["lookup", "203.0.113.7", "--exit-code"])?.expect(10)?;
    guard.run(&["lookup", "198.51.100.3", "--exit-code"])?.expect(0)?;
    let blocks = || guard.rows(&["list", "block"]);
    ensure!(
        blocks()?.iter().all(|row| row["origin"] == "feed:drop" && row["expires_at"].is_string()),
        "not as feeds block"
    );
    let shown = guard.run(&["feed"])?.expect(0)?.stdout;
    ensure!(
        shown.contains(&format!("http://{SERVER}/...")) && !shown.contains("SECRET"),
        "listed is {shown}"
    );

    lists.set("/drop.txt?key=SECRET", 200, &listed(1..42));
    let said = refresh()?.expect(0)?;
    ensure!(said.stdout == "drop: added 2, lifted 1, 39 as before\n", "it said {said:?}");
    let trail = guard.rows(&["log", "--last", "1"])?;
    ensure!(
        trail[0]["verb"] == "feed refresh" && trail[0]["added"] == 2 && trail[0]["removed"] == 1,
        "logged is {trail:?}"
    );
    for (status, body, why) in [
        (200, listed(1..3), "of 41 entries 39 would go, and 0 would come: more than half"),
        (200, String::new(), "there is no entry in it"),
        (200, "<html>\n".to_owned(), "1:1: `<html>` is neither"),
        (200, format!("{}0.0.0.0/0\n", listed(1..42)), "0.0.0.0/0 is shorter than /8"),
        (200, "203.0.113.1\n".repeat(2_000_000), "reading the answer"),
        (503, String::new(), "the server answers 503"),
    ] {
        lists.set("/drop.txt?key=SECRET", status, &body);
        let said = refresh()?.expect(1)?;
        ensure!(said.stderr.contains(why), "{why}: it said {}", said.stderr.trim());
        let (entries, failure) = state(guard, "drop")?;
        ensure!(entries == 41 && failure.contains(why), "{why}: {entries} entries, {failure}");
    }
    lists.set("/drop.txt?key=SECRET", 200, &listed(1..3));
    let said = guard.run(&["feed", "refresh", "drop", "--force"])?.expect(0)?;
    ensure!(said.stdout == "drop: lifted 39, 2 as before\n", "it said {said:?}");
    ensure!(state(guard, "drop")? == (2, String::new()), "it is not well again");

    let page = |path: &str, status, addresses: &str, id: &str| {
        lists.set(path, status, &format!("{{\"ipaddress\":[{addresses}],\"ID\":\"{id}\"}}"));
    };
    page("/api/KEY/banned", 200, "\"198.51.100.77\",\"198.51.100.78\"", "17");
    page("/api/KEY/banned/17", 200, "\"198.51.100.79\"", "18");
    page("/api/KEY/banned/18", 400, "\"no new bans\"", "none");
    let apiban = format!("http://{SERVER}/api/KEY/banned");
    let said = guard.run(&["feed", "add", "apiban", &apiban, "--format", "apiban"])?.expect(0)?;
    ensure!(said.stdout == "apiban: added 3, 0 as before\n", "it said {said:?}");
    guard.run(&["feed", "remove", "drop"])?.expect(0)?;
    guard.run(&["feed", "remove", "drop"])?.expect(2)?;
    ensure!(blocks()?.iter().all(|row| row["origin"] == "feed:apiban"), "a feed that is removed blocks");
    ensure!(blocks()?.len() == 3, "the other one does not block");
    Ok(())
}

#[test]
fn serve_reads_feeds_and_what_is_not_read_any_more_ends() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("feeds")?);
    let guard = &site.guard;
    let file = scratch.write("bad.txt", &listed(0..4))?;
    let name = file.to_string_lossy().into_owned();
    guard.run(&["feed", "add", "file", &name, "--every", "1s", "--keep", "4s"])?.expect(0)?;
    let service = Service::start(&site, &scratch, &[])?;
    scratch.write("bad.txt", &listed(1..6))?;
    let targets = || guard.rules()?.iter().map(|row| text(row, "target")).collect::<Result<Vec<_>>>();
    wait_until("the difference is in force", || {
        Ok(targets()?.len() == 5 && !targets()?.contains(&"203.0.113.0".to_owned()))
    })?;
    std::fs::remove_file(&file)?;
    wait_until("it is told that the feed fails", || {
        Ok(service.said()?.contains("the feed file fails, what it had stays"))
    })?;
    wait_until("the health has it", || Ok(service.get("/health")?.body.contains("feeds")))?;
    ensure!(targets()?.len() == 5, "what it had is gone at once");
    wait_until("what is not read any more has ended", || {
        Ok(guard.run(&["lookup", "203.0.113.3", "--exit-code"])?.status == 0)
    })?;
    Ok(())
}

#[test]
fn a_server_that_is_slow_holds_up_no_other_feed() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("feeds")?);
    let (guard, lists) = (&site.guard, Lists::start(&site)?);
    site.pbx.run(&["ip", "link", "set", "lo", "up"])?;
    let file = scratch.write("bad.txt", &listed(0..4))?.to_string_lossy().into_owned();
    guard.run(&["feed", "add", "file", &file, "--every", "1s", "--keep", "1h"])?.expect(0)?;
    for name in ["slow", "slower"] {
        lists.set(&format!("/{name}"), 200, "198.51.100.77\n");
        let url = format!("http://{SERVER}/{name}");
        guard.run(&["feed", "add", name, &url, "--every", "1s", "--keep", "1h"])?.expect(0)?;
        lists.set(&format!("/{name}"), SILENT, "");
    }
    let _service = Service::start(&site, &scratch, &[])?;
    let waiting = || lists.1.load(Ordering::Relaxed);
    wait_until("both are asked", || Ok(waiting() == 2))?;
    scratch.write("bad.txt", &listed(1..6))?;
    wait_until("the other one is in force", || Ok(state(guard, "file")?.0 == 5))?;
    ensure!(waiting() == 2, "the file was read when {} were waited for", waiting());
    Ok(())
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("tls")?);
    site.pbx.run(&["ip", "link", "set", "lo", "up"])?;
    let (key, certificate) = (scratch.join("key.pem"), scratch.join("cert.pem"));
    let [key, certificate] = [key.to_string_lossy(), certificate.to_string_lossy()];
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -addext basicConstraints=CA:FALSE -subj /CN=lists -addext subjectAltName=IP:127.0.0.1";
    output(std::process::Command::new("openssl").args(words.split(' ')).args([
        "-keyout",
        &*key,
        "-out",
        &*certificate,
    ]))?;
    scratch.write("bad.txt", &listed(0..4))?;
    let mut command = site.pbx.command("openssl");
    command.args(["s_server", "-accept", "8443", "-WWW", "-quiet", "-key", &*key, "-cert", &*certificate]);
    command.current_dir(scratch.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Running::start("openssl", &mut command)?;
    wait_until("the server listens", || Ok(!site.pbx.run(&["ss", "-Hltn", "sport = :8443"])?.is_empty()))?;
    let words = ["feed", "add", "tls", "https://127.0.0.1:8443/bad.txt"];
    let said = site.guard.run(&words)?.expect(1)?;
    ensure!(said.stderr.contains("certificate"), "it said {said:?}");
    ensure!(site.guard.rules()?.is_empty(), "a server that nobody trusts blocks");
    let trusting = output(site.guard.command(&words).env("SSL_CERT_FILE", &*certificate))?;
    ensure!(trusting == "tls: added 4, 0 as before\n", "it said {trusting}");
    Ok(())
}
