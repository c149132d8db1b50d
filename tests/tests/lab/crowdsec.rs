//! A real CrowdSec LAPI whose decisions `serve` follows: how long one takes until it drops, many at once, and who is not touched.

use std::{
    fmt::Write as _,
    fs::File,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::wait_until, guard::Site, process::Running, scratch::Scratch, service::Service,
};

/// Decisions that are imported at once.
const MANY: usize = 25_000;
/// Decisions whose way to the kernel is timed.
const TIMED: u32 = 8;

/// A LAPI on 127.0.0.1:8080 of the PBX, with files in a directory of the test, and no way to the internet.
struct Lapi<'s> {
    site: &'s Site,
    scratch: &'s Scratch,
    _running: Running,
}

impl<'s> Lapi<'s> {
    fn start(site: &'s Site, scratch: &'s Scratch) -> Result<Self> {
        site.pbx.run(&["ip", "link", "set", "lo", "up"])?;
        let root = scratch.path().display();
        for directory in ["data", "hub", "notifications", "plugins"] {
            std::fs::create_dir(scratch.join(directory))?;
        }
        scratch.write("simulation.yaml", "simulation: false\n")?;
        scratch.write("local.yaml", "")?;
        scratch.write("profiles.yaml", "name: none\nfilters:\n - \"false\"\ndecisions: []\n")?;
        scratch.write("hub/.index.json", "{}")?;
        scratch.write(
            "config.yaml",
            &format!(
                "common: {{daemonize: false, log_media: stdout, log_level: info, log_dir: {root}, working_dir: {root}}}\n\
                 config_paths: {{config_dir: {root}, data_dir: {root}/data, simulation_path: {root}/simulation.yaml, hub_dir: {root}/hub, \
                 index_path: {root}/hub/.index.json, notification_dir: {root}/notifications, plugin_dir: {root}/plugins}}\n\
                 cscli: {{output: human}}\n\
                 db_config: {{log_level: info, type: sqlite, db_path: {root}/data/crowdsec.db, use_wal: true}}\n\
                 plugin_config: {{user: nobody, group: nogroup}}\n\
                 api:\n  client: {{insecure_skip_verify: false, credentials_path: {root}/local.yaml}}\n  \
                 server: {{log_level: info, listen_uri: \"127.0.0.1:8080\", profiles_path: {root}/profiles.yaml}}\n\
                 prometheus: {{enabled: false}}\n"
            ),
        )?;
        let log = File::create(scratch.join("lapi.log"))?;
        let ask = |words: &str| cscli(site, scratch, words);
        ask(&format!("machines add test --password secret -f {root}/local.yaml --force"))?;
        let key = ask("bouncers add sipguard -o raw")?;
        scratch.write("key", &key)?;
        let mut command = site.pbx.command("crowdsec");
        command.arg("-c").arg(scratch.join("config.yaml")).arg("-no-cs");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let running = Running::start("crowdsec", &mut command)?;
        let lapi = Self { site, scratch, _running: running };
        wait_until("the LAPI answers", || Ok(lapi.ask("decisions list").is_ok()))?;
        Ok(lapi)
    }

    fn ask(&self, words: &str) -> Result<String> {
        cscli(self.site, self.scratch, words)
    }

    fn key(&self) -> PathBuf {
        self.scratch.join("key")
    }
}

fn cscli(site: &Site, scratch: &Scratch, words: &str) -> Result<String> {
    let config = scratch.join("config.yaml");
    let config = config.to_string_lossy();
    site.pbx.run(&[&["cscli", "-c", &*config], &*words.split(' ').collect::<Vec<_>>()].concat())
}

#[test]
fn decisions_of_crowdsec_are_in_force_and_only_their_difference_is_applied() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("crowdsec")?);
    let guard = &site.guard;
    let lapi = Lapi::start(&site, &scratch)?;
    let key = lapi.key();
    let key = key.to_string_lossy();
    let add = ["feed", "add", "crowdsec", "http://127.0.0.1:8080", "--format", "crowdsec", "--key-file"];
    let add = [&add[..], &[&*key]].concat();
    guard.run(&["trunk", "add", "carrier", "--peer", "198.51.100.0/28"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.0/24"])?.expect(0)?;
    let stops = |address: &str| Ok(guard.run(&["lookup", address, "--exit-code"])?.status == 10);
    let mut list = "duration,scope,value\n".to_owned();
    for number in 0..MANY as u32 {
        writeln!(list, "24h,ip,{}", std::net::Ipv4Addr::from(0xcb00_0000 + number))?;
    }
    scratch.write("many.csv", &list)?;
    lapi.ask(&format!("decisions import -i {}", scratch.join("many.csv").display()))?;
    let begin = Instant::now();
    let said = guard.run(&add)?.expect(0)?;
    let first = begin.elapsed();
    ensure!(said.stdout == format!("crowdsec: added {MANY}, 0 as before\n"), "it said {said:?}");

    let service = Service::start(&site, &scratch, &[])?;
    lapi.ask("decisions add -i 10.77.0.2 -d 1h")?;
    wait_until("the phone is blocked", || stops("10.77.0.2"))?;
    for protected in ["198.51.100.3", "192.0.2.7", "10.77.0.1"] {
        lapi.ask(&format!("decisions add -i {protected} -d 1h"))?;
    }
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..TIMED {
        let address = std::net::Ipv4Addr::from(0xc612_0000 + number).to_string();
        lapi.ask(&format!("decisions add -i {address} -d 1h"))?;
        let decided = Instant::now();
        wait_until("the decision is in force", || stops(&address))?;
        times.push(decided.elapsed());
    }
    times.sort_unstable();
    let worst = times.last().context("nothing was timed")?;
    println!(
        "{MANY} decisions in {first:?}; one in {:?}, the slowest of {TIMED} in {worst:?}",
        times[times.len() / 2]
    );
    for protected in ["198.51.100.3", "192.0.2.7", "10.77.0.1"] {
        ensure!(!stops(protected)?, "{protected} is stopped");
    }
    lapi.ask("decisions delete -i 10.77.0.2")?;
    wait_until("the phone is free again", || Ok(!stops("10.77.0.2")?))?;
    let counts = |row: &serde_json::Value| (row["added"].as_u64(), row["removed"].as_u64());
    let trail = guard.rows(&["log", "--last", "100", "--origin", "feed:crowdsec"])?;
    let changes: Vec<_> = trail.iter().map(counts).collect();
    let few = changes[1..].iter().all(|(added, removed)| *added <= Some(3) && *removed <= Some(1));
    ensure!(changes[0] == (Some(MANY as u64), Some(0)) && few, "applied was {changes:?}");
    ensure!(!service.said()?.contains("fails"), "it said {}", service.said()?);
    Ok(())
}

#[test]
fn a_wrong_key_is_told_and_blocks_nothing() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("crowdsec")?);
    let lapi = Lapi::start(&site, &scratch)?;
    lapi.ask("decisions add -i 203.0.113.7 -d 1h")?;
    scratch.write("key", "wrong\n")?;
    let key = lapi.key();
    let add = ["feed", "add", "crowdsec", "http://127.0.0.1:8080", "--format", "crowdsec"];
    let said = site.guard.run(&add)?.expect(1)?;
    ensure!(said.stderr.contains("--key-file"), "it said {said:?}");
    let said = site.guard.run(&[&add[..], &["--key-file", &*key.to_string_lossy()]].concat())?.expect(1)?;
    ensure!(said.stderr.contains("the server answers 403: the key is missing or wrong"), "it said {said:?}");
    ensure!(site.guard.rules()?.is_empty(), "it blocks");
    Ok(())
}
