//! A real fail2ban that bans through `deploy/fail2ban`: what a ban stops, what is refused, and what a restart brings back.

use std::{
    fs::File,
    net::{IpAddr, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection as Database;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Server, sip, udp, wait_until},
    guard::{Guard, Site, neighbour, text},
    message::good_call,
    process::Running,
    scratch::Scratch,
};

/// The jail, with Debian's own filter of that name.
const JAIL: &str = "asterisk";
/// Packets of each transport that are sent against a ban.
const PROBES: u64 = 100;
/// Bans that a restart brings back.
const MANY: u32 = 3000;

/// A fail2ban in the namespace of the PBX, whose files are all in a directory of the test.
struct Fail2ban<'s> {
    site: &'s Site,
    scratch: &'s Scratch,
    running: Running,
}

impl<'s> Fail2ban<'s> {
    /// Starts it, and waits until its jail has been started.
    fn start(site: &'s Site, scratch: &'s Scratch) -> Result<Self> {
        let log = File::options().create(true).append(true).open(scratch.join("said"))?;
        let mut command = site.pbx.command("fail2ban-server");
        command.args(["-f", "-c"]).arg(scratch.path()).arg("start").stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        command.env("SIPGUARD_PINS", site.guard.pins()).env("SIPGUARD_STORE", site.guard.store());
        command.env("SIPGUARD_CONFIG", "/dev/null");
        let mut fail2ban = Self { site, scratch, running: Running::start("fail2ban", &mut command)? };
        wait_until("fail2ban has its jail", || {
            fail2ban.running.expect_alive()?;
            Ok(fail2ban.ask(&["status", JAIL]).is_ok())
        })?;
        Ok(fail2ban)
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let configuration = self.scratch.path().to_string_lossy();
        self.site.pbx.run(&[&["fail2ban-client", "-c", &configuration], words].concat())
    }

    fn ban(&self, address: &str) -> Result<()> {
        self.ask(&["set", JAIL, "banip", address]).map(drop)
    }

    fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.scratch.join("log")).context("reading the log of fail2ban")
    }
}

/// The configuration: Debian's filters, our action.
fn configure(scratch: &Scratch) -> Result<()> {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fail2ban");
    symlink("/etc/fail2ban/filter.d", scratch.join("filter.d"))?;
    symlink(&deployed, scratch.join("action.d"))?;
    let at = |name: &str| scratch.join(name).display().to_string();
    scratch.write(
        "fail2ban.conf",
        &format!(
            "[Definition]\nloglevel = INFO\nlogtarget = {}\nsyslogsocket = auto\nsocket = {}\npidfile = {}\ndbfile = {}\ndbpurgeage = 1d\n",
            at("log"), at("socket"), at("pid"), at("bans.sqlite3")
        ),
    )?;
    let program = neighbour("SIPGUARD", "sipguard")?;
    let restore = format!("SIPGUARD=\"<sipguard>\" {}", deployed.join("sipguard-restore").display());
    let action = format!(
        "sipguard[name=%(__name__)s, sipguard=\"{}\", restore='{restore}', database=\"{}\"]",
        program.display(),
        at("bans.sqlite3")
    );
    scratch.write(
        "jail.conf",
        &format!(
            "[{JAIL}]\nenabled = true\nbackend = polling\nfilter = {JAIL}\nlogpath = {}\nmaxretry = 1\nbantime = 1h\naction = {action}\n",
            at("messages")
        ),
    )?;
    scratch.write("messages", "")?;
    Ok(())
}

/// The PBX's ends of both transports, and the phone that probes them.
struct Probes<'s> {
    site: &'s Site,
    server: Server,
    socket: UdpSocket,
    from: UdpSocket,
    family: usize,
}

impl<'s> Probes<'s> {
    fn new(site: &'s Site, family: usize) -> Result<Self> {
        let (pbx, phone) = (Site::PBX[family], Site::PHONE[family]);
        let server = Server::listen(&site.pbx, sip(pbx))?;
        let socket = udp(&site.pbx, sip(pbx))?;
        socket.set_nonblocking(true)?;
        let from = udp(&site.phone, (phone, 0))?;
        from.connect(sip(pbx))?;
        Ok(Self { site, server, socket, from, family })
    }

    /// A datagram and a connection arrive.
    fn expect_open(&self) -> Result<()> {
        wait_until("a probe arrives over both transports", || {
            self.send(1, Duration::from_secs(1))?;
            Ok(self.arrived()? == (true, true))
        })?;
        while self.arrived()? != (false, false) {}
        Ok(())
    }

    /// Of 100 datagrams and 100 attempts to connect nothing arrives.
    fn expect_closed(&self) -> Result<()> {
        while self.arrived()? != (false, false) {}
        let before = self.site.guard.counted(Reason::BlockedHost)?;
        // Who gives up at once has sent its SYN.
        self.send(PROBES, Duration::from_millis(1))?;
        wait_until("every probe was dropped", || {
            Ok(self.site.guard.counted(Reason::BlockedHost)? >= before + 2 * PROBES)
        })?;
        let arrived = self.arrived()?;
        ensure!(arrived == (false, false), "from {}: {arrived:?} arrived", Site::PHONE[self.family]);
        Ok(())
    }

