//! A guard in the network of a container, by a command on the host: beside others, through restarts, with all that needs sockets.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::Reason;
use sipguard_tests::{
    application::{End, PATIENCE, Server, expect_same, sip, udp, wait_until},
    container::Container,
    guard::{Guard, Output, Site, text},
    message::{OPTIONS, negative_length, register},
    scratch::Scratch,
    service::Service,
};

/// A command about the guard of a container.
fn run(guard: &Guard, container: &str, words: &str, status: i32) -> Result<Output> {
    let words: Vec<&str> = words.split(' ').chain(["--container", container]).collect();
    guard.run(&words)?.expect(status).with_context(|| words.join(" "))
}

fn json(guard: &Guard, container: &str, words: &str) -> Result<Value> {
    let output = run(guard, container, &format!("{words} -o json"), 0)?;
    serde_json::from_str(&output.stdout).with_context(|| format!("{words} printed no JSON"))
}

/// Packets of a reason, of a container's guard.
fn counted(guard: &Guard, container: &str, reason: Reason) -> Result<u64> {
    let answer = json(guard, container, "counters")?;
    let rows =
        answer["rows"].as_array().context("no rows")?.iter().filter(|row| row["reason"] == reason.name());
    Ok(rows.filter_map(|row| row["packets"].as_u64()).sum())
}

/// Whether a good stream reaches the container, and what is malformed behind it does not.
fn filters(site: &Site, container: &Container) -> Result<bool> {
    let server = Server::listen(&container.network, sip(container.address.into()))?;
    let (phone, application) = server.connect(&site.phone)?;
    let (good, bad) = (register(1), negative_length().bytes);
    phone.write(&good)?;
    expect_same(&application.wait_for(good.len())?, &good)?;
    phone.offer(&bad)?;
    let both = [good, bad].concat();
    wait_until("the application reads it or is reset", || {
        Ok(application.end().is_some() || application.bytes().len() == both.len())
    })?;
    Ok(application.end() == Some(End::Reset))
}

fn dial(site: &Site, server: &Server, to: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let phone = site.phone.enter(|| TcpStream::connect_timeout(&sip(to), PATIENCE))??;
    let accepted = server.accept()?;
    accepted.set_nonblocking(false)?;
    Ok((phone, accepted))
}

#[test]
fn two_containers_and_the_host_have_a_guard_each() -> Result<()> {
    let site = Site::guarded(true, &["--monitor"])?;
    let guard = &site.guard;
    let both = [Container::start(&site, "one", 1)?, Container::start(&site, "two", 2)?];
    for container in &both {
        let said = run(guard, &container.named(), "attach --xdp-mode native", 0)?;
        ensure!(
            said.stdout.contains("eth0 of container") && said.stdout.contains("native"),
            "it said {said:?}"
        );
        ensure!(container.has_program()?, "{} has no program", container.named());
        ensure!(filters(&site, container)?, "{} is not filtered", container.named());
        let status = json(guard, &container.named(), "status")?;
        let verdict = text(&status, "verdict")?;
        let label = container.named().split('=').next().unwrap_or_default().to_owned();
        ensure!(
            verdict.starts_with("ENFORCING") && verdict.ends_with(&format!("container {label}")),
            "{verdict}"
        );
        ensure!(status["weaknesses"].as_array().is_some_and(Vec::is_empty), "{status}");
        ensure!(counted(guard, &container.named(), Reason::BadContentLength)? == 1, "it was not counted");
    }
    // The host sees both, and its guard is another one with rules of its own.
    let host = guard.json(&["status"])?;
    ensure!(
        text(&host, "verdict")?.starts_with("MONITOR") && !text(&host, "verdict")?.contains("container"),
        "{host}"
    );
    ensure!(guard.counted(Reason::BadContentLength)? == 2, "{:?}", guard.counters()?);
    let [one, two] = both.each_ref().map(Container::named);
    run(guard, &one, "block 192.0.2.7", 0)?;
    ensure!(guard.rules()?.is_empty(), "the host blocks it");
    for (name, rules) in [(&one, 1), (&two, 0)] {
        let listed = json(guard, name, "list")?;
        ensure!(listed["rows"].as_array().map(Vec::len) == Some(rules), "{name}: {listed}");
    }
    let again = run(guard, &one, "attach", 0)?;
    ensure!(again.stdout.contains("nothing changed"), "it said {again:?}");
    run(guard, &one, "upgrade", 0)?;
    ensure!(filters(&site, &both[0])?, "it filters no more after an upgrade");
    run(guard, &one, "detach --all", 0)?;
    ensure!(!both[0].has_program()? && !filters(&site, &both[0])?, "it is attached still");
    ensure!(both[1].has_program()?, "the other one went with it");
    let said = guard.run(&["status", "--pins", "/sys/fs/bpf/sgt-nothing"])?.expect(3)?;
    ensure!(!said.stderr.contains("containers"), "it said {said:?}");
    guard.run(&["detach", "--all"])?.expect(0)?;
    let said = guard.run(&["status"])?.expect(3)?;
    ensure!(said.stderr.contains("in containers (`--container`): two"), "it said {said:?}");
    run(guard, &two, "detach eth0", 0)?;
    let pins = guard.pins().with_file_name(format!("{}@two", text_of(guard)));
    ensure!(!pins.exists(), "pins stayed");
    let said = run(guard, &two, "status", 3)?;
    ensure!(
        said.stderr.contains("not attached in container two") && said.stderr.contains(&two),
        "it said {said:?}"
    );
    Ok(())
}

