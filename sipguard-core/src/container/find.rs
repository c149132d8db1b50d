//! Where the network namespace of a container is, by the files that engines keep of what runs, and by /proc. No client of an engine is started: that
//! may ask another machine, and is whatever `PATH` says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::name::{ContainerName, Engine, FoundBy};
use crate::error::{Failure, FailureKind};

/// Digits that a container's number needs at least, as engines show it.
const SHORT_ID: usize = 12;

/// The root of the file system, which is another one in tests.
pub(super) struct Places(PathBuf);

impl Default for Places {
    fn default() -> Places {
        Places(PathBuf::from("/"))
    }
}

impl ContainerName {
    /// The file of the namespace; `None` where no such container runs.
    ///
    /// # Errors
    /// When several run by that name.
    pub(super) fn find(&self, places: &Places) -> Result<Option<PathBuf>> {
        let of_process = |pid: u32| places.at(&format!("proc/{pid}/ns/net"));
        let engine = match self.found_by {
            FoundBy::Process(pid) => return Ok(Some(of_process(pid))),
            FoundBy::Named(engine) => engine,
        };
        let asked = Engine::ALL.iter().filter(|one| engine.is_none_or(|engine| engine == **one));
        let mut found: Vec<(Engine, PathBuf)> = Vec::new();
        for one in asked {
            let path = match one {
                Engine::Docker => places.docker(self.label()).map(of_process),
                Engine::Containerd => places.containerd(self.label()).map(of_process),
                Engine::Podman => places.podman(self.label()).map(of_process),
                Engine::Nspawn => places.nspawn(self.label()).map(of_process),
                Engine::Lxc => places.lxc(self.label()).map(of_process),
                Engine::Netns => {
                    Some(places.at(&format!("run/netns/{}", self.label()))).filter(|path| path.exists())
                }
            };
            // Docker runs its containers by containerd.
            let path = path.filter(|path| found.iter().all(|(_, known)| known != path));
            found.extend(path.map(|path| (*one, path)));
        }
        if let [(first, _), (second, _), ..] = found.as_slice() {
            let label = self.label();
            let text = format!(
                "{} and {} both run a container `{label}`: say `--container {}:{label}`, or name a process of it, `{label}=PID`",
                first.name(),
                second.name(),
                first.name()
            );
            return Err(Failure::with(FailureKind::Failed, text));
        }
        Ok(found.pop().map(|(_, path)| path))
    }
}