    fn send(&self, count: u64, patience: Duration) -> Result<()> {
        let to = sip(Site::PBX[self.family]);
        let request = good_call();
        (0..count).try_for_each(|_| self.from.send(&request).map(drop))?;
        self.site.phone.enter(|| {
            (0..count).for_each(|_| drop(TcpStream::connect_timeout(&to, patience)));
        })
    }

    /// Whether a datagram and a connection wait; both are taken.
    fn arrived(&self) -> Result<(bool, bool)> {
        Ok((self.socket.recv(&mut [0; 2048]).is_ok(), self.server.try_accept()?.is_some()))
    }
}

fn origins(guard: &Guard) -> Result<Vec<String>> {
    guard
        .rules()?
        .iter()
        .map(|row| Ok(format!("{} {}", text(row, "target")?, text(row, "origin")?)))
        .collect()
}

#[test]
fn a_ban_of_fail2ban_stops_every_probe_until_it_is_lifted() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("fail2ban")?);
    configure(&scratch)?;
    let mut fail2ban = Fail2ban::start(&site, &scratch)?;
    let probes = [Probes::new(&site, 0)?, Probes::new(&site, 1)?];
    probes.iter().try_for_each(Probes::expect_open)?;
    // What Asterisk writes of a wrong password; the other one by hand.
    let now = site.pbx.run(&["date", "+%F %T"])?;
    let failed = format!(
        "[{}] NOTICE[12345] chan_sip.c: Registration from '<sip:100@10.77.0.1>' failed for '10.77.0.2:5060' - Wrong password\n",
        now.trim()
    );
    scratch.write("messages", &failed)?;
    fail2ban.ban("fd77::2")?;
    wait_until("both are banned", || Ok(site.guard.rules()?.len() == 2))?;
    let listed = origins(&site.guard)?;
    ensure!(listed == ["10.77.0.2 fail2ban:asterisk", "fd77::2 fail2ban:asterisk"], "listed is {listed:?}");
    ensure!(site.guard.rules()?.iter().all(|row| row["expires_at"].is_string()), "a ban has no end");
    probes.iter().try_for_each(Probes::expect_closed)?;
    fail2ban.ask(&["set", JAIL, "unbanip", "10.77.0.2"])?;
    wait_until("one ban is lifted", || Ok(site.guard.rules()?.len() == 1))?;
    probes[0].expect_open()?;
    probes[1].expect_closed()?;
    fail2ban.ask(&["unban", "--all"])?;
    wait_until("all bans are lifted", || Ok(site.guard.rules()?.is_empty()))?;
    probes.iter().try_for_each(Probes::expect_open)?;
    fail2ban.running.stop()?;
    Ok(())
}

#[test]
fn what_is_protected_is_refused_in_the_log_of_fail2ban() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("fail2ban")?);
    let guard = &site.guard;
    site.pbx.add_route("default", "10.77.0.9")?;
    guard.run(&["trunk", "add", "carrier", "--peer", "198.51.100.0/28"])?.expect(0)?;
    guard.run(&["allow", "192.0.2.0/24"])?.expect(0)?;
    configure(&scratch)?;
    let fail2ban = Fail2ban::start(&site, &scratch)?;
    for (address, why) in [
        ("10.77.0.1", "10.77.0.1 is this machine's own address (10.77.0.1): nothing was blocked"),
        ("10.77.0.9", "10.77.0.9 is a gateway (10.77.0.9): nothing was blocked"),
        (
            "198.51.100.3",
            "198.51.100.3 is allowed, or a trunk's: nothing was blocked; nothing automatic blocks it",
        ),
        ("192.0.2.7", "192.0.2.7 is allowed, or a trunk's: nothing was blocked; nothing automatic blocks it"),
    ] {
        fail2ban.ban(address)?;
        wait_until(&format!("the log tells why {address} is not banned"), || {
            let log = fail2ban.log()?;
            Ok(log.contains(why)
                && log.contains(&format!("Failed to execute ban jail '{JAIL}' action 'sipguard'")))
        })?;
    }
    ensure!(guard.rules()?.len() == 1, "blocked is {:?}", origins(guard)?);
    Ok(())
}

