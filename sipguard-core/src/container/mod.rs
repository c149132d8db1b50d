//! The guard of a container: the network namespace that it works in, and where its pins and its rules are.
//!
//! Both stay on the host. A process works for one guard: a command joins the namespace once, at its beginning and before there is a second thread,
//! and everything after that (rtnetlink, sockets, routes, SSH) sees the container. `serve` and `feed` talk to hosts themselves and last; they stay
//! outside and go in for single questions (`inside`), so that a process of ours never keeps the namespace of a container that has ended.

mod find;
mod name;

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use self::find::Places;
pub use self::name::ContainerName;
use crate::error::{Failure, FailureKind};
use crate::notice;

/// What a command needs of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To work in its namespace: `attach`, `upgrade`.
    Running,
    /// To work in its namespace while it runs, and else to look at the guard that it had.
    IfRunning,
    /// To stay on the host, as what listens or dials there.
    Outside,
}

/// The container that this process works for.
static CHOSEN: OnceLock<ContainerName> = OnceLock::new();
/// That it did not run when it was chosen.
static NOT_RUNNING: OnceLock<()> = OnceLock::new();
/// The namespace that this process began in, once it has joined another one.
static BEGUN_IN: OnceLock<File> = OnceLock::new();

/// Chooses the container that this process works for, and joins its network namespace where that is needed. Called once, on the first thread. `known`
/// says whether there is a guard or a store of it.
///
/// # Errors
/// When there is no such container, it has no network of its own, or the namespace may not be joined.
pub fn choose(name: &ContainerName, need: Need, known: bool) -> Result<()> {
    let chosen = CHOSEN.get_or_init(|| name.clone());
    match (chosen.namespace()?, need) {
        (Some(_), Need::Outside) => Ok(()),
        (Some(namespace), _) => join(&namespace, chosen),
        (None, Need::IfRunning | Need::Outside) if known => {
            let _once = NOT_RUNNING.set(());
            notice::send(format!("{} What is shown is the guard that it had", missing(chosen)));
            Ok(())
        }
        (None, _) => Err(Failure::with(FailureKind::Failed, missing(chosen))),
    }
}

/// The container that this process works for; `None` is the host.
#[must_use]
pub fn chosen() -> Option<&'static ContainerName> {
    CHOSEN.get()
}

/// ` --container NAME` for commands that are proposed; empty on the host.
#[must_use]
pub fn option() -> String {
    let again = |name: &ContainerName| match NOT_RUNNING.get() {
        // When it runs again its process is another one.
        Some(()) if name.is_process() => format!(" --container {}=PID", name.label()),
        _ => format!(" --container {name}"),
    };
    chosen().map_or_else(String::new, again)
}

/// ` in container NAME`; empty on the host.
#[must_use]
pub(crate) fn within() -> String {
    chosen().map_or_else(String::new, |name| format!(" in container {}", name.label()))
}

/// Labels of the containers that have a guard beside that of the host, by the directory of its pins.
#[must_use]
pub(crate) fn guarded_beside(pins: &Path) -> Vec<String> {
    let beginning = format!("{}@", pins.file_name().unwrap_or_default().to_string_lossy());
    let all = pins.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let label = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let label = name.strip_prefix(&beginning)?.replace("%2E", ".");
        // Where others may make directories, a name is whatever they like.
        Some(label)
            .filter(|label| label.parse::<ContainerName>().is_ok())
            .filter(|_| entry.path().join("links").exists())
    };
    let mut labels: Vec<String> = all.filter_map(label).collect();
    labels.sort_unstable();
    labels
}

/// ` of container NAME` behind the name of an interface; empty on the host.
#[must_use]
pub fn of() -> String {
    chosen().map_or_else(String::new, |name| format!(" of container {}", name.label()))
}

/// That a container of the same name whose guard this is runs elsewhere; in a namespace that was joined.
///
/// # Errors
/// When this process has joined the namespace of a container: the interface, which is filtered, is of another one.
pub(crate) fn expect_same(interface: &str) -> Result<()> {
    let Some(name) = chosen().filter(|_| BEGUN_IN.get().is_some()) else { return Ok(()) };
    let label = name.label();
    let text = format!(
        "the guard of `{label}` filters {interface} of another container, which runs: nothing was changed. A name of its own, such as \
         `--container {label}-2=PID`, makes a guard of its own"
    );
    Err(Failure::with(FailureKind::Failed, text))
}