impl Places {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The first process of a container of Docker. Its configuration has name and number, also of what ended with the machine; so the process is
    /// believed where containerd has it, or its control group says so.
    fn docker(&self, name: &str) -> Option<u32> {
        let roots = ["var/lib/docker", "var/snap/docker/common/var-lib-docker"];
        let configurations = roots.iter().flat_map(|root| entries(&self.at(root).join("containers")));
        configurations.map(|container| container.join("config.v2.json")).find_map(|file| {
            let config: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
            let (id, called) = (config["ID"].as_str()?, config["Name"].as_str()?);
            if called.trim_start_matches('/') != name && !is_number_of(name, id) {
                return None;
            }
            let state = &config["State"];
            let said = state["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            let said = said.filter(|_| state["Running"] == true).filter(|pid| self.is_in_group(*pid, id));
            self.task(id).or(said)
        })
    }

    /// The first process of a container that containerd runs, by its number.
    fn containerd(&self, id: &str) -> Option<u32> {
        if is_number(id) { self.task(id) } else { None }
    }

    fn task(&self, id: &str) -> Option<u32> {
        let states = ["run/containerd", "run/docker/containerd/daemon", "run/k3s/containerd"];
        let spaces =
            states.iter().flat_map(|state| entries(&self.at(state).join("io.containerd.runtime.v2.task")));
        let tasks = spaces.flat_map(|space| entries(&space));
        tasks.filter(|task| is_number_of(id, &file_name(task))).find_map(|task| {
            pid_in(&task.join("init.pid")).filter(|pid| self.is_in_group(*pid, &file_name(&task)))
        })
    }

    /// The first process of a container whose storage is that of Podman and CRI-O.
    fn podman(&self, name: &str) -> Option<u32> {
        let storage = |root: &str| {
            let all = entries(&self.at(root)).into_iter();
            all.filter(|path| file_name(path).ends_with("-containers")).collect::<Vec<_>>()
        };
        let kept = storage("var/lib/containers/storage").into_iter().map(|list| list.join("containers.json"));
        // Of containers that go when they end (`--rm`).
        let brief = storage("run/containers/storage").into_iter();
        let lists = kept.chain(brief.map(|list| list.join("volatile-containers.json")));
        let id = lists
            .filter_map(|list| serde_json::from_str::<Value>(&fs::read_to_string(list).ok()?).ok())
            .find_map(|list| {
                let is_it = |one: &&Value| {
                    let names = one["names"].as_array().map(Vec::as_slice).unwrap_or_default();
                    names.iter().any(|known| known == name)
                        || one["id"].as_str().is_some_and(|id| is_number_of(name, id))
                };
                Some(list.as_array()?.iter().find(is_it)?["id"].as_str()?.to_owned())
            })?;
        let running = storage("run/containers/storage").into_iter();
        let pid = running.map(|run| run.join(&id).join("userdata/pidfile")).find_map(|file| pid_in(&file));
        pid.filter(|pid| self.is_in_group(*pid, &id))
    }

    /// The leader of a machine that systemd-machined knows.
    fn nspawn(&self, name: &str) -> Option<u32> {
        let state = fs::read_to_string(self.at("run/systemd/machines").join(name)).ok()?;
        state.lines().find_map(|line| line.strip_prefix("LEADER=")?.parse().ok())
    }

    /// The first process below the monitor of a container of LXC, which says in its title whose it is. Anybody may have such a title: only root of this
    /// machine is believed.
    fn lxc(&self, name: &str) -> Option<u32> {
        let processes = entries(&self.at("proc"));
        let monitor = processes.iter().filter(|process| self.is_root_of_host(process)).find(|process| {
            let title = fs::read(process.join("cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title);
            let words = title.trim_end_matches('\0').strip_prefix("[lxc monitor] ");
            words.and_then(|words| words.rsplit_once(' ')).is_some_and(|(_, of)| of == name)
        })?;
        let monitor: u32 = file_name(monitor).parse().ok()?;
        let below = |process: &PathBuf| {
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            crate::ssh::parent(&stat).filter(|pid| pid.cast_unsigned() == monitor)?;
            file_name(process).parse().ok()
        };
        processes.iter().find_map(below)
    }

    fn is_root_of_host(&self, process: &Path) -> bool {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let of = |process: &Path, kind: &str| fs::read_link(process.join("ns").join(kind)).ok();
        let own = self.at("proc/self");
        status.lines().any(|line| line.starts_with("Uid:\t0\t"))
            && ["user", "pid"].iter().all(|kind| of(process, kind) == of(&own, kind))
    }

    /// Whether a process is of a container, and its number not somebody else's since.
    fn is_in_group(&self, pid: u32, id: &str) -> bool {
        fs::read_to_string(self.at(&format!("proc/{pid}/cgroup"))).is_ok_and(|groups| groups.contains(id))
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|pid| *pid != 0)
}

/// Whether a text may be a container's number, whole or as far as engines show it.
fn is_number(text: &str) -> bool {
    text.len() >= SHORT_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number_of(text: &str, id: &str) -> bool {
    is_number(text) && id.starts_with(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f66ad9a0b2e5c2f1d7b8c3e9a0d4b6c1e2f3a4b5c6d7e8f90a1b2c3d4e5f607";

    struct Root(PathBuf);

    impl Root {
        fn new(of: &str) -> Root {
            let root = std::env::temp_dir().join(format!("sipguard-container-{of}-{}", std::process::id()));
            Root(root)
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// The file below the root, or what is wrong.
        fn find(&self, name: &str) -> Option<String> {
            let name: ContainerName = name.parse().unwrap();
            match name.find(&Places(self.0.clone())) {
                Ok(found) => {
                    found.map(|path| path.strip_prefix(&self.0).unwrap().to_string_lossy().into_owned())
                }
                Err(error) => Some(error.to_string()),
            }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _absent = fs::remove_dir_all(&self.0);
        }
    }

    fn docker(root: &Root, running: bool) {
        let config = format!(r#"{{"ID":"{ID}","Name":"/pbx","State":{{"Running":{running},"Pid":17}}}}"#);
        root.file(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &config);
    }

    #[test]
    fn docker_is_believed_about_what_runs() {
        let root = Root::new("docker");
        docker(&root, true);
        assert_eq!(root.find("pbx"), None, "after a crash of the machine the number is somebody else's");
        root.file("proc/17/cgroup", &format!("0::/system.slice/docker-{ID}.scope\n"));
        assert_eq!(root.find("pbx").as_deref(), Some("proc/17/ns/net"));
        assert_eq!(root.find("pb"), None);
        docker(&root, false);
        assert_eq!(root.find("pbx"), None);
        root.file(&format!("run/containerd/io.containerd.runtime.v2.task/moby/{ID}/init.pid"), "18");
        assert_eq!(root.find("pbx"), None, "the number is somebody else's");
        root.file("proc/18/cgroup", &format!("0::/docker/{ID}\n"));
        for name in ["pbx", "docker:pbx", &ID[..12], &format!("containerd:{ID}")] {
            assert_eq!(root.find(name).as_deref(), Some("proc/18/ns/net"), "{name}");
        }
        assert_eq!(root.find(&ID[..11]), None);
        assert_eq!(root.find("podman:pbx"), None);
    }

    #[test]
    fn podman_nspawn_lxc_and_netns_are_found_by_their_files() {
        let root = Root::new("others");
        let list = format!(r#"[{{"id":"0{}","names":["other"]}},{{"id":"{ID}","names":["pbx"]}}]"#, &ID[1..]);
        root.file("var/lib/containers/storage/overlay-containers/containers.json", &list);
        assert_eq!(root.find("pbx"), None);
        root.file(&format!("run/containers/storage/overlay-containers/{ID}/userdata/pidfile"), "19\n");
        assert_eq!(root.find("pbx"), None, "the number is somebody else's");
        root.file("proc/19/cgroup", &format!("0::/machine.slice/libpod-{ID}.scope\n"));
        root.file("proc/23/cgroup", &format!("0::/machine.slice/libpod-5{}.scope\n", &ID[1..]));
        assert_eq!(root.find("pbx").as_deref(), Some("proc/19/ns/net"));
        let brief = format!(r#"[{{"id":"5{}","names":["brief"]}}]"#, &ID[1..]);
        root.file("run/containers/storage/overlay-containers/volatile-containers.json", &brief);
        root.file(&format!("run/containers/storage/overlay-containers/5{}/userdata/pidfile", &ID[1..]), "23");
        assert_eq!(root.find("brief").as_deref(), Some("proc/23/ns/net"));
        root.file("run/systemd/machines/deb", "# private\nNAME=deb\nLEADER=20\n");
        assert_eq!(root.find("deb").as_deref(), Some("proc/20/ns/net"));
        root.file("proc/21/cmdline", "[lxc monitor] /var/lib/lxc 101\0");
        root.file("proc/21/stat", "21 (lxc-start) S 1 0");
        root.file("proc/22/stat", "22 (init (x) y) S 21 0");
        assert_eq!(root.find("lxc:101"), None, "whoever has such a title");
        root.file("proc/21/status", "Name:\tlxc-start\nUid:\t0\t0\t0\t0\n");
        assert_eq!(root.find("lxc:101").as_deref(), Some("proc/22/ns/net"));
        assert_eq!(root.find("lxc:01"), None);
        root.file("run/netns/blue", "");
        assert_eq!(root.find("blue").as_deref(), Some("run/netns/blue"));
    }

    #[test]
    fn a_name_that_two_engines_have_is_refused() {
        let root = Root::new("two");
        root.file("run/systemd/machines/pbx", "LEADER=20\n");
        root.file("run/netns/pbx", "");
        let said = root.find("pbx").unwrap_or_default();
        assert!(said.contains("nspawn and netns") && said.contains("--container nspawn:pbx"), "{said}");
        assert_eq!(root.find("netns:pbx").as_deref(), Some("run/netns/pbx"));
    }
}
