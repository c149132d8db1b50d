//! What a verb needs of the machine, and what of it is missing: the decision of `setup`, without its deeds.

use std::fmt;

use crate::{
    command::{is_program, printed},
    ebpf_toolchain::Toolchain,
};

/// The bpf-linker that is installed; a newer one will do.
pub const LINKER: &str = "0.13.0";

/// Debian's Rust with a ready `core` for BPF.
const TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What bpf-linker is built and linked with.
const LLVM: [&str; 3] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev"];

/// Programs of the tests and of the demo, each with the package it comes in.
const PEERS: &[(&str, &str)] = &[
    ("kamailio", "kamailio"),
    ("sipp", "sip-tester"),
    ("baresip", "baresip-core"),
    ("linphone-daemon", "linphone-cli"),
    ("sip-options", "sofia-sip-bin"),
    ("sipsak", "sipsak"),
    ("svmap", "sipvicious"),
    ("tshark", "tshark"),
    ("sngrep", "sngrep"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("chromium", "chromium"),
    ("haproxy", "haproxy"),
    ("prometheus", "prometheus"),
    ("fail2ban-server", "fail2ban"),
    ("crowdsec", "crowdsec"),
    ("openssl", "openssl"),
    ("systemd-analyze", "systemd"),
];

/// What network namespaces are made and entered with, in tests and benchmark.
const NAMESPACES: [(&str, &str); 2] = [("ip", "iproute2"), ("nsenter", "util-linux")];

/// What the benchmark measures against.
const YARDSTICK: (&str, &str) = ("xdp-filter", "xdp-tools");

/// What virtual machines are made of and run with.
const VIRTUAL: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
    ("systemd-sysusers", "systemd"),
    ("ethtool", "ethtool"),
];

/// What packages are made and checked with.
const PACKERS: [(&str, &str); 3] = [("rpmbuild", "rpm"), ("lintian", "lintian"), ("xz", "xz-utils")];

/// What makes a Debian in a directory.
const DEBIAN: (&str, &str) = ("debootstrap", "debootstrap");

/// What compiles C for arm64, and Rust for the machine that it compiles on.
const ARM64: [(&str, &str); 1] = [("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")];

/// Debian's Rust, for which there is a library for each of Debian's processors, and arm64's C library, which its compiler only recommends.
const CROSS: [&str; 3] = ["rustc-web", "cargo-web", "libc6-dev-arm64-cross"];

/// What the machine is made ready for. Tests, benchmark and lints compile, so they need what a build needs; the fuzz targets
/// have no XDP program in them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Build,
    Test,
    Bench,
    Lint,
    Fuzz,
    Vm,
    /// Packages for this processor.
    Dist,
    /// And for arm64.
    DistArm64,
    /// Packages tried on a fresh Debian.
    DistTrial,
    Everything,
}

impl Purpose {
    /// Whether this is asked for, by itself or with everything.
    fn includes(self, part: Purpose) -> bool {
        self == part || self == Purpose::Everything
    }

    /// Programs that have to be there, each with the package it comes in.
    fn programs(self) -> Vec<(&'static str, &'static str)> {
        let mut programs = Vec::new();
        if self.includes(Purpose::Test) {
            programs.extend(PEERS);
        }
        if self.includes(Purpose::Test) || self.includes(Purpose::Bench) || self.includes(Purpose::Vm) {
            programs.extend(NAMESPACES);
        }
        if self.includes(Purpose::Bench) {
            programs.push(YARDSTICK);
        }
        if self.includes(Purpose::Vm) {
            // Some have their package in common with what is there already.
            let known: Vec<&str> = programs.iter().map(|(_, package)| *package).collect();
            programs.extend(VIRTUAL.into_iter().filter(|(_, package)| !known.contains(package)));
        }
        if self.includes(Purpose::Dist) || self == Purpose::DistArm64 {
            let known: Vec<&str> = programs.iter().map(|(_, package)| *package).collect();
            programs.extend(PACKERS.into_iter().filter(|(_, package)| !known.contains(package)));
        }
        if self == Purpose::DistArm64 {
            programs.extend(ARM64);
        }
        if self == Purpose::DistTrial {
            programs.extend([NAMESPACES[0], NAMESPACES[1], DEBIAN]);
        }
        programs
    }
}

/// A thing that is there or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// A program that can be started.
    Program(&'static str),
    /// A Debian package.
    Package(&'static str),
    /// `bpf-linker`, recent enough.
    Linker,
    /// A component of rustup.
    Component(Component),
}

/// A component of rustup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Component {
    Clippy,
    Rustfmt,
    /// Clippy of the nightly that compiles the XDP program.
    NightlyClippy,
}

