//! What protects the operator from a block: SSH sessions, by the processes above and by the kernel's connections.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site},
    process::Running,
    scratch::Scratch,
};

/// A server whose process has the name of an SSH server, on a port of the PBX, in both families. `title` is what it says of itself.
fn ssh_server(site: &Site, scratch: &Scratch, title: &str, port: u16) -> Result<Running> {
    let sshd = scratch.join("sshd");
    if !sshd.exists() {
        symlink(iperf3()?, &sshd).context("linking iperf3")?;
    }
    // `nsenter` would give it a title of its own.
    let mut command = Command::new(&sshd);
    command.arg0(title).args(["-s", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let server = site.pbx.enter(|| Running::start("sshd", &mut command))??;
    wait_until("the SSH server listens", || {
        Ok(!site.pbx.run(&["ss", "-Hltn", &format!("sport = :{port}")])?.is_empty())
    })?;
    Ok(server)
}

fn iperf3() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("iperf3")).find(|path| path.exists());
    found.context("there is no iperf3: `cargo xtask setup --for test` installs it")
}

/// Dials from the phone, and waits until the server has accepted.
fn dial(site: &Site, to: &str) -> Result<TcpStream> {
    let to: SocketAddr = to.parse()?;
    let stream = site.phone.enter(|| TcpStream::connect(to))?.with_context(|| format!("dialling {to}"))?;
    let from = stream.local_addr()?;
    wait_until("the SSH server has accepted", || {
        let filter = format!("dport = :{}", from.port());
        Ok(site.pbx.run(&["ss", "-Htnp", &filter])?.contains("sshd"))
    })?;
    Ok(stream)
}

fn refused(guard: &Guard, target: &str, role: &str) -> Result<()> {
    let said = guard.run(&["block", target])?.expect(1)?;
    ensure!(said.stderr.contains(role) && said.stderr.contains("--force"), "{target}: it said {said:?}");
    ensure!(guard.rules()?.is_empty(), "{target} was blocked");
    Ok(())
}

#[test]
fn the_peer_of_a_session_of_any_ssh_server_needs_force() -> Result<()> {
    let site = Site::new(true)?;
    let (guard, scratch) = (&site.guard, Scratch::new("ssh")?);
    guard.run(&["block", "10.77.0.2", "fd77::2"])?.expect(0)?;
    guard.run(&["unblock", "--all"])?.expect(0)?;
    let server = ssh_server(&site, &scratch, "sshd: admin@pts/0", 2222)?;
    guard.run(&["block", "10.77.0.2"])?.expect(0)?;
    guard.run(&["unblock", "--all"])?.expect(0)?;
    let session = dial(&site, "10.77.0.1:2222")?;
    refused(guard, "10.77.0.2", "the peer of an SSH session (10.77.0.2)")?;
    refused(guard, "10.77.0.2/31", "the peer of an SSH session (10.77.0.2)")?;
    let skipped = guard.run_with_input(&["import", "-", "--origin", "feed"], "10.77.0.2\n")?.expect(0)?;
    ensure!(skipped.stderr.contains("the peer of an SSH session"), "it said {skipped:?}");
    drop(session);
    drop(server);
    let mut server = ssh_server(&site, &scratch, "sshd: admin@pts/0", 2222)?;
    let session = dial(&site, "[fd77::1]:2222")?;
    refused(guard, "fd77::2", "the peer of an SSH session (fd77::2)")?;
    guard.run(&["block", "10.77.0.2"])?.expect(0)?;
    guard.run(&["unblock", "--all"])?.expect(0)?;
    server.expect_alive()?;
    drop(session);
    Ok(())
}

#[test]
fn whoever_guesses_passwords_can_be_blocked() -> Result<()> {
    let site = Site::new(true)?;
    let scratch = Scratch::new("ssh")?;
    let _server = ssh_server(&site, &scratch, "sshd: root [net]", 22)?;
    let _session = dial(&site, "10.77.0.1:22")?;
    site.guard.run(&["block", "10.77.0.2"])?.expect(0)?;
    Ok(())
}

