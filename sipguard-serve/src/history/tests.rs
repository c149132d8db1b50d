use sipguard_common::Reason;
use sipguard_core::counters::{Action, CounterRow};

use super::*;

/// A file of its own, gone with its guard.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("sipguard-history-{}-{name}.db", std::process::id()));
        let file = File(path);
        file.remove();
        file
    }

    fn remove(&self) {
        for end in ["", "-journal", ".damaged"] {
            let _none = std::fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.remove();
    }
}

fn guard(map: u32) -> AttachedGuard {
    AttachedGuard { boot: "boot".to_owned(), map }
}

/// `dropped` packets of an interface, and ten times as many that passed, at a second.
fn reading(map: u32, second: i64, dropped: u64) -> Option<HistorySample> {
    let row = |reason, action, packets| CounterRow {
        interface: "eth0".to_owned(),
        reason,
        action,
        packets,
        bytes: 0,
    };
    let mut reading = HistorySample::new(guard(map), second as u64 * 1_000_000_000);
    let rows = [row(Reason::BareLf, Action::Reset, dropped), row(Reason::Valid, Action::Pass, 10 * dropped)];
    reading.add("interface", &rows);
    Some(reading)
}

/// The rates of what was dropped in the last hour.
fn dropped(path: &Path, now: i64) -> Vec<Option<f64>> {
    let plot = plot(path, now, 1).unwrap();
    let none: Vec<Option<f64>> = plot.watched_ms.iter().map(|ms| (*ms > 0).then_some(0.0)).collect();
    plot.lines.into_iter().find(|line| line.series[2] == "dropped").map_or(none, |line| line.rates)
}

/// A wall time on which every kind of slot begins.
const START: i64 = 1_700_000_000 / 86_400 * 86_400;

#[test]
fn a_time_in_which_nobody_watched_is_a_gap_and_no_spike() {
    let file = File::new("gap");
    let mut first = History::new(&file.0);
    first.take(START, reading(1, START, 0)).unwrap();
    first.take(START + 10, reading(1, START + 10, 50)).unwrap();
    first.take(START + 20, reading(1, START + 20, 50)).unwrap();
    drop(first);
    // The next process finds a thousand more, of which it can't tell when they came.
    let mut second = History::new(&file.0);
    second.take(START + 60, reading(1, START + 60, 1050)).unwrap();
    second.take(START + 70, reading(1, START + 70, 1070)).unwrap();
    let rates = dropped(&file.0, START + 72);
    assert_eq!(rates.len(), 360);
    assert_eq!(rates[353..], [Some(5.0), Some(0.0), None, None, None, None, Some(2.0)]);
    assert!(rates[..353].iter().all(Option::is_none));
    // Received is what passed as well.
    let plot = plot(&file.0, START + 72, 1).unwrap();
    let received = plot.lines.iter().find(|line| line.series[2] == "received").unwrap();
    assert_eq!(received.rates[353], Some(55.0));
    assert_eq!(plot.watched_ms[353..], [10_000, 10_000, 0, 0, 0, 0, 10_000]);
}

#[test]
fn another_guard_begins_anew_and_so_does_one_that_was_away() {
    let file = File::new("anew");
    let mut history = History::new(&file.0);
    history.take(START, reading(1, START, 500)).unwrap();
    history.take(START + 10, reading(2, START + 10, 900)).unwrap();
    history.take(START + 20, reading(2, START + 20, 910)).unwrap();
    history.take(START + 30, None).unwrap();
    history.take(START + 40, reading(2, START + 40, 990)).unwrap();
    // A counter of the same guard that was cleared has counted this since.
    history.take(START + 50, reading(2, START + 50, 30)).unwrap();
    assert_eq!(dropped(&file.0, START + 52)[355..], [None, Some(1.0), None, None, Some(3.0)]);
}

#[test]
fn a_clock_that_is_set_back_adds_to_what_is_there() {
    let file = File::new("back");
    let mut history = History::new(&file.0);
    history.take(START, reading(1, START, 0)).unwrap();
    history.take(START + 10, reading(1, START + 10, 10)).unwrap();
    history.take(START + 10, reading(1, START + 20, 40)).unwrap();
    let plot = plot(&file.0, START + 12, 1).unwrap();
    assert_eq!(plot.watched_ms.last(), Some(&20_000));
    assert_eq!(dropped(&file.0, START + 12).last(), Some(&Some(2.0)));
}

