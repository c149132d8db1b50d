//! Other programs: where they are found, how they are started, and as whom.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::ebpf_toolchain::cargo_bin;

/// The workspace: the one that cargo runs this in, also when what it runs was built in a copy.
pub fn root() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or_else(|| "/".into(), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let dir = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    std::path::absolute(&dir).unwrap_or(dir)
}

/// `cargo ARGS` in the workspace, with the cargo that runs this.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    command.env("PATH", search_path(None));
    command
}

/// PATH, where the administrator's programs and cargo's own are always found; `first` goes before all of it.
pub fn search_path(first: Option<&Path>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = first.into_iter().map(Path::to_path_buf).collect();
    dirs.extend(env::split_paths(&path));
    dirs.extend([cargo_bin(), "/usr/sbin".into(), "/sbin".into()]);
    env::join_paths(dirs).unwrap_or(path)
}

/// Whether a program of this name is there to be started.
pub fn is_program(name: &str) -> bool {
    env::split_paths(&search_path(None)).any(|dir| dir.join(name).is_file())
}

/// What a program printed, or `None` when it is missing or failed.
pub fn printed(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).env("PATH", search_path(None)).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this is root already.
pub fn is_root() -> bool {
    printed("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// `program` as root: directly, or through sudo; an error when there is no way. `what` needs it.
pub fn as_root(program: &Path, what: &str) -> Result<Command> {
    let mut command = if is_root() {
        Command::new(program)
    } else if is_program("sudo") {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    } else {
        bail!("{what} needs root: become root and run it again, or install sudo");
    };
    command.env("PATH", search_path(None));
    Ok(command)
}

/// Runs it to its end, which must be success.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Becomes it, so that its output and its exit status are the last; returns only when that failed.
pub fn exec(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("starting `{}`", line(command)))
}

fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