#[test]
fn the_session_above_is_found_without_its_variable() -> Result<()> {
    let site = Site::new(true)?;
    // As `sudo` does: a shell of the session, and below it a process whose environment is empty.
    let below = |words: &str| -> Result<String> {
        let inner = site.guard.command(&["block", words]);
        let [program, pins, store] =
            [inner.get_program(), site.guard.pins().as_os_str(), site.guard.store().as_os_str()]
                .map(|part| part.to_string_lossy().into_owned());
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        // Two commands, so that the shell stays above the first.
        command.args(["-c", "\"$@\"; exit $?", "sh", "env", "-i"]).arg(format!("PATH={path}"));
        command.args([format!("SIPGUARD_PINS={pins}"), format!("SIPGUARD_STORE={store}")]).arg(program);
        command.args(inner.get_args()).env("SSH_CONNECTION", "198.51.100.9 40000 10.77.0.1 2200");
        let output = command.stdin(Stdio::null()).output().context("running sh")?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = below("198.51.100.9")?;
    ensure!(said.contains("this SSH session's peer (198.51.100.9)"), "it said {said}");
    let said = below("198.51.100.10")?;
    ensure!(said.is_empty(), "it said {said}");
    ensure!(site.guard.rules()?.len() == 1, "not one block");
    Ok(())
}

#[test]
fn a_port_of_another_protocol_is_guarded_by_force_alone() -> Result<()> {
    let site = Site::new(true)?;
    let (guard, scratch) = (&site.guard, Scratch::new("ports")?);
    let ports = || -> Result<Vec<u64>> {
        let status = guard.json(&["status"])?;
        Ok(status["ports"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect())
    };
    let refuses = |words: &[&str], why: &str| -> Result<()> {
        let said = guard.run(words)?.expect(1)?;
        ensure!(said.stderr.contains(why) && said.stderr.contains("force"), "{words:?}: it said {said:?}");
        Ok(())
    };
    for (port, name) in [("5060,22", "SSH"), ("443", "HTTPS"), ("8080", "HTTP"), ("5038", "Asterisk")] {
        refuses(&["attach", "eth0", "--port", port], name)?;
        ensure!(!guard.pins().exists(), "{port}: it is attached");
    }
    refuses(&["attach", "eth0", "--tls-port", "443"], "HTTPS")?;
    // Whatever the port, an SSH server has it.
    let _server = ssh_server(&site, &scratch, "sshd", 5061)?;
    refuses(&["attach", "eth0"], "port 5061 is one of SSH here")?;
    guard.attach(&["eth0", "--tls-port", "none"])?;
    refuses(&["attach", "eth0", "--port", "5060,5061"], "port 5061 is one of SSH here")?;
    refuses(&["attach", "eth0", "--port", "443"], "HTTPS")?;
    let file = scratch.write("ssh.toml", "[guard]\nports = [5060, 5061]\ntls-ports = []\n")?;
    for more in [&[][..], &["--dry-run"]] {
        refuses(&[&["reload", "--config", &*file.to_string_lossy()], more].concat(), "force-ports = true")?;
    }
    ensure!(ports()? == [5060], "guarded are {:?}", ports()?);
    let forced = "[guard]\nports = [443, 5060, 5061]\ntls-ports = []\nforce-ports = true\n";
    let file = scratch.write("forced.toml", forced)?;
    guard.run(&["reload", "--config", &file.to_string_lossy()])?.expect(0)?;
    ensure!(ports()? == [443, 5060, 5061], "guarded are {:?}", ports()?);
    // What is guarded already needs no more force.
    guard.attach(&["eth0", "--port", "443,5060"])?;
    guard.attach(&["eth0", "--port", "22,5060", "--force"])?;
    ensure!(ports()? == [22, 5060], "guarded are {:?}", ports()?);
    Ok(())
}

#[test]
fn the_port_of_the_session_above_is_not_guarded() -> Result<()> {
    let site = Site::new(true)?;
    let mut command = site.guard.command(&["attach", "eth0", "--port", "2200"]);
    let output = command.env("SSH_CONNECTION", "198.51.100.9 40000 10.77.0.1 2200").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("port 2200 is one of SSH here") && !site.guard.pins().exists(), "it said {said}");
    Ok(())
}
