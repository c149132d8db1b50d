//! Where evidence and events are kept: within their limits, on a disk that is full as well, and after a kill.

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    sync::RwLockReadGuard,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};
use serde_json::json;
use sipguard_common::Reason;
use sipguard_core::{counters::Action, disk::Floor, service::EvidenceLimits};
use sipguard_observe::{
    events::{JournalSocket, Log},
    evidence::Evidence,
    header::Header,
    redact::RedactedPacket,
    tap::TapPacket,
};
use sipguard_tests::{
    application::{uninterrupted, wait_until},
    exclusive,
    message::good_call,
    packet::Peer,
    process::output,
    scratch::Scratch,
    user_agent::is_installed,
};

fn packet() -> RedactedPacket {
    RedactedPacket::new(&recorded())
}

fn recorded() -> TapPacket {
    let frame = Peer::new("192.0.2.7:5060", "192.0.2.1:5060").udp(&good_call());
    TapPacket {
        number: 0,
        time_ns: 1,
        time: Timestamp::UNIX_EPOCH,
        count: 1,
        interface: "eth0".to_owned(),
        trunk: None,
        reason: Reason::BareLf,
        action: Action::Drop,
        client: None,
        header: Header::read(&frame),
        frame_len: frame.len() as u32,
        frame,
    }
}

fn limits(bytes: u64, floor: u64) -> EvidenceLimits {
    EvidenceLimits { bytes, files: 4, floor: Floor::Bytes(floor) }
}

/// Files below a directory with their sizes, by name; none that whoever writes there has taken away meanwhile.
fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(about) => files.push((entry.path(), about.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    files.sort();
    Ok(files)
}

/// A small file system.
struct Disk(PathBuf, #[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>);

impl Disk {
    fn new(scratch: &Scratch, options: &str) -> Result<Self> {
        // A process that is forked meanwhile keeps files that are removed here, and their room.
        let beside = exclusive::beside_others();
        let dir = scratch.join("disk");
        std::fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(options))
            .context("mounting a tmpfs")?;
        Ok(Self(dir, beside))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a process that another test forked has a file of it open.
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("lab: {} stays behind: {error}", self.0.display());
        }
    }
}

#[test]
fn the_newest_packets_are_kept_and_others_files_are_left_alone() -> Result<()> {
    let scratch = Scratch::new("ring")?;
    let dir = scratch.join("evidence");
    const MOST: u64 = 100_000;
    let mut evidence = Evidence::open(&dir, limits(MOST, 0))?;
    let others = ["notes.txt", "evidence-case-000000.pcapng", "evidence-20200101T000000Z-000000.pcapng.gz"];
    for name in others {
        std::fs::write(dir.join(name), "mine")?;
    }
    std::os::unix::fs::symlink(dir.join("notes.txt"), dir.join("evidence-20200101T000000Z-000000.pcapng"))?;
    let (mut names, packet) = (Vec::new(), packet());
    for turn in 0..1000 {
        if turn % 300 == 299 {
            drop(evidence);
            evidence = Evidence::open(&dir, limits(MOST, 0))?;
        }
        let name = evidence.take(&packet, Some("a rule"))?.context("it was not kept")?;
        ensure!(dir.join(&name).exists(), "{name} is not there");
        names.push(name);
        let own = files(&dir)?
            .into_iter()
            .filter(|(path, _)| std::fs::read(path).is_ok_and(|bytes| bytes != b"mine"));
        let bytes: u64 = own.map(|(_, bytes)| bytes).sum();
        ensure!(bytes <= MOST, "{bytes} bytes after {turn}");
    }
    names.dedup();
    ensure!(names.len() > 8, "{names:?}");
    ensure!(
        !dir.join(&names[0]).exists() && dir.join(names.last().context("none")?).exists(),
        "not the newest"
    );
    for name in others {
        ensure!(std::fs::read(dir.join(name))? == b"mine", "{name} was touched");
    }
    ensure!(std::fs::metadata(&dir)?.permissions().mode() & 0o777 == 0o750, "the directory's mode");
    let newest = dir.join(names.last().context("none")?);
    ensure!(std::fs::metadata(&newest)?.permissions().mode() & 0o777 == 0o640, "a file's mode");
    let other = Evidence::open(&dir, limits(MOST, 0)).err().context("two at once")?.to_string();
    ensure!(other.contains("another process keeps evidence"), "{other}");
    drop(evidence);
    std::os::unix::fs::symlink(&dir, scratch.join("link"))?;
    ensure!(Evidence::open(&scratch.join("link"), limits(MOST, 0)).is_err(), "a link was followed");
    Ok(())
}