#[test]
fn a_restart_of_fail2ban_brings_thousands_of_bans_back_in_one_call() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("fail2ban")?);
    let guard = &site.guard;
    configure(&scratch)?;
    let probes = Probes::new(&site, 0)?;
    let mut fail2ban = Fail2ban::start(&site, &scratch)?;
    fail2ban.ban("10.77.0.2")?;
    wait_until("it is banned", || Ok(guard.rules()?.len() == 1))?;
    fail2ban.running.stop()?;
    ensure!(guard.rules()?.is_empty(), "a fail2ban that ended has left {:?}", origins(guard)?);
    probes.expect_open()?;
    remember(&scratch.join("bans.sqlite3"))?;
    guard.run(&["block", "203.0.113.7", "--origin", "fail2ban:asterisk"])?.expect(0)?;
    let mut fail2ban = Fail2ban::start(&site, &scratch)?;
    let restored = MANY as usize + 1;
    wait_until("the bans are back", || Ok(guard.rules()?.len() == restored))?;
    let log = guard.rows(&["log", "--last", "1"])?;
    ensure!(
        log[0]["verb"] == "import" && log[0]["added"] == restored && log[0]["removed"] == 1,
        "the log has {log:?}"
    );
    let lasting = guard.rules()?.iter().filter(|row| row["expires_at"].is_null()).count();
    ensure!(lasting == 1, "{lasting} are permanent");
    probes.expect_closed()?;
    // One that was brought back is lifted as any other.
    wait_until("fail2ban knows it", || Ok(fail2ban.log()?.contains("Restore Ban 10.77.0.2")))?;
    fail2ban.ask(&["set", JAIL, "unbanip", "10.77.0.2"])?;
    wait_until("it is lifted", || Ok(guard.rules()?.len() == restored - 1))?;
    probes.expect_open()?;
    fail2ban.running.stop()?;
    ensure!(guard.rules()?.is_empty(), "a fail2ban that ended has left bans");
    Ok(())
}

/// What is called when fail2ban starts, by itself.
#[test]
fn what_fail2ban_does_not_know_is_lifted_and_nothing_when_it_can_not_say() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("fail2ban")?);
    let guard = &site.guard;
    let database = scratch.join("bans.sqlite3");
    let restore = || {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fail2ban/sipguard-restore");
        let mut command = site.pbx.command("python3");
        command.arg(program).args(["fail2ban:asterisk", JAIL]).arg(&database);
        command.env("SIPGUARD", neighbour("SIPGUARD", "sipguard")?).env("SIPGUARD_CONFIG", "/dev/null");
        command.env("SIPGUARD_PINS", guard.pins()).env("SIPGUARD_STORE", guard.store());
        command.output().context("starting python3")
    };
    guard.run(&["block", "203.0.113.7", "--origin", "fail2ban:asterisk"])?.expect(0)?;
    let kept = |why: &str| -> Result<()> {
        let done = restore()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(!done.status.success() && said.contains(why), "{why}: it ended with {}: {said}", done.status);
        ensure!(origins(guard)? == ["203.0.113.7 fail2ban:asterisk"], "{why}: left is {:?}", origins(guard)?);
        Ok(())
    };
    kept("bans.sqlite3 is missing, so nothing was restored and nothing lifted")?;
    std::fs::write(&database, "no database at all, and long enough to be seen as none")?;
    kept("file is not a database")?;
    std::fs::remove_file(&database)?;
    let db = Database::open(&database)?;
    db.execute_batch("CREATE TABLE other (ip TEXT)")?;
    kept("no such table: bips")?;
    db.execute_batch("CREATE TABLE bips (ip TEXT, jail TEXT, timeofban INTEGER, bantime INTEGER)")?;
    // The last second of the year 9999 and those before and behind what has a text; one of centuries, and one of an hour.
    const LAST: i64 = 253_402_207_199;
    let now = jiff::Timestamp::now().as_second();
    let ends = [now + 3600, now + 20_000_000_000, LAST, LAST + 1, 253_402_300_799, 253_402_300_800, 1 << 52];
    for (number, end) in ends.iter().enumerate() {
        let address = format!("198.51.100.{number}");
        db.execute("INSERT INTO bips VALUES (?1, ?2, ?3, ?4)", (address, JAIL, now, end - now))?;
    }
    let done = restore()?;
    ensure!(done.status.success(), "it said {}", String::from_utf8_lossy(&done.stderr));
    let rules = guard.rules()?;
    let lasting: Vec<bool> = rules.iter().map(|row| row["expires_at"].is_null()).collect();
    ensure!(lasting == [false, false, false, true, true, true, true], "restored is {rules:?}");
    for number in 0..ends.len() {
        guard.run(&["lookup", &format!("198.51.100.{number}"), "--exit-code"])?.expect(10)?;
    }
    db.execute_batch("DELETE FROM bips")?;
    ensure!(restore()?.status.success() && guard.rules()?.is_empty(), "left is {:?}", origins(guard)?);
    Ok(())
}

/// Writes bans into the file of a fail2ban that does not run: one is permanent, one is over.
fn remember(file: &Path) -> Result<()> {
    let mut db = Database::open(file)?;
    let change = db.transaction()?;
    let now = jiff::Timestamp::now().as_second();
    for number in 0..=MANY {
        let address = IpAddr::from((0xcb00_0000 + number).to_be_bytes());
        let (begin, lasts) = match number {
            0 => (now - 10, -1),
            1 => (now - 7200, 3600),
            _ => (now - 10, 3600),
        };
        change.execute(
            "INSERT INTO bips VALUES (?1, ?2, ?3, ?4, 1, '{\"matches\": [], \"failures\": 1}')",
            (address.to_string(), JAIL, begin, lasts),
        )?;
    }
    Ok(change.commit()?)
}