fn rows(path: &Path) -> (i64, i64, i64) {
    let db = Connection::open(path).unwrap();
    let one = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    (
        one("SELECT count(*) FROM spans"),
        one("SELECT min(at) FROM spans"),
        one("SELECT sum(packets) FROM counts JOIN series ON series = id WHERE what = 'dropped'"),
    )
}

#[test]
fn what_is_old_is_put_together_and_at_last_forgotten() {
    let file = File::new("thin");
    let mut history = History::new(&file.0);
    for step in 0..=120 {
        history.take(START + step * 10, reading(1, START + step * 10, step as u64 * 3)).unwrap();
    }
    assert_eq!(rows(&file.0), (120, START, 360));
    // Twice, since what was put together stays as it is.
    for second in [0, THIN_SECS] {
        history.take(START + 2 * 86_400 + second, None).unwrap();
        assert_eq!(rows(&file.0), (4, START, 360));
    }
    let plot = plot(&file.0, START + 2 * 86_400, 168).unwrap();
    let rates: Vec<f64> = plot.lines[1].rates.iter().flatten().copied().collect();
    assert_eq!((plot.step, plot.lines[1].series[2].as_str(), &rates[..]), (900, "dropped", &[0.3, 0.3][..]));
    history.take(START + KEPT_SECS + 300, None).unwrap();
    assert_eq!(rows(&file.0), (3, START + 300, 270));
}

#[test]
fn the_file_stays_within_its_bound() {
    let file = File::new("bound");
    let mut history = History::new(&file.0);
    history.most_bytes = 512 << 10;
    for step in 0..400 {
        let mut reading = HistorySample::new(guard(1), step as u64 * 10_000_000_000);
        let row = |trunk| CounterRow {
            interface: format!("trunk-{trunk}"),
            reason: Reason::BareLf,
            action: Action::Reset,
            packets: step as u64,
            bytes: 0,
        };
        reading.add("trunk", &(0..100).map(row).collect::<Vec<_>>());
        history.take(START + step * 10, Some(reading)).unwrap();
    }
    let bytes = std::fs::metadata(&file.0).unwrap().len();
    assert!(bytes <= 512 << 10, "{bytes} bytes");
    let (spans, first, _) = rows(&file.0);
    assert!((50..300).contains(&spans) && first > START, "{spans} slots from {first} on");
    assert_eq!(dropped(&file.0, START + 400 * 10).last(), Some(&Some(0.1)));
}

#[test]
fn the_position_is_kept_and_a_damaged_file_is_set_aside() {
    let file = File::new("position");
    let mut history = History::new(&file.0);
    assert_eq!(history.position().unwrap(), None);
    for next in [7, u64::MAX] {
        let position = Position { guard: guard(3), next };
        history.set_position(&position).unwrap();
        assert_eq!(History::new(&file.0).position().unwrap(), Some(position));
    }
    drop(history);
    std::fs::write(&file.0, [b'x'; 8192]).unwrap();
    assert_eq!(History::new(&file.0).position().unwrap(), None);
    assert!(PathBuf::from(format!("{}.damaged", file.0.display())).exists());
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let file = File::new("strange");
    Connection::open(&file.0)
        .unwrap()
        .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
        .unwrap();
    let before = std::fs::read(&file.0).unwrap();
    let error = History::new(&file.0).take(START, reading(1, START, 0)).unwrap_err();
    assert!(format!("{error:#}").contains("another program"), "{error:#}");
    assert_eq!(std::fs::read(&file.0).unwrap(), before);
}

#[test]
fn what_only_counts_is_received_once() {
    let sample = |second: u64, packets| {
        let row =
            |reason, action| CounterRow { interface: "eth0".to_owned(), reason, action, packets, bytes: 0 };
        let mut sample = HistorySample::new(guard(1), second * 1_000_000_000);
        sample.add(
            "interface",
            &[
                row(Reason::Valid, Action::Pass),
                row(Reason::RateRegister, Action::WouldDrop),
                row(Reason::BlockedHost, Action::WouldDrop),
            ],
        );
        sample
    };
    let (span_ms, changed) = sample(20, 7).since(&sample(10, 2)).unwrap();
    let told: Vec<_> =
        changed.iter().map(|(series, packets)| (series.what, series.reason, *packets)).collect();
    let would = |reason| ("would-drop", reason, 5);
    assert_eq!(span_ms, 10_000);
    assert_eq!(told, [("received", "", 5), would("blocked-host"), would("rate-register")]);
}
