//! What the files say to `sipguard serve`, and what can be wrong about it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::service_values::Pattern;
use super::tables::{Cores, CrashTable, Serve};
use super::validate::Validator;
use super::value::Text;
use crate::disk::Floor;
use crate::service::{
    CoreSettings, CrashSettings, DEFAULT_EVIDENCE, DEFAULT_HOMER_ID, EvidenceLimits, Homer, Keep, Listen,
    Options, Watched,
};

/// What the files say to `sipguard serve`. What they do not say is `None`, or at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeRequest {
    /// Where it listens.
    pub listen: Option<Listen>,
    /// Where the history is kept.
    pub history: Option<Keep>,
    /// Whether events go to the journal.
    pub journal: Option<bool>,
    /// File of events.
    pub log: Option<Keep>,
    /// Bytes of that file.
    pub log_bytes: Option<u64>,
    /// Directory of evidence.
    pub evidence: Option<Keep>,
    /// Bytes of evidence.
    pub evidence_bytes: Option<u64>,
    /// What evidence and log leave free on their disks.
    pub free: Option<Floor>,
    /// Where Homer is; `None` also when the files say so.
    pub homer: Option<SocketAddr>,
    /// Number of this host at Homer.
    pub homer_id: Option<u32>,
    /// Homer's password.
    pub homer_password: Option<String>,
    /// Which PBX is watched.
    pub crash: CrashSettings,
    /// What is done with its cores.
    pub cores: CoreSettings,
}

impl ServeRequest {
    /// What `serve` does on the host `node`, where the command line has the first word on three things.
    #[must_use]
    pub fn options(
        self,
        listen: Option<Listen>,
        history: Option<Keep>,
        evidence_in: Option<Keep>,
        node: String,
    ) -> Options {
        let default = Options::default();
        let limits = default.evidence_limits;
        let homer = |address| Homer {
            address,
            id: self.homer_id.unwrap_or(DEFAULT_HOMER_ID),
            password: self.homer_password.unwrap_or_default(),
            node,
        };
        Options {
            listen: listen.or(self.listen).unwrap_or_default(),
            history: history.or(self.history).unwrap_or_default(),
            journal: self.journal.unwrap_or(default.journal),
            log: self.log.and_then(|Keep(path)| path),
            log_bytes: self.log_bytes.unwrap_or(default.log_bytes),
            evidence: evidence(evidence_in.or(self.evidence)),
            evidence_limits: EvidenceLimits {
                bytes: self.evidence_bytes.unwrap_or(limits.bytes),
                floor: self.free.unwrap_or(limits.floor),
                ..limits
            },
            homer: self.homer.map(homer),
            crash: self.crash,
            cores: self.cores,
        }
    }
}

fn evidence(said: Option<Keep>) -> Option<PathBuf> {
    said.map_or_else(|| Some(DEFAULT_EVIDENCE.into()), |Keep(path)| path)
}

