//! The guard of core dumps, on small file systems.

use std::{
    fs::File,
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use sipguard_core::service::{CoreSettings, DEFAULT_PATTERNS};
use sipguard_observe::cores::{CoreWatch, What, matches};
use sipguard_tests::{application::PATIENCE, tmpfs::Tmpfs};

const MIB: usize = 1 << 20;

fn core(disk: &Tmpfs, name: &str, mib: usize) -> PathBuf {
    let mut bytes = vec![1; mib * MIB];
    bytes[..18].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0");
    let path = disk.join(name);
    std::fs::write(&path, bytes).unwrap();
    // File times are coarse.
    std::thread::sleep(Duration::from_millis(10));
    path
}

fn guard(disk: &Tmpfs, settings: CoreSettings) -> CoreWatch {
    CoreWatch::new(CoreSettings { directory: Some(disk.path().to_owned()), ..settings }).unwrap()
}

fn settings(keep: usize, limit_mib: u64, free_mib: u64) -> CoreSettings {
    CoreSettings { keep, limit: limit_mib << 20, free: free_mib << 20, ..CoreSettings::default() }
}

#[test]
fn the_first_and_the_newest_stay() {
    let disk = Tmpfs::new("thin", 64).unwrap();
    for name in ["core.1", "core.2", "core.3", "core.4", "pbx.core"] {
        core(&disk, name, 2);
    }
    let actions = guard(&disk, settings(2, 100, 1)).poll().unwrap();
    assert_eq!(disk.names().unwrap(), ["core.1", "core.4", "pbx.core"], "{actions:?}");
    assert!(
        actions.iter().all(|action| action.what == What::Deleted && action.bytes == 2 * MIB as u64),
        "{actions:?}"
    );
    guard(&disk, settings(2, 4, 1)).poll().unwrap();
    assert_eq!(disk.names().unwrap(), ["core.1", "pbx.core"], "beyond the limit");
    guard(&disk, settings(2, 1, 1)).poll().unwrap();
    assert_eq!(disk.names().unwrap(), ["core.1"], "the last one stays");
    guard(&disk, settings(2, 100, 63)).poll().unwrap();
    assert!(disk.names().unwrap().is_empty(), "the floor comes first");
}

#[test]
fn only_cores_are_touched() {
    let disk = Tmpfs::new("only", 64).unwrap();
    let elsewhere = core(&disk, "elsewhere", 1);
    core(&disk, "core.real", 1);
    std::fs::write(disk.join("core.txt"), "a text").unwrap();
    std::fs::write(disk.join("core.empty"), "").unwrap();
    std::fs::create_dir(disk.join("core.d")).unwrap();
    symlink(&elsewhere, disk.join("core.link")).unwrap();
    let pipe = disk.join("core.pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut executable = std::fs::read(&elsewhere).unwrap();
    executable[16] = 2;
    std::fs::write(disk.join("core.program"), executable).unwrap();
    let actions = guard(&disk, settings(0, 0, 64)).poll().unwrap();
    let done: Vec<What> = actions.iter().map(|action| action.what).collect();
    assert_eq!(done, [What::Deleted], "{actions:?}");
    let left = ["core.d", "core.empty", "core.link", "core.pipe", "core.program", "core.txt", "elsewhere"];
    assert_eq!(disk.names().unwrap(), left);
    assert_eq!(std::fs::metadata(&elsewhere).unwrap().len(), MIB as u64);
}

#[test]
fn a_core_that_would_be_overwritten_gets_a_name() {
    let disk = Tmpfs::new("name", 64).unwrap();
    let mut guard = guard(&disk, settings(5, 60, 1));
    for count in 1..=3 {
        core(&disk, "core", 1);
        let actions = guard.poll().unwrap();
        assert_eq!(actions[0].what, What::Renamed, "{actions:?}");
        let names = disk.names().unwrap();
        assert!(names.len() == count && names.iter().all(|name| name.starts_with("core.2")), "{names:?}");
        assert!(DEFAULT_PATTERNS.iter().any(|pattern| matches(pattern, &names[0])));
    }
}

#[test]
fn a_core_that_is_written_is_left_alone_until_the_disk_is_full() {
    let disk = Tmpfs::new("cut", 64).unwrap();
    let path = core(&disk, "core", 20);
    let mut writer = File::options().append(true).open(&path).unwrap();
    let mut guard = guard(&disk, settings(0, 1, 8));
    let actions = guard.poll().unwrap();
    assert!(actions.is_empty(), "{actions:?}");
    let mut write = |mib: usize| std::io::Write::write_all(&mut writer, &vec![1; mib * MIB]);
    write(14).unwrap();
    assert_eq!(guard.poll().unwrap()[0].what, What::Cut);
    assert!(disk.names().unwrap().is_empty());
    let free_mib = || statvfs(disk.path()).unwrap().blocks_available() * 4096 / MIB as u64;
    assert!(free_mib() > 60, "{}", free_mib());
    for _ in 0..5 {
        write(40).unwrap();
        guard.poll().unwrap();
        assert!(free_mib() > 60, "{}", free_mib());
    }
}

#[test]
fn cores_are_moved_with_their_holes() {
    let (disk, other) = (Tmpfs::new("from", 64).unwrap(), Tmpfs::new("to", 48).unwrap());
    let path = core(&disk, "core.1", 2);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(100 * MIB as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 90 * MIB as u64).unwrap();
    drop(file);
    let bytes = std::fs::read(&path).unwrap();
    let mut guard =
        guard(&disk, CoreSettings { move_to: Some(other.path().to_owned()), ..settings(3, 40, 4) });
    let mut actions = Vec::new();
    let until = Instant::now() + PATIENCE;
    while !disk.names().unwrap().is_empty() && Instant::now() < until {
        actions.extend(guard.poll().unwrap());
    }
    assert_eq!(actions.iter().map(|action| action.what).collect::<Vec<_>>(), [What::Moved]);
    assert_eq!(other.names().unwrap(), ["core.1"]);
    assert!(std::fs::read(other.join("core.1")).unwrap() == bytes, "its bytes differ");
    let used = statvfs(other.path()).unwrap();
    assert!((used.blocks() - used.blocks_free()) * 4096 < 4 * MIB as u64, "the holes were filled");
    // No room there: it stays here, and is thinned here.
    for name in ["core.2", "core.3"] {
        core(&disk, name, 25);
        actions = guard.poll().unwrap();
        while disk.names().unwrap().len() == 1
            && !actions.iter().any(|action| action.what == What::Failed)
            && Instant::now() < until
        {
            actions.extend(guard.poll().unwrap());
        }
    }
    let all = [disk.names().unwrap(), other.names().unwrap()].concat();
    assert!(
        all.iter().any(|name| name == "core.3") && !all.iter().any(|name| name.ends_with(".part")),
        "{all:?}"
    );
}