#[test]
fn on_a_full_disk_it_stops_says_so_once_and_goes_on() -> Result<()> {
    let scratch = Scratch::new("ring")?;
    let disk = Disk::new(&scratch, "size=512k")?;
    let dir = disk.0.join("evidence");
    let packet = packet();
    // Without a floor, the oldest makes room on a disk that is smaller than the limit.
    let mut evidence = Evidence::open(&dir, limits(1 << 20, 0))?;
    for turn in 0..2000 {
        ensure!(evidence.take(&packet, None)?.is_some(), "it was not kept at {turn}");
    }
    ensure!(files(&dir)?.len() >= 2, "{:?}", files(&dir)?);
    drop(evidence);
    // Somebody else fills the disk: what is there stays, for it would not help.
    let mut evidence = Evidence::open(&dir, limits(1 << 20, 400 << 10))?;
    let filler = disk.0.join("core");
    let before = files(&dir)?;
    for (path, _) in &before[1..] {
        std::fs::remove_file(path)?;
    }
    let before = files(&dir)?;
    std::fs::write(&filler, vec![1; 200 << 10])?;
    let said = evidence.take(&packet, None).err().context("it went on")?.to_string();
    ensure!(said.contains("no evidence is kept in") && said.contains("nearly full"), "{said}");
    for _ in 0..100 {
        ensure!(evidence.take(&packet, None)?.is_none(), "it went on");
    }
    ensure!(files(&dir)? == before, "it threw away what would not have helped");
    ensure!(evidence.tick().is_none(), "it does not go on");
    for (path, _) in &before {
        std::fs::remove_file(path)?;
    }
    std::fs::remove_file(&filler)?;
    wait_until("it goes on", || Ok(evidence.take(&packet, None)?.is_some()))?;
    ensure!(evidence.tick() == Some("evidence is kept again"), "it does not say so");
    Ok(())
}

#[test]
fn a_kill_leaves_files_that_can_be_read() -> Result<()> {
    let _alone = exclusive::alone();
    let scratch = Scratch::new("ring")?;
    let dir = scratch.join("evidence");
    let has_tshark = is_installed("tshark", "tshark");
    for turn in 0..5 {
        // SAFETY: the child only writes files, and ends by the signal.
        match unsafe { fork() }? {
            ForkResult::Child => {
                if let Ok(mut evidence) = Evidence::open(&dir, limits(200_000, 0)) {
                    let packet = packet();
                    loop {
                        let _ = evidence.take(&packet, None);
                    }
                }
                std::process::abort();
            }
            ForkResult::Parent { child } => {
                wait_until("it writes", || Ok(dir.exists() && files(&dir)?.len() > 2))?;
                std::thread::sleep(std::time::Duration::from_millis(20 + turn * 7));
                kill(child, Signal::SIGKILL)?;
                waitpid(child, None)?;
            }
        }
        if has_tshark {
            let mut files = files(&dir)?;
            let (newest, _) = files.pop().context("no file")?;
            for (file, _) in files {
                output(Command::new("tshark").args(["-n", "-r"]).arg(&file))?;
            }
            // A kill ends a write where a page ends: the last block may be cut, all before it can be read.
            let read = Command::new("tshark").args(["-n", "-r"]).arg(&newest).output()?;
            let said = String::from_utf8_lossy(&read.stderr).into_owned();
            ensure!(read.status.success() || said.contains("cut short"), "{}: {said}", newest.display());
        }
    }
    // A block that was cut is cut off by the next one who goes on.
    drop(Evidence::open(&dir, limits(200_000, 0))?);
    // One that was begun when the kill came has no block yet.
    let mut whole = files(&dir)?.into_iter().filter(|(_, bytes)| *bytes >= 40);
    let (newest, bytes) = whole.next_back().context("no file")?;
    for (later, _) in files(&dir)?.into_iter().filter(|(file, _)| *file > newest) {
        std::fs::remove_file(later)?;
    }
    let mut content = std::fs::read(&newest)?;
    content.extend_from_slice(&content.clone()[..40]);
    content.truncate(content.len() - 7);
    std::fs::write(&newest, &content)?;
    let mut evidence = Evidence::open(&dir, limits(200_000, 0))?;
    let left = std::fs::metadata(&newest)?.len();
    ensure!(left == bytes, "{left} instead of {bytes} bytes");
    ensure!(
        evidence.take(&packet(), None)?.is_some_and(|name| !newest.ends_with(name)),
        "it went on in the same file"
    );
    Ok(())
}