/// Does something in the namespace of the container that this process works for, or nowhere: never on the host for a container.
///
/// # Errors
/// When the container does not run, or its namespace can't be joined.
pub(crate) fn only_inside<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(name) = chosen().filter(|_| BEGUN_IN.get().is_none()) else { return work() };
    let namespace = name.namespace()?.with_context(|| format!("container {name} does not run"))?;
    let joined = std::thread::scope(|scope| {
        let work = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("joining the network of container {name}"))?;
            work()
        };
        scope.spawn(work).join()
    });
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Does something in the namespace of the container that this process works for from outside; as it is where it joined it, where there is none, or
/// where it does not run now.
pub(crate) fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let outside = chosen().filter(|_| BEGUN_IN.get().is_none());
    match outside.and_then(|name| name.namespace().ok().flatten()) {
        Some(namespace) => in_thread(&namespace, work),
        None => work(),
    }
}

/// Does something in the namespace that this process began in.
pub fn outside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match BEGUN_IN.get() {
        Some(namespace) => in_thread(namespace, work),
        None => work(),
    }
}

/// A thread has a namespace of its own.
fn in_thread<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    let joined = std::thread::scope(|scope| {
        let work = || {
            // Where it may not, what it sees here is still more than nothing.
            let _refused = setns(namespace, CloneFlags::CLONE_NEWNET);
            work()
        };
        scope.spawn(work).join()
    });
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn join(namespace: &File, name: &ContainerName) -> Result<()> {
    let own = File::open(OWN).context("opening the own network namespace")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| match error {
        Errno::EPERM => Failure::with(
            FailureKind::Privilege,
            format!("joining the network of container {name} takes CAP_SYS_ADMIN: run it as root, for example with sudo"),
        ),
        error => anyhow::Error::new(error).context(format!("joining the network of container {name}")),
    })?;
    let _once = BEGUN_IN.set(own);
    Ok(())
}

const OWN: &str = "/proc/self/ns/net";

impl ContainerName {
    /// The directory of its pins and the file of its rules, beside those of the host's guard.
    #[must_use]
    pub fn places(&self, pins: &Path, store: &Path) -> (PathBuf, PathBuf) {
        let label = self.file_name();
        let mut dir = pins.file_name().unwrap_or_default().to_owned();
        dir.push(format!("@{label}"));
        let file = store.file_name().unwrap_or_default();
        (pins.with_file_name(dir), store.with_file_name("containers").join(label).join(file))
    }

    /// The network namespace that it has now; `None` where it does not run.
    fn namespace(&self) -> Result<Option<File>> {
        let Some(path) = self.find(&Places::default())? else { return Ok(None) };
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let text =
                    format!("{} can't be opened: run it as root, for example with sudo", path.display());
                return Err(Failure::with(FailureKind::Privilege, text));
            }
            opened => opened.with_context(|| format!("opening {}", path.display()))?,
        };
        let of = |found: std::fs::Metadata| (found.dev(), found.ino());
        // A thread of ours that is asked has joined nothing.
        let own = BEGUN_IN.get().map_or_else(|| std::fs::metadata(OWN), File::metadata);
        if own.map(of).ok() == file.metadata().map(of).ok() {
            let text = format!(
                "container {self} has the network of this machine (as with `--network host`), which the guard of the machine filters: leave \
                 `--container` out"
            );
            return Err(Failure::with(FailureKind::Failed, text));
        }
        Ok(Some(file))
    }
}

/// That nothing runs by a name, and how else it can be named.
fn missing(name: &ContainerName) -> String {
    if name.is_process() {
        return format!("container {name}: its process does not run, or is none of this machine.");
    }
    let label = name.label();
    format!(
        "no container `{label}` runs that is known by the files of docker, containerd, podman, systemd-nspawn, lxc or `ip netns`. Name one of its \
         processes: `--container {label}=PID`, with PID from `docker inspect --format '{{{{.State.Pid}}}}' {label}`, the same of podman, \
         `machinectl show -p Leader {label}`, `lxc-info -p {label}` or `crictl inspect ID`."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ContainerName {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_beside_those_of_the_host_and_differ_by_name() {
        let places = |text| {
            name(text).places(Path::new("/sys/fs/bpf/sipguard"), Path::new("/var/lib/sipguard/sipguard.db"))
        };
        let (pins, store) = places("pbx");
        assert_eq!(pins, Path::new("/sys/fs/bpf/sipguard@pbx"));
        assert_eq!(store, Path::new("/var/lib/sipguard/containers/pbx/sipguard.db"));
        // A bpffs takes no dots.
        assert_eq!(places("pbx.1").0, Path::new("/sys/fs/bpf/sipguard@pbx%2E1"));
        assert_ne!(places("pbx.1"), places("pbx_1"));
        assert_eq!(places("docker:pbx"), places("pbx=17"));
    }

    #[test]
    fn the_network_of_this_machine_is_none_of_a_container() {
        let own = name(&std::process::id().to_string()).namespace().unwrap_err().to_string();
        assert!(own.contains("network of this machine"), "{own}");
        assert!(name("x=2147483647").namespace().unwrap().is_none());
        assert!(missing(&name("pbx")).contains("{{.State.Pid}}"));
    }
}
