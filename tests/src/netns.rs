//! Network namespaces that disappear with their guard, and the cables between them.

use std::{
    fs::File,
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process;

/// A network namespace with `lo` up. Drop removes it, and with it every interface in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace; `role` becomes a part of its unique name.
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The number lets tests of one process, which run at the same time, each have their own "office".
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sg{}-{number}-{role}", std::process::id());
        process::output(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The namespace of a process, under a name of its own, which keeps it until the guard goes.
    pub fn of_process(role: &str, pid: nix::unistd::Pid) -> Result<Self> {
        let name = format!("sg{}-{pid}-{role}", std::process::id());
        process::output(Command::new("ip").args(["netns", "attach", &name, &pid.to_string()]))?;
        let namespace = Self { name };
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds the namespace.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that will run inside.
    ///
    /// `nsenter` changes the network only: `ip netns exec` would mount a /sys of its own and hide the bpffs.
    /// It becomes the program (no fork), so the child's pid and exit status are the program's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Runs a program and its arguments inside, to its end, and returns what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let [program, arguments @ ..] = words else { bail!("nothing to run in {}", self.name) };
        process::output(self.command(program).args(arguments))
    }

    /// Runs `work` on a fresh thread inside, so that its sockets belong to the namespace. Threads that `work`
    /// starts are inside too. A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("opening namespace {}", self.name))?;
        let joined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("entering namespace {}", self.name))?;
                    Ok(work())
                })
                .join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Adds an address with its prefix length to an interface: `10.77.0.3/24` or `fd77::1/64`.
    ///
    /// IPv6 addresses are usable at once (`nodad`): nobody else can have them on a cable with two ends.
    pub fn add_address(&self, interface: &str, prefix: &str) -> Result<()> {
        let address = prefix.split('/').next().unwrap_or_default();
        let parsed: IpAddr = address.parse().with_context(|| format!("{prefix} is no address"))?;
        let mut words = vec!["ip", "address", "add", prefix, "dev", interface];
        if parsed.is_ipv6() {
            words.push("nodad");
        }
        self.run(&words).map(drop)
    }

    /// Routes `prefix` (or `default`) through `gateway`.
    pub fn add_route(&self, prefix: &str, gateway: &str) -> Result<()> {
        self.run(&["ip", "route", "add", prefix, "via", gateway]).map(drop)
    }

    /// Sets the largest packet of an interface, in bytes.
    pub fn set_mtu(&self, interface: &str, bytes: u32) -> Result<()> {
        self.run(&["ip", "link", "set", interface, "mtu", &bytes.to_string()]).map(drop)
    }

    /// Forwards IPv4 packets between its interfaces.
    pub fn forward(&self) -> Result<()> {
        let write = self.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        write.with_context(|| format!("switching on forwarding in {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = process::output(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Lays a cable between two namespaces, gives each end its address (with prefix length) and brings it up.
///
/// With `offload` the ends behave as between containers: segments of up to 64 KB in one piece and checksums that
/// were never finished. Without it every frame is as on a wire.
pub fn veth(
    a: &Netns,
    name_a: &str,
    prefix_a: &str,
    b: &Netns,
    name_b: &str,
    prefix_b: &str,
    offload: bool,
) -> Result<()> {
    let first = ["link", "add", name_a, "netns", a.name(), "type", "veth"];
    let second = ["peer", "name", name_b, "netns", b.name()];
    process::output(Command::new("ip").args(first).args(second))?;
    for (end, name, prefix) in [(a, name_a, prefix_a), (b, name_b, prefix_b)] {
        if !offload {
            plain_frames(end, name)?;
        }
        end.add_address(name, prefix)?;
        end.run(&["ip", "link", "set", name, "up"])?;
    }
    Ok(())
}

/// Switches off everything that makes the frames of an interface differ from frames on a wire.
pub fn plain_frames(namespace: &Netns, interface: &str) -> Result<()> {
    let off = "tx off rx off gso off tso off gro off";
    let words: Vec<&str> = ["ethtool", "-K", interface].into_iter().chain(off.split(' ')).collect();
    namespace.run(&words).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_cable_carries_tcp_over_both_families() -> Result<()> {
        let (left, right) = (Netns::new("left")?, Netns::new("right")?);
        veth(&left, "eth0", "10.77.9.1/24", &right, "eth0", "10.77.9.2/24", false)?;
        left.add_address("eth0", "fd77::1/64")?;
        right.add_address("eth0", "fd77::2/64")?;
        left.set_mtu("eth0", 1400)?;
        for address in ["10.77.9.1:5060", "[fd77::1]:5060"] {
            let listener = left.enter(|| TcpListener::bind(address))??;
            let mut client = right.enter(|| TcpStream::connect(address))??;
            client.write_all(b"ping")?;
            let mut got = [0; 4];
            listener.accept()?.0.read_exact(&mut got)?;
            assert_eq!(&got, b"ping");
        }
        let path = left.path();
        drop(left);
        assert!(!std::path::Path::new(&path).exists());
        Ok(())
    }
}
