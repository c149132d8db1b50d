//! CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: all three, and no more.

use anyhow::Result;
use sipguard_core::error::{Failure, FailureKind};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// # Errors
/// [`FailureKind::Privilege`] with the names of the capabilities that are missing.
pub fn check() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status);
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::with(
        FailureKind::Privilege,
        format!("privileges are missing ({}): run it as root, for example with sudo", missing.join(", ")),
    ))
}

fn missing(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 != 0;
    let mut missing = Vec::new();
    // CAP_SYS_ADMIN includes the two newer ones (capabilities(7)).
    for (capability, name, covered) in [
        (CAP_BPF, "CAP_BPF", has(CAP_SYS_ADMIN)),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN", false),
        (CAP_PERFMON, "CAP_PERFMON", has(CAP_SYS_ADMIN)),
    ] {
        if !has(capability) && !covered {
            missing.push(name);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing("CapEff:\t000000c000001000\n"), Vec::<&str>::new());
        assert_eq!(missing("CapEff:\t0000000000000000\n"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing("CapEff:\t0000008000001000\n"), ["CAP_PERFMON"]);
        assert_eq!(missing("CapEff:\t0000000000201000\n"), Vec::<&str>::new());
    }
}