/// One label and the process of another container: an old command, or a number that is somebody else's now.
#[test]
fn the_name_of_another_container_that_runs_changes_nothing() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let [one, two] = [Container::start(&site, "one", 1)?, Container::start(&site, "two", 2)?];
    run(guard, &one.named(), "attach", 0)?;
    let wrong = two.named().replace("two=", "one=");
    for words in ["attach", "detach eth0"] {
        let said = run(guard, &wrong, words, 1)?.stderr;
        ensure!(said.contains("the guard of `one` filters eth0 of another container"), "{words}: {said}");
        ensure!(one.has_program()? && !two.has_program()?, "{words} did it");
    }
    ensure!(filters(&site, &one)?, "it does not filter");
    run(guard, &one.named(), "detach eth0", 0).map(drop)
}

fn text_of(guard: &Guard) -> String {
    guard.pins().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn a_container_that_was_started_again_is_attached_again_with_what_was_in_force() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    let container = Container::start(&site, "pbx", 1)?;
    let before = container.named();
    run(guard, &before, "attach", 0)?;
    run(guard, &before, "block 192.0.2.7", 0)?;
    run(guard, &before, "limit set --of open 2", 0)?;
    // What is proposed names the container.
    let phone = udp(&site.phone, (Site::PHONE[0], 5070))?;
    for _ in 0..2 {
        phone.send_to(b"OPTIONS sip:pbx SIP/2.0\r\nVia: a\0b\r\n\r\n", (container.address, 5060))?;
    }
    wait_until("both are counted", || Ok(counted(guard, &before, Reason::ControlByte)? == 2))?;
    let said = run(guard, &before, "counters --by source", 0)?;
    ensure!(
        said.stdout.contains(&format!("sipguard block --container {before} 10.77.0.2:5070")),
        "it said {said:?}"
    );
    ensure!(filters(&site, &container)?, "it does not filter");
    run(guard, &before, "mode monitor", 0)?;
    // From the host the kernel's link tells of it, in a namespace that the command is not in.
    let beside = guard.pins().with_file_name(format!("{}@pbx", text_of(guard)));
    let from_host = |status: i32| {
        guard.run(&["status", "-o", "json", "--pins", &beside.to_string_lossy()])?.expect(status)
    };
    ensure!(from_host(0)?.stdout.contains("\"elsewhere\""), "{:?}", from_host(0)?);
    container.end(&site)?;
    ensure!(from_host(3)?.stdout.contains("is no more"), "{:?}", from_host(3)?);
    let said = run(guard, &before, "status", 3)?;
    ensure!(
        said.stderr.contains("does not run")
            && said.stdout.contains("NOT FILTERING anything in container pbx"),
        "it said {said:?}"
    );
    ensure!(said.stderr.contains("sipguard attach --container pbx=PID eth0"), "it said {said:?}");
    let said = run(guard, &before, "attach", 1)?;
    ensure!(said.stderr.contains("does not run"), "it said {said:?}");

    let container = Container::start(&site, "pbx", 1)?;
    let name = container.named();
    let said = run(guard, &name, "status", 3)?;
    ensure!(said.stderr.contains(&format!("sipguard attach --container {name} eth0")), "it said {said:?}");
    ensure!(!container.has_program()?, "it is attached by itself");
    run(guard, &name, "attach", 0)?;
    let status = json(guard, &name, "status")?;
    ensure!(status["mode"] == "monitor" && status["blocks"] == 1, "{status}");
    ensure!(status["interfaces"].as_array().map(Vec::len) == Some(1), "{status}");
    ensure!(status["weaknesses"].as_array().is_some_and(Vec::is_empty), "{status}");
    run(guard, &name, "mode enforce", 0)?;
    ensure!(filters(&site, &container)?, "it does not filter");
    ensure!(counted(guard, &name, Reason::BadContentLength)? == 2, "what was counted before is gone");
    // What counts open connections does so in the new network.
    let server = Server::listen(&container.network, sip(container.address.into()))?;
    let _both =
        [dial(&site, &server, container.address.into())?, dial(&site, &server, container.address.into())?];
    let open = || -> Result<Value> {
        let limits = json(guard, &name, "limit list")?;
        let rows = limits["rows"].as_array().context("no rows")?;
        rows.iter()
            .find(|row| row["of"] == "open")
            .cloned()
            .with_context(|| format!("no such limit in {limits}"))
    };
    wait_until("two are open", || Ok(open()?["open"] == 2))?;
    run(guard, &name, "detach --all", 0)?;
    ensure!(!beside.exists() && !container.has_program()?, "something is left");
    Ok(())
}

