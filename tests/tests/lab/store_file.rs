//! The file itself: damaged, of another version, on a full or a read-only disk.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sipguard_tests::{
    guard::{Guard, Site, number},
    rules::{addresses, consistent, listed, reboot},
};

fn attach(guard: &Guard) -> Result<()> {
    guard.attach(&[Site::INTERFACE])
}

#[test]
fn a_damaged_store_is_kept_aside_and_the_kernels_rules_stay() -> Result<()> {
    type Harm = fn(Vec<u8>) -> Vec<u8>;
    let harms: [(&str, Harm); 4] = [
        ("no database", |_| {
            b"this is no database, and it is long enough to be looked at as one, or so it is hoped".repeat(9)
        }),
        ("a damaged page", |mut bytes| {
            bytes[4096 * 2..].fill(0x5a);
            bytes
        }),
        ("truncated", |bytes| bytes[..4096 * 2].to_vec()),
        ("empty", |_| Vec::new()),
    ];
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    for (name, harm) in harms {
        guard.run(&["block", "192.0.2.7", "198.51.100.0/24", "--for", "1h", "--comment", name])?.expect(0)?;
        let bytes = std::fs::read(guard.store())?;
        std::fs::write(guard.store(), harm(bytes))?;
        // A reading verb changes nothing, and shows what the kernel has.
        ensure!(guard.rules()?.len() == 2, "{name}: the kernel's rules are not shown");
        let said = guard.run(&["block", "192.0.2.9"])?.expect(0).context(name)?;
        ensure!(name == "empty" || said.stderr.contains("set aside"), "{name}: it said {said:?}");
        let rows = guard.rules()?;
        ensure!(rows.len() == 3 && rows.iter().all(|row| row["in_force"] == true), "{name}: {rows:?}");
        let ends = rows
            .iter()
            .filter(|row| row["expires_at"].is_string() && row["comment"] == "found in the kernel");
        ensure!(ends.count() == 2, "{name}: {rows:?}");
        // And they come back.
        reboot(guard)?;
        attach(guard)?;
        ensure!(number(&guard.json(&["status"])?, "blocks")? == 3, "{name}: not all came back");
        guard.run(&["unblock", "--all"])?.expect(0)?;
    }
    let names = std::fs::read_dir(guard.store().parent().context("a directory")?)?;
    let aside = names.filter(|name| {
        name.as_ref().is_ok_and(|name| name.file_name().to_string_lossy().contains(".damaged-2"))
    });
    ensure!(aside.count() == 3, "not every damaged file was kept");
    Ok(())
}

#[test]
fn a_store_of_a_newer_sipguard_or_of_another_program_is_left_alone() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    // Bytes 60 to 63 of the file are its `user_version`, 68 to 71 its `application_id`.
    for (offset, byte, why) in [(63, 99, "schema 99"), (71, 1, "another program")] {
        let good = std::fs::read(guard.store())?;
        let mut bytes = good.clone();
        bytes[offset] = byte;
        std::fs::write(guard.store(), &bytes)?;
        for words in [&["block", "192.0.2.8"][..], &["list"], &["attach", "eth0"]] {
            let said = guard.run(words)?.expect(1)?;
            ensure!(said.stderr.contains(why) && said.stderr.contains("--store"), "it said {said:?}");
        }
        ensure!(std::fs::read(guard.store())? == bytes, "it was written to");
        ensure!(number(&guard.json(&["status"])?, "blocks")? == 1, "the rules in force changed");
        std::fs::write(guard.store(), good)?;
    }
    Ok(())
}

/// A tmpfs, unmounted on drop.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    fn new(path: &'p Path, options: &str) -> Result<Self> {
        mount(Some("sipguard-test"), path, Some("tmpfs"), MsFlags::empty(), Some(options))
            .context("mounting a tmpfs")?;
        Ok(Self(path))
    }

    fn read_only(&self) -> Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, self.0, None::<&str>, flags, None::<&str>).context("remounting")
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

#[test]
fn a_store_that_cannot_be_written_changes_nothing_and_restores_all_the_same() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let directory = guard.store().parent().context("a directory")?.to_owned();
    std::fs::create_dir(&directory)?;
    let disk = Disk::new(&directory, "size=256k")?;
    attach(guard)?;
    guard.run(&["block", "192.0.2.7"])?.expect(0)?;
    let refused = |words: &[&str], input: &str| -> Result<()> {
        let said = guard.run_with_input(words, input)?.expect(1)?;
        ensure!(
            said.stderr.contains("can't be written") && said.stderr.lines().count() == 1,
            "it said {said:?}"
        );
        ensure!(consistent(guard)? == 1 && listed(guard)? == ["192.0.2.7 cli"], "the rules changed");
        Ok(())
    };
    refused(&["block", "-"], &addresses(20_000)).context("full")?;
    refused(&["import", "-", "--format", "txt"], &addresses(20_000)).context("full, by a list")?;
    guard.run(&["block", "192.0.2.7"])?.expect(0).context("after the full disk")?;
    disk.read_only()?;
    refused(&["block", "192.0.2.8"], "").context("read-only")?;
    refused(&["unblock", "--all"], "").context("read-only")?;
    reboot(guard)?;
    let said = guard.run(&["attach", Site::INTERFACE])?.expect(0)?;
    ensure!(said.stderr.contains("can't be written"), "it said {said:?}");
    ensure!(consistent(guard)? == 1, "the rules were not restored");
    Ok(())
}
