//! The configuration file: what is wrong with it is told, all of it. What a reload does to an attached guard is in the tier `lab`.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_core::claim::SCANNERS;
use sipguard_tests::{
    configurations::broken,
    guard::{Output, neighbour},
    scratch::Scratch,
};

/// `sipguard` without privileges in mind: nothing is attached, and the store is not touched.
fn said(words: &[&str]) -> Result<Output> {
    let out = Command::new(neighbour("SIPGUARD", "sipguard")?)
        .args(words)
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-config-test")
        .env("SIPGUARD_STORE", "/nonexistent/rules.db")
        .env_remove("SIPGUARD_CONFIG")
        .stdin(Stdio::null())
        .output()?;
    let [stdout, stderr] = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Output { status: out.status.code().context("an exit status")?, stdout, stderr })
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// What `check` says of a file, its directory left out.
fn judged(path: &Path) -> Result<String> {
    let Output { status, stdout, stderr } = said(&["check", "--config", shown(path)])?;
    let directory = path.parent().unwrap_or(path);
    Ok(format!("{stdout}{stderr}exit status {status}\n").replace(&format!("{}/", shown(directory)), ""))
}

#[test]
fn mistakes_are_named_with_their_places() -> Result<()> {
    let mut text = String::new();
    for path in broken()? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(text, "## {name}\n{}", judged(&path)?)?;
    }
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn mistakes_of_files() -> Result<()> {
    let scratch = Scratch::new("config")?;
    fs::create_dir(scratch.join("conf.d"))?;
    let main = scratch
        .write("main.toml", "[guard]\nmode = \"monitor\"\n[trunks.carrier]\npeers = [\"192.0.2.1\"]\n")?;
    let mut text = String::new();
    let mut say = |what: &str| {
        writeln!(text, "## {what}\n{}", judged(&main)?)?;
        anyhow::Ok(())
    };
    scratch.write(
        "conf.d/20.toml",
        "[guard]\nmode = \"enforce\"\n[trunks.carrier.limits]\ninvite = \"5/s\"\n",
    )?;
    scratch.write("conf.d/10.toml", "\u{feff}[guard]\nports = [5060]\n[checks]\nline-bytes = 1\n")?;
    scratch.write("conf.d/30.toml", "guard = 7\n[trunks.other]\npeers = [\"192.0.2.1\"]\n")?;
    say("one thing said twice, in several files")?;
    for name in ["10", "20", "30"] {
        fs::remove_file(scratch.join(&format!("conf.d/{name}.toml")))?;
    }
    // Left alone: another end, and a hidden file of an editor.
    for name in ["conf.d/10.toml~", "conf.d/.20.toml.swp", "conf.d/30.conf"] {
        scratch.write(name, "no configuration")?;
    }
    say("names that do not end in .toml")?;
    fs::set_permissions(&main, fs::Permissions::from_mode(0o666))?;
    say("everybody may write")?;
    fs::set_permissions(&main, fs::Permissions::from_mode(0o600))?;
    fs::write(&main, b"[guard]\nmode = \"\xff\"\n")?;
    say("not UTF-8")?;
    fs::write(&main, "# all comment\n".repeat(80_000))?;
    say("too large")?;
    let mut many = String::new();
    for number in 0..256 {
        write!(many, "[trunks.t{number:03}]\npeers = [\"10.9.{number}.1\"]\n")?;
    }
    fs::write(&main, many)?;
    say("more trunks than there is room for")?;
    fs::write(
        &main,
        "[trunks.carrier]\npeers = [\"192.0.2.1\"]\nmethods = [\"INVITE\"]\n[serve]\nhomer-id = 7\n[crash]\nquarantine = \"10m\"\n",
    )?;
    say("doubtful")?;
    fs::remove_file(&main)?;
    say("missing")?;
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn the_example_is_the_documentation_and_valid() -> Result<()> {
    let scratch = Scratch::new("config")?;
    let example = said(&["config", "example"])?.expect(0)?.stdout;
    let path = scratch.write("sipguard.toml", &example)?;
    ensure!(judged(&path)? == "sipguard.toml: valid\nexit status 0\n", "{}", judged(&path)?);
    let schema: Value = serde_json::from_str(&said(&["config", "schema"])?.expect(0)?.stdout)?;
    ensure!(schema["properties"]["guard"]["properties"]["flows"]["maximum"] == 4_000_000, "{schema}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/configuration.md");
    if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        fs::write(&docs, sipguard_core::config::markdown())?;
    }
    ensure!(
        fs::read_to_string(&docs)? == sipguard_core::config::markdown(),
        "docs/reference/configuration.md is old: SIPGUARD_WRITE_DOCS=1 writes it anew"
    );
    Ok(())
}

#[test]
fn what_is_in_effect_is_shown_with_its_place() -> Result<()> {
    let scratch = Scratch::new("config")?;
    fs::create_dir(scratch.join("conf.d"))?;
    let main = scratch.write(
        "main.toml",
        "[guard]\nprofile = \"strict\"\n[serve]\nhomer = \"192.0.2.9:9060\"\nhomer-password = \"secret\"\n",
    )?;
    scratch.write("conf.d/carrier.toml", "[trunks.carrier]\npeers = [\"192.0.2.1\"]\n")?;
    let shown = said(&["config", "show", "--config", shown(&main)])?.expect(0)?.stdout;
    let directory = format!("{}/", scratch.path().display());
    insta::assert_snapshot!(shown.replace(&directory, ""));
    Ok(())
}

#[test]
fn the_scanners_are_those_of_the_recipe() -> Result<()> {
    let policy =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/incidents.md"))?;
    let toml = format!("user-agents = [{}]", SCANNERS.map(|agent| format!("\"{agent}\"")).join(", "));
    ensure!(
        policy.contains(&SCANNERS.join(" ")) && policy.contains(&toml),
        "docs/guide/incidents.md has others: {toml}"
    );
    ensure!(
        said(&["config", "example"])?.expect(0)?.stdout.contains(&toml),
        "the example has others: {toml}"
    );
    Ok(())
}
