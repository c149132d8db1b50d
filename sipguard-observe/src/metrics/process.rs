//! What every process tells Prometheus of itself, by the names that its libraries have agreed on. Read from `/proc`: six lines of text, for which no
//! library is worth its size.

use std::fs;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Ticks a second of the times in `/proc`: `USER_HZ` of Linux, 100 on every architecture that this runs on (proc(5)).
const TICKS_PER_SEC: f64 = 100.0;

/// This process, as it is now. What `/proc` does not say is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    /// Since 1970, in seconds.
    started: f64,
    open_files: i64,
    max_files: i64,
}

impl ProcessUsage {
    /// Of this process.
    #[must_use]
    pub fn read() -> ProcessUsage {
        let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        // The directory that counts them is open itself.
        let open_files = fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as i64 - 1);
        let usage = parse(&read("self/stat"), &read("self/status"), &read("self/limits"), &read("stat"));
        ProcessUsage { open_files, ..usage }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let cpu = Counter::<f64>::default();
        cpu.inc_by(self.cpu_seconds);
        let text = "CPU time of this process, user and system, in seconds";
        registry.register_with_unit("process_cpu", text, Unit::Seconds, cpu);
        for (name, text, bytes) in [
            ("process_resident_memory", "Resident memory of this process in bytes", self.resident_bytes),
            ("process_virtual_memory", "Virtual memory of this process in bytes", self.virtual_bytes),
        ] {
            registry.register_with_unit(name, text, Unit::Bytes, gauge(bytes));
        }
        let started = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        started.set(self.started);
        let text = "When this process was started, in seconds since 1970";
        registry.register_with_unit("process_start_time", text, Unit::Seconds, started);
        registry.register("process_open_fds", "Open files of this process", gauge(self.open_files));
        registry.register("process_max_fds", "How many files this process may open", gauge(self.max_files));
    }
}

fn gauge(value: i64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

/// `/proc/self/stat`, `/proc/self/status`, `/proc/self/limits` and `/proc/stat` (proc(5)).
fn parse(stat: &str, status: &str, limits: &str, host: &str) -> ProcessUsage {
    // The name of a process, in parentheses, may have spaces and parentheses.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let ticks = |field: usize| fields.get(field - 3).copied().unwrap_or(0.0) / TICKS_PER_SEC;
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
    };
    let max_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let booted = host.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: f64 = booted.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0.0);
    ProcessUsage {
        cpu_seconds: ticks(14) + ticks(15),
        resident_bytes: kilobytes("VmRSS:"),
        virtual_bytes: kilobytes("VmSize:"),
        started: booted + ticks(22),
        open_files: 0,
        max_files: max_files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual_page() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 9 9 20 0 3 0 1234 226000000 1500 18446744073709551615";
        let status = "Name:\ta) b\nVmSize:\t  220700 kB\nVmRSS:\t    6000 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        let usage = parse(stat, status, limits, "cpu  1 2 3\nbtime 1700000000\n");
        let expected = ProcessUsage {
            cpu_seconds: 2.0,
            resident_bytes: 6_144_000,
            virtual_bytes: 225_996_800,
            started: 1_700_000_012.34,
            open_files: 0,
            max_files: 1024,
        };
        assert_eq!(usage, expected);
        assert_eq!(parse("", "", "", ""), ProcessUsage::default());
        let own = ProcessUsage::read();
        assert!(
            own.resident_bytes > 100_000 && own.open_files > 2 && own.max_files >= own.open_files,
            "{own:?}"
        );
        assert!(own.started > 1.7e9, "{own:?}");
    }
}