impl Component {
    /// What `rustup component add` is told.
    pub fn rustup(self) -> &'static [&'static str] {
        match self {
            Component::Clippy => &["clippy"],
            Component::Rustfmt => &["rustfmt"],
            Component::NightlyClippy => &["--toolchain", "nightly", "clippy"],
        }
    }

    /// What cargo answers only when it is there.
    fn question(self) -> &'static [&'static str] {
        match self {
            Component::Clippy => &["clippy", "--version"],
            Component::Rustfmt => &["fmt", "--version"],
            Component::NightlyClippy => &["+nightly", "clippy", "--version"],
        }
    }
}

/// What has to be installed.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Missing {
    pub packages: Vec<&'static str>,
    pub linker: bool,
    pub components: Vec<Component>,
}

impl Missing {
    /// What this machine lacks for the purpose.
    pub fn here(purpose: Purpose) -> Missing {
        Missing::of(purpose, Toolchain::find().as_ref(), is_here)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Missing::default()
    }

    fn of(purpose: Purpose, toolchain: Option<&Toolchain>, has: impl Fn(Item) -> bool) -> Missing {
        let xdp = purpose != Purpose::Fuzz;
        let mut missing = Missing { linker: xdp && !has(Item::Linker), ..Missing::default() };
        // bpf-linker links the C++ library of the compiler, and libFuzzer is C++.
        let cxx = missing.linker || purpose.includes(Purpose::Fuzz);
        if !has(Item::Program("cc")) || cxx && !has(Item::Program("c++")) {
            missing.packages.push("build-essential");
        }
        if xdp && toolchain.is_none() {
            missing.packages.extend(TOOLCHAIN);
        }
        if missing.linker {
            missing.packages.extend(LLVM.into_iter().filter(|name| !has(Item::Package(name))));
        }
        if purpose == Purpose::DistArm64 {
            // A nightly has no library for arm64; Debian's compiler has one of its own version.
            let mut cross = CROSS.to_vec();
            cross.retain(|name| !has(Item::Package(name)) && !missing.packages.contains(name));
            missing.packages.extend(cross);
        }
        let absent = purpose.programs().into_iter().filter(|(program, _)| !has(Item::Program(program)));
        missing.packages.extend(absent.map(|(_, package)| package));
        if purpose.includes(Purpose::Lint) {
            let mut components = vec![Component::Clippy, Component::Rustfmt];
            match toolchain {
                Some(Toolchain::Nightly) => components.push(Component::NightlyClippy),
                Some(Toolchain::Debian) | None => {
                    let clippy = "rust-web-clippy";
                    missing.packages.extend(Some(clippy).filter(|name| !has(Item::Package(name))));
                }
            }
            components.retain(|component| !has(Item::Component(*component)));
            missing.components = components;
        }
        missing
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = self.packages.iter().map(|name| format!("package {name}")).collect();
        names.extend(self.linker.then(|| format!("bpf-linker {LINKER}")));
        names.extend(
            self.components.iter().map(|component| format!("rustup's {}", component.rustup().join(" "))),
        );
        f.write_str(&names.join(", "))
    }
}

fn is_here(item: Item) -> bool {
    match item {
        Item::Program(name) => is_program(name),
        Item::Package(name) => printed("dpkg-query", &["--show", "--showformat=${db:Status-Status}", name])
            .is_some_and(|status| status == "installed"),
        Item::Linker => printed("bpf-linker", &["--version"]).is_some_and(|text| is_recent(&text)),
        Item::Component(component) => printed("cargo", component.question()).is_some(),
    }
}