#[test]
fn what_needs_the_sockets_of_the_container_finds_them() -> Result<()> {
    let (site, scratch) = (Site::new(true)?, Scratch::new("containers")?);
    let (guard, container) = (&site.guard, Container::start(&site, "pbx", 1)?);
    let (name, address) = (container.named(), IpAddr::from(container.address));
    run(guard, &name, "attach --check message-ms=1000", 0)?;
    run(guard, &name, "bans set --after 2 --within 30m --first 30m", 0)?;
    // Protected are the addresses of the container, not those of the host.
    for (target, role) in [("10.79.1.2", "the container's own address"), ("10.79.1.1", "a gateway")] {
        let said = run(guard, &name, &format!("block {target}"), 1)?;
        ensure!(said.stderr.contains(role), "{target}: it said {said:?}");
    }
    run(guard, &name, "block 10.77.0.1", 0)?;
    let mut session = guard.command(&["block", "198.51.100.9", "--container", &name]);
    let output = session.env("SSH_CONNECTION", "198.51.100.9 40000 10.77.0.1 22").output()?;
    ensure!(output.status.success(), "a session of the host is protected in the container: {output:?}");
    let mut session = guard.command(&["block", "198.51.100.10", "--container", &name]);
    let output = session.env("SSH_CONNECTION", "198.51.100.10 40000 10.79.1.2 22").output()?;
    ensure!(!output.status.success(), "a session of the container is not protected");

    // `serve` answers on the host, and ends what is overdue in the container.
    let service = Service::start(&site, &scratch, &[("SIPGUARD_CONTAINER", &name)])?;
    let server = Server::listen(&container.network, sip(address))?;
    let (mut phone, mut accepted) = dial(&site, &server, address)?;
    phone.write_all(&OPTIONS[..40])?;
    accepted.read_exact(&mut [0; 40])?;
    accepted.set_read_timeout(Some(PATIENCE))?;
    let end = accepted.read(&mut [0; 1]);
    ensure!(end.is_err(), "the overdue message was not ended: {end:?}");
    let status = service.json("/api/status")?;
    ensure!(status["interfaces"][0]["mode"] == "native", "{status}");
    ensure!(status["weaknesses"].as_array().is_some_and(Vec::is_empty), "{status}");

    // A device that is banned gets no further connection from its port.
    let local = std::net::SocketAddr::new(Site::PHONE[0], 40_001);
    for _ in 0..2 {
        let mut stream = sipguard_tests::dial::from(&site.phone, local, sip(address), PATIENCE)?
            .context("no connection")?;
        let mut accepted = server.accept()?;
        accepted.set_nonblocking(false)?;
        stream.write_all(b"OPTIONS sip:pbx SIP/2.0\r\nVia: a\0b\r\n")?;
        ensure!(accepted.read(&mut [0; 16]).is_err(), "it reached the PBX");
    }
    let banned =
        || Ok(json(guard, &name, "list ban")?["rows"].as_array().is_some_and(|rows| rows.len() == 1));
    wait_until("the device is banned", banned)?;
    drop(server);
    run(guard, &name, "detach --all", 0)?;
    Ok(())
}

#[test]
fn what_is_no_container_is_said_and_nothing_is_attached() -> Result<()> {
    let site = Site::new(true)?;
    let guard = &site.guard;
    for (name, status, why) in [
        ("nothing-is-called-so", 1, "docker inspect --format '{{.State.Pid}}' nothing-is-called-so"),
        ("x=2147483647", 1, "does not run"),
        ("docker:", 2, "no name of a container"),
        ("rkt:pbx", 2, "none of docker"),
    ] {
        for verb in ["attach", "status", "block 192.0.2.7"] {
            let said = run(guard, name, verb, status)?;
            ensure!(said.stderr.contains(why), "{name}: it said {said:?}");
        }
    }
    // A process with the network of the command itself.
    let sleeper =
        sipguard_tests::process::Running::start("sleep", site.pbx.command("sleep").arg("infinity"))?;
    let said = run(guard, &format!("host={}", sleeper.pid()), "attach", 1)?;
    ensure!(said.stderr.contains("network of this machine"), "it said {said:?}");
    // By the name that `ip netns` knows, with an interface that is not the only one.
    let said = run(guard, &format!("netns:{}", site.phone.name()), "attach eth7", 1)?;
    ensure!(
        said.stderr.contains("no interface `eth7`") && said.stderr.contains("there are lo, eth0"),
        "it said {said:?}"
    );
    site.phone.run(&["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth2"])?;
    let said = run(guard, site.phone.name(), "attach", 2)?;
    ensure!(said.stderr.contains("name those to attach to, of eth0"), "it said {said:?}");
    ensure!(
        std::fs::read_dir("/sys/fs/bpf")?.flatten().all(|entry| {
            !entry.file_name().to_string_lossy().starts_with(&format!("{}@", text_of(guard)))
        }),
        "pins are left"
    );
    Ok(())
}