impl Validator<'_> {
    /// What the three tables mean, with every contradiction found.
    pub(super) fn service(&mut self, serve: Serve, crash: CrashTable, cores: Cores) -> ServeRequest {
        let request = ServeRequest {
            listen: serve.listen.map(|Text(listen)| listen),
            history: serve.history.map(|Text(keep)| keep),
            journal: serve.journal,
            log: serve.log.map(|Text(keep)| keep),
            log_bytes: serve.log_size.map(|Text(size)| size.0),
            evidence: serve.evidence.map(|Text(kept)| kept.0),
            evidence_bytes: serve.evidence_size.map(|Text(size)| size.0),
            free: serve.free.map(|Text(free)| free.0),
            homer: serve.homer.and_then(|Text(homer)| homer.0),
            homer_id: serve.homer_id.map(|id| id.0),
            homer_password: serve.homer_password.map(|Text(password)| password.0),
            crash: watched(crash),
            cores: self.cores(cores),
        };
        self.idle();
        self.check_distinct(&request);
        request
    }

    fn cores(&mut self, cores: Cores) -> CoreSettings {
        let default = CoreSettings::default();
        if cores.patterns.as_ref().is_some_and(Vec::is_empty) {
            self.refuse("cores.patterns", "no name, so no core would be found: write such as [\"core.*\"]");
        }
        let [directory, move_to] =
            [cores.directory, cores.move_to].map(|path| path.map(|Text(whole)| whole.0));
        if let (Some(one), Some(other)) = (&directory, &move_to)
            && one == other
        {
            let text = format!(
                "cores are in {} already ({}): name another place",
                one.display(),
                self.location("cores.directory")
            );
            self.refuse("cores.move-to", text);
        }
        let patterns = |all: Vec<Text<Pattern>>| all.into_iter().map(|Text(pattern)| pattern.0).collect();
        CoreSettings {
            directory,
            patterns: cores.patterns.map_or(default.patterns, patterns),
            keep: cores.keep.map_or(default.keep, |keep| keep.0 as usize),
            limit: cores.limit.map_or(default.limit, |Text(size)| size.0),
            free: cores.free.map_or(default.free, |Text(size)| size.0),
            move_to,
        }
    }

    /// Warns of settings without effect, because what they are about is not set.
    fn idle(&mut self) {
        for (key, about, example) in [
            ("log-size", "log", "log = \"/var/lib/sipguard/events.json\""),
            ("homer-id", "homer", "homer = \"192.0.2.9:9060\""),
            ("homer-password", "homer", "homer = \"192.0.2.9:9060\""),
        ] {
            let key = format!("serve.{key}");
            if self.is_set(&key) && !self.is_set(&format!("serve.{about}")) {
                self.warn(&key, format!("it changes nothing without `{about}`: write such as {example}"));
            }
        }
        let pbx = ["unit", "pid-file", "exe", "cores"];
        if self.is_set("crash") && !pbx.iter().any(|key| self.is_set(&format!("crash.{key}"))) {
            self.warn("crash", "no PBX is watched: name it by unit, pid-file, exe or cores");
        }
        if self.is_set("cores") && !self.is_set("cores.directory") {
            self.warn("cores", "nothing is done with cores: say where they are with directory");
        }
    }

    /// What `serve` writes must not lie where cores are looked for: each write would look like a core that begins.
    fn check_distinct(&mut self, request: &ServeRequest) {
        let watched = [
            ("crash.cores", request.crash.watched.cores.as_deref()),
            ("cores.directory", request.cores.directory.as_deref()),
        ];
        let written = [
            ("serve.log", request.log.clone().and_then(|Keep(path)| path)),
            ("serve.evidence", evidence(request.evidence.clone())),
            ("crash.directory", request.crash.watched.is_any().then(|| request.crash.directory.clone())),
        ];
        for (key, path) in written {
            let Some(path) = path.filter(|_| !self.is_refused(key)) else { continue };
            let holds = |(_, cores): &&(&str, Option<&Path>)| {
                // Everything lies in the root.
                cores.is_some_and(|cores| cores != Path::new("/") && path.starts_with(cores))
            };
            let Some((of, _)) = watched.iter().find(holds) else { continue };
            let path = path.display();
            if self.is_set(key) {
                let text =
                    format!("{path} lies where cores are ({of}, {}): name another place", self.location(of));
                self.refuse(key, text);
            } else {
                self.refuse(
                    of,
                    format!("{path} lies in it, which is the default of {key}: name one of both elsewhere"),
                );
            }
        }
    }
}