/// Whether `bpf-linker 0.13.0` or the like is [`LINKER`] or newer.
fn is_recent(text: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>();
    let version = text.split_whitespace().nth(1).and_then(numbers);
    version.is_some_and(|version| Some(version) >= numbers(LINKER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_where_all_is_there() {
        for purpose in [
            Purpose::Build,
            Purpose::Test,
            Purpose::Bench,
            Purpose::Lint,
            Purpose::Fuzz,
            Purpose::Vm,
            Purpose::Everything,
        ] {
            for toolchain in [Toolchain::Debian, Toolchain::Nightly] {
                assert!(Missing::of(purpose, Some(&toolchain), |_| true).is_empty());
            }
        }
    }

    #[test]
    fn a_bare_machine_gets_everything() {
        let missing = Missing::of(Purpose::Everything, None, |_| false);
        let mut packages = vec!["build-essential"];
        packages.extend(TOOLCHAIN);
        packages.extend(LLVM);
        packages.extend(PEERS.iter().map(|(_, package)| package));
        packages.extend([
            "iproute2",
            "util-linux",
            "xdp-tools",
            "qemu-system-x86",
            "xz-utils",
            "e2fsprogs",
            "rpm",
            "lintian",
            "rust-web-clippy",
        ]);
        assert_eq!(missing.packages, packages);
        assert!(missing.linker);
        assert_eq!(missing.components, [Component::Clippy, Component::Rustfmt]);
        assert!(missing.to_string().ends_with(", bpf-linker 0.13.0, rustup's clippy, rustup's rustfmt"));
    }

    #[test]
    fn each_purpose_asks_for_its_own_parts_only() {
        let build = Missing::of(Purpose::Build, None, |_| false);
        assert_eq!((build.packages.len(), build.components.len()), (1 + TOOLCHAIN.len() + LLVM.len(), 0));
        let lint = Missing::of(Purpose::Lint, None, |_| false);
        assert_eq!((lint.packages.len(), lint.components.len()), (build.packages.len() + 1, 2));
        let test = Missing::of(Purpose::Test, None, |_| false);
        let programs = PEERS.len() + NAMESPACES.len();
        assert_eq!((test.packages.len(), test.components.len()), (build.packages.len() + programs, 0));
        let bench = Missing::of(Purpose::Bench, None, |_| false);
        assert_eq!(bench.packages[build.packages.len()..], ["iproute2", "util-linux", "xdp-tools"]);
        assert!(bench.components.is_empty());
        let vm = Missing::of(Purpose::Vm, None, |_| false);
        let machines =
            ["iproute2", "util-linux", "qemu-system-x86", "xz-utils", "e2fsprogs", "systemd", "ethtool"];
        assert_eq!(vm.packages[build.packages.len()..], machines);
        let dist = Missing::of(Purpose::Dist, None, |_| false);
        assert_eq!(dist.packages[build.packages.len()..], ["rpm", "lintian", "xz-utils"]);
        let arm64 = Missing::of(Purpose::DistArm64, None, |_| false);
        let cross = ["libc6-dev-arm64-cross", "rpm", "lintian", "xz-utils", "gcc-aarch64-linux-gnu"];
        assert_eq!(arm64.packages[build.packages.len()..], cross);
        let fuzz = Missing::of(Purpose::Fuzz, None, |_| false);
        assert_eq!(fuzz, Missing { packages: vec!["build-essential"], ..Missing::default() });
    }

    #[test]
    fn one_program_asks_for_its_one_package() {
        let has = |item| item != Item::Program("sipp");
        let missing = Missing::of(Purpose::Everything, Some(&Toolchain::Debian), has);
        assert_eq!(missing, Missing { packages: vec!["sip-tester"], ..Missing::default() });
        assert!(Missing::of(Purpose::Build, Some(&Toolchain::Debian), has).is_empty());
    }

    #[test]
    fn llvm_is_asked_for_only_to_build_the_linker() {
        let has = |item| item != Item::Package("llvm-22-dev");
        assert!(Missing::of(Purpose::Build, Some(&Toolchain::Debian), has).is_empty());
        let missing =
            Missing::of(Purpose::Build, Some(&Toolchain::Debian), |item| has(item) && item != Item::Linker);
        assert_eq!(missing, Missing { packages: vec!["llvm-22-dev"], linker: true, components: vec![] });
    }

    #[test]
    fn a_nightly_is_kept_and_linted_with_its_own_clippy() {
        let arm64 = Missing::of(Purpose::DistArm64, Some(&Toolchain::Nightly), |item| item == Item::Linker);
        assert_eq!(arm64.packages[1..4], CROSS);
        let missing = Missing::of(Purpose::Lint, Some(&Toolchain::Nightly), |item| item == Item::Linker);
        assert_eq!(missing.packages, ["build-essential"]);
        assert_eq!(missing.components, [Component::Clippy, Component::Rustfmt, Component::NightlyClippy]);
    }

    #[test]
    fn an_older_linker_is_as_good_as_none() {
        for (text, recent) in [
            ("bpf-linker 0.13.0\n", true),
            ("bpf-linker 0.13.1", true),
            ("bpf-linker 1.0.0", true),
            ("bpf-linker 0.9.15", false),
            ("bpf-linker 0.12.9", false),
            ("bpf-linker", false),
            ("", false),
        ] {
            assert_eq!(is_recent(text), recent, "{text}");
        }
    }
}