#[test]
fn a_log_goes_on_after_logrotate_and_within_its_limit() -> Result<()> {
    let scratch = Scratch::new("log")?;
    let disk = Disk::new(&scratch, "size=64k")?;
    let (path, other) = (disk.0.join("events.json"), disk.0.join("events.json.old"));
    let mut log = Log::open(&path, 4096, Floor::Bytes(0))?;
    let event = |number: u64| json!({ "number": number, "text": "a\nb" });
    ensure!(log.write(&event(1))?, "not written");
    std::fs::rename(&path, &other)?;
    ensure!(log.write(&event(2))?, "not written");
    let lines = |path: &Path| -> Result<Vec<serde_json::Value>> {
        std::fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    ensure!(lines(&other)? == [event(1)] && lines(&path)? == [event(2)], "not in their files");
    for number in 3..500 {
        log.write(&event(number))?;
        ensure!(std::fs::metadata(&path)?.len() <= 4096, "it is too long");
    }
    let kept = [lines(&disk.0.join("events.json.1"))?, lines(&path)?].concat();
    let first = 500 - kept.len() as u64;
    ensure!(
        kept.len() > 100 && kept == (first..500).map(event).collect::<Vec<_>>(),
        "{} are left",
        kept.len()
    );
    ensure!(std::fs::metadata(&path)?.permissions().mode() & 0o777 == 0o640, "its mode");
    let filler = disk.0.join("core");
    let _full = std::fs::write(&filler, vec![1; 64 << 10]);
    let mut said = 0;
    for number in 0..500 {
        said += usize::from(log.write(&event(number)).is_err());
    }
    ensure!(said == 1, "said {said} times");
    lines(&path)?;
    std::fs::remove_file(&filler)?;
    ensure!(log.write(&event(7))? && lines(&path)?.last() == Some(&event(7)), "it does not go on");
    Ok(())
}

#[test]
fn the_journal_gets_fields_that_line_ends_do_not_break() -> Result<()> {
    let scratch = Scratch::new("journal")?;
    let path = scratch.join("socket");
    let listener = UnixDatagram::bind(&path)?;
    let mut journal = JournalSocket::at(&path)?;
    let packet = RedactedPacket::new(&TapPacket { trunk: Some("carrier".to_owned()), ..recorded() });
    ensure!(journal.write(&packet, Some("block a\nMESSAGE=forged"))?, "not taken");
    let mut bytes = vec![0; 65536];
    let len = uninterrupted(|| listener.recv(&mut bytes))?;
    let (mut fields, mut rest) = (Vec::new(), &bytes[..len]);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').context("a field without end")?;
        let line = std::str::from_utf8(&rest[..end])?;
        if let Some((name, value)) = line.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
            rest = &rest[end + 1..];
        } else {
            let len = u64::from_le_bytes(rest[end + 1..end + 9].try_into()?) as usize;
            fields.push((line.to_owned(), String::from_utf8(rest[end + 9..end + 9 + len].to_vec())?));
            rest = &rest[end + 10 + len..];
        }
    }
    let all = |name: &str| {
        fields.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    ensure!(all("MESSAGE").len() == 1 && all("MESSAGE")[0].contains("bare-lf"), "{fields:?}");
    ensure!(all("SIPGUARD_RULE") == ["block a\nMESSAGE=forged"], "{fields:?}");
    ensure!(all("PRIORITY") == ["5"] && all("SYSLOG_IDENTIFIER") == ["sipguard"], "{fields:?}");
    ensure!(all("SIPGUARD_SRC") == ["192.0.2.7"] && all("SIPGUARD_SRC_PORT") == ["5060"], "{fields:?}");
    ensure!(all("SIPGUARD_TRUNK") == ["carrier"] && all("SIPGUARD_REASON") == ["bare-lf"], "{fields:?}");
    ensure!(all("SIPGUARD_PAYLOAD")[0].contains("\r\nVia: "), "{fields:?}");
    // One that does not read is waited for by nobody.
    let mut refused = 0;
    for _ in 0..10_000 {
        refused += u64::from(!journal.write(&packet, None)?);
    }
    ensure!(refused > 0 && journal.lost() == refused, "{refused} refused, {} lost", journal.lost());
    drop(listener);
    ensure!(journal.write(&packet, None).is_err(), "nobody is there");
    Ok(())
}