fn watched(crash: CrashTable) -> CrashSettings {
    let default = CrashSettings::default();
    CrashSettings {
        watched: Watched {
            unit: crash.unit.map(|Text(unit)| unit.0),
            pid_file: crash.pid_file.map(|Text(whole)| whole.0),
            pid: None,
            exe: crash.exe.map(|Text(executable)| executable.0),
            cores: crash.cores.map(|Text(whole)| whole.0),
        },
        directory: crash.directory.map_or(default.directory, |Text(whole)| whole.0),
        quarantine: crash.quarantine.and_then(|Text(quarantine)| quarantine.0),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ConfigSource, Sources, parse};

    fn request(text: &str) -> (ServeRequest, Vec<String>) {
        let source = ConfigSource { path: "f".into(), text: text.to_owned() };
        let (config, warnings, _) = parse(&Sources(vec![source])).unwrap();
        (config.serve, warnings.into_iter().map(|warn| warn.key).collect())
    }

    fn refused(text: &str) -> Vec<String> {
        let source = ConfigSource { path: "f".into(), text: text.to_owned() };
        let problems = parse(&Sources(vec![source])).map(drop).unwrap_err();
        problems.into_iter().map(|problem| format!("{} {}", problem.location.line, problem.key)).collect()
    }

    const FULL: &str = r#"
[serve]
listen = "127.0.0.1:1"
history = "none"
journal = false
log = "/srv/events.json"
log-size = "1M"
evidence = "/srv/evidence"
evidence-size = "2M"
free = "3G"
homer = "192.0.2.9:9060"
homer-id = 4294967295
homer-password = "secret"
[crash]
unit = "asterisk.service"
pid-file = "/run/asterisk/asterisk.pid"
exe = "asterisk"
cores = "/var/cores"
directory = "/srv/crashes"
quarantine = "10m"
[cores]
directory = "/var/cores/"
patterns = ["core-*"]
keep = 0
limit = "5G"
free = "6G"
move-to = "/srv/cores"
"#;

    #[test]
    fn every_setting_arrives() {
        let (request, warnings) = request(FULL);
        assert_eq!(warnings, [""; 0]);
        let expected = Options {
            listen: Listen("127.0.0.1:1".to_owned()),
            history: Keep(None),
            journal: false,
            log: Some("/srv/events.json".into()),
            log_bytes: 1 << 20,
            evidence: Some("/srv/evidence".into()),
            evidence_limits: EvidenceLimits {
                bytes: 2 << 20,
                floor: Floor::Bytes(3 << 30),
                ..EvidenceLimits::default()
            },
            homer: Some(Homer {
                address: "192.0.2.9:9060".parse().unwrap(),
                id: u32::MAX,
                password: "secret".to_owned(),
                node: "pbx".to_owned(),
            }),
            crash: CrashSettings {
                watched: Watched {
                    unit: Some("asterisk.service".to_owned()),
                    pid_file: Some("/run/asterisk/asterisk.pid".into()),
                    pid: None,
                    exe: Some("asterisk".to_owned()),
                    cores: Some("/var/cores".into()),
                },
                directory: "/srv/crashes".into(),
                quarantine: Some(Duration::from_secs(600)),
                ..CrashSettings::default()
            },
            cores: CoreSettings {
                directory: Some("/var/cores".into()),
                patterns: vec!["core-*".to_owned()],
                keep: 0,
                limit: 5 << 30,
                free: 6 << 30,
                move_to: Some("/srv/cores".into()),
            },
        };
        assert_eq!(request.clone().options(None, None, None, "pbx".to_owned()), expected);
        let listen = Listen("[::1]:2".to_owned());
        let history = Keep(Some("/srv/history.db".into()));
        let told = request.options(Some(listen.clone()), Some(history.clone()), None, "pbx".to_owned());
        assert_eq!(told, Options { listen, history, ..expected });
    }

    #[test]
    fn what_is_not_said_is_at_its_default() {
        for text in
            ["", "[serve]\nhomer = 'none'\nhomer-id = 7\nlog = 'none'\nlog-size = '64M'\nfree = 'auto'\n"]
        {
            let (request, warnings) = request(text);
            assert_eq!(warnings, [""; 0]);
            assert_eq!(request.options(None, None, None, "pbx".to_owned()), Options::default(), "{text}");
        }
        let off = request("[serve]\nevidence = 'none'\n").0.options(None, None, None, String::new());
        assert_eq!(off, Options { evidence: None, ..Options::default() });
    }

    #[test]
    fn what_changes_nothing_is_doubted() {
        let text = "[serve]\nhomer-id = 7\nlog-size = '1M'\n[crash]\nquarantine = '10m'\n[cores]\nkeep = 1\n";
        assert_eq!(request(text).1, ["serve.homer-id", "serve.log-size", "crash", "cores"]);
        assert_eq!(request("[crash]\nexe = 'asterisk'\n[cores]\ndirectory = '/var/cores'\n").1, [""; 0]);
    }

    #[test]
    fn nothing_is_written_where_cores_are() {
        let cores = "[cores]\ndirectory = '/var/cores'\n";
        assert_eq!(
            refused(&format!("{cores}[serve]\nevidence = '/var/cores/evidence'\n")),
            ["4 serve.evidence"]
        );
        assert_eq!(refused(&format!("{cores}[serve]\nlog = '/var/cores/log'\n")), ["4 serve.log"]);
        let crash = "[crash]\nexe = 'asterisk'\ndirectory = '/var/cores'\n";
        assert_eq!(refused(&format!("{cores}{crash}")), ["5 crash.directory"]);
        assert_eq!(refused("[crash]\ncores = '/var/lib/sipguard'\n"), ["2 crash.cores", "2 crash.cores"]);
        assert_eq!(refused(&format!("{cores}move-to = '/var//cores/'\n")), ["3 cores.move-to"]);
        assert_eq!(refused("[cores]\npatterns = []\n"), ["2 cores.patterns"]);
        // Beside it, in another one that begins so, and in the root, which holds everything.
        for directory in ["/srv", "/var/lib/sipguard/evid", "/"] {
            request(&format!("[crash]\ncores = '{directory}'\n[cores]\ndirectory = '{directory}'\n"));
        }
        // Unwatched, no report is written.
        request(&format!("{cores}[crash]\ndirectory = '/var/cores/crashes'\n"));
        // A value that can't be read is told, and its default is not.
        assert_eq!(
            refused("[serve]\nevidence = 'x'\n[cores]\ndirectory = '/var/lib/sipguard/evidence'\n"),
            ["2 serve.evidence"]
        );
    }
}
