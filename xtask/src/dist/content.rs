//! What is installed: one list, for the packages of Debian and those of Red Hat's kin.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{empty, names, write};
use crate::command::root;

/// Where the program is, in the units of the sources and in packages.
const LOCAL: &str = "/usr/local/sbin/";
const PACKAGED: &str = "/usr/sbin/";
/// Documents of the guide that the units and scripts name.
const GUIDES: [&str; 5] = ["install", "attach", "blocklists", "configuration", "systemd"];
/// Examples that an operator copies where monitoring wants them.
const EXAMPLES: [&str; 3] =
    ["prometheus/sipguard.rules.yml", "grafana/sipguard.json", "systemd/sipguard-serve-crash.conf"];
/// Where fail2ban looks for actions.
const ACTIONS: &str = "etc/fail2ban/action.d";
const DOCUMENTS: &str = "usr/share/doc/sipguard";

/// What becomes of a file when another version is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is replaced.
    Plain,
    /// What the operator wrote stays.
    Configuration,
    /// As [`Kind::Plain`], and may be left out.
    Document,
}

/// A file of a package.
#[derive(Debug)]
pub struct File {
    /// From the root, without `/` in front.
    pub path: String,
    /// What becomes of it.
    pub kind: Kind,
    /// Whether it can be started.
    pub is_program: bool,
    bytes: Vec<u8>,
}

/// What both packages have.
#[derive(Debug)]
pub struct Content {
    /// The files.
    pub files: Vec<File>,
    /// zsh's completion, for which each distribution has its own directory.
    zsh: Vec<u8>,
}

impl Content {
    /// `program` is packed; `here` is the same for this processor, and says what its manual pages and completions are.
    pub fn new(program: &Path, here: &Path, third_party: &str) -> Result<Self> {
        let mut content = Content { files: Vec::new(), zsh: said(here, &["completion", "zsh"])? };
        content.add("usr/sbin/sipguard", Kind::Plain, read(program)?);
        content.files[0].is_program = true;
        content.units()?;
        content.fail2ban()?;
        content.manuals(here)?;
        content.add(
            "usr/share/bash-completion/completions/sipguard",
            Kind::Plain,
            said(here, &["completion", "bash"])?,
        );
        content.add(
            "usr/share/fish/vendor_completions.d/sipguard.fish",
            Kind::Plain,
            said(here, &["completion", "fish"])?,
        );
        let settings = read(&root().join("deploy/packages/sipguard.toml"))?;
        content.add("etc/sipguard/sipguard.toml", Kind::Configuration, settings);
        for name in EXAMPLES {
            content
                .document(&format!("examples/{}", file_name(name)), read(&root().join("deploy").join(name))?);
        }
        content.document("examples/sipguard.toml", said(here, &["config", "example"])?);
        for name in GUIDES {
            content.document(&format!("{name}.md"), read(&root().join(format!("docs/guide/{name}.md")))?);
        }
        content.document("third-party.txt.gz", gzip(third_party.as_bytes())?);
        content.document("changelog.gz", gzip(&read(&root().join("CHANGELOG.md"))?)?);
        Ok(content)
    }

    /// One more file.
    fn add(&mut self, path: &str, kind: Kind, bytes: Vec<u8>) {
        self.files.push(File { path: path.to_owned(), kind, is_program: false, bytes });
    }

    /// One more document.
    fn document(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(&format!("{DOCUMENTS}/{name}"), Kind::Document, bytes);
    }

    /// Lays all of it below a directory, which is made anew; `zsh` is where that shell's completion goes.
    pub fn lay(&self, directory: &Path, zsh: &str) -> Result<()> {
        empty(directory)?;
        write(&directory.join(zsh), &self.zsh)?;
        for file in &self.files {
            let path = directory.join(&file.path);
            write(&path, &file.bytes)?;
            let mode = if file.is_program { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    fn units(&mut self) -> Result<()> {
        for name in ["sipguard@.service", "sipguard-serve.service"] {
            let unit = fs::read_to_string(root().join("deploy/systemd").join(name))?;
            ensure!(unit.contains(LOCAL), "{name} does not start a program of {LOCAL}");
            self.add(
                &format!("usr/lib/systemd/system/{name}"),
                Kind::Plain,
                unit.replace(LOCAL, PACKAGED).into(),
            );
        }
        Ok(())
    }

    /// The action, which starts the program by its path.
    fn fail2ban(&mut self) -> Result<()> {
        let source = root().join("deploy/fail2ban");
        let action = String::from_utf8(read(&source.join("sipguard.conf"))?)?;
        ensure!(action.contains(LOCAL), "the action of fail2ban does not start a program of {LOCAL}");
        self.add(
            &format!("{ACTIONS}/sipguard.conf"),
            Kind::Configuration,
            action.replace(LOCAL, PACKAGED).into(),
        );
        let restore = read(&source.join("sipguard-restore"))?;
        self.add(&format!("{ACTIONS}/sipguard-restore"), Kind::Configuration, restore);
        self.files.last_mut().expect("one was added").is_program = true;
        Ok(())
    }

    fn manuals(&mut self, program: &Path) -> Result<()> {
        let directory = empty(&program.with_file_name("man"))?;
        said(program, &["man", &directory.to_string_lossy()])?;
        let mut pages = names(&directory)?;
        pages.sort();
        ensure!(!pages.is_empty(), "it has no manual pages");
        for name in pages {
            let page = gzip(&read(&directory.join(&name))?)?;
            self.add(&format!("usr/share/man/man1/{name}.gz"), Kind::Document, page);
        }
        Ok(())
    }
}

/// What the program prints, on no terminal and without settings of this machine.
fn said(program: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("SIPGUARD_CONFIG", "/dev/null").stdin(Stdio::null());
    let output = command.output().with_context(|| format!("starting {}", program.display()))?;
    ensure!(
        output.status.success(),
        "sipguard {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The same for the same bytes: no name and no time in it.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new("gzip");
    let mut child = command.arg("-9nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no pipe to gzip")?;
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output()?;
    writer.join().expect("the writer does not panic")?;
    ensure!(output.status.success(), "gzip failed");
    Ok(output.stdout)
}

/// A script of a package: what `first` says of its arguments, then the file of `deploy/packages`.
pub fn script(first: &str, name: &str) -> Result<String> {
    let body = fs::read_to_string(root().join("deploy/packages").join(name))
        .with_context(|| format!("reading deploy/packages/{name}"))?;
    Ok(format!("{first}\n{body}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn file_name(path: &str) -> String {
    PathBuf::from(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
