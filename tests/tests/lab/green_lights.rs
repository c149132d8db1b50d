//! No green light where nothing is filtered: what `status`, `/health`, the metrics and `attach` itself say when the guard is not where it was, not as strong
//! as it could be, or would not last.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sipguard_common::abi::IFACE_SLOTS;
use sipguard_tests::{
    application::wait_until,
    guard::{Guard, Site, neighbour},
    netns::veth,
    process::Running,
    scratch::Scratch,
    service::Service,
};

/// A second cable, so that the PBX has an `eth1`.
fn add_interface(site: &Site) -> Result<()> {
    veth(&site.pbx, "eth1", "10.78.0.1/24", &site.phone, "eth1", "10.78.0.2/24", true)
}

/// Guarded on `eth0` and `eth1`.
fn two_interfaces() -> Result<Site> {
    let site = Site::new(true)?;
    add_interface(&site)?;
    run(&site, "attach eth0 eth1", 0)?;
    Ok(site)
}

/// The status of `/health`.
fn health(service: &Service<'_>) -> Result<u16> {
    Ok(service.get("/health")?.status)
}

/// Whether this is a line of the metrics.
fn has_metric(service: &Service<'_>, line: &str) -> Result<bool> {
    Ok(service.get("/metrics")?.body.lines().any(|one| one == line))
}

fn run(site: &Site, words: &str, status: i32) -> Result<sipguard_tests::guard::Output> {
    site.guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(status)
}

#[test]
fn an_interface_that_was_made_anew_is_not_called_guarded() -> Result<()> {
    let site = &two_interfaces()?;
    let scratch = Scratch::new("green")?;
    let service = &Service::start(site, &scratch, &[])?;
    wait_until("all is well", || Ok(health(service)? == 200 && has_metric(service, "sipguard_attached 1")?))?;
    ensure!(
        has_metric(service, "sipguard_interface_guarded{interface=\"eth1\"} 1")?,
        "{}",
        service.get("/metrics")?.body
    );
    site.pbx.run(&["ip", "link", "del", "eth1"])?;
    add_interface(site)?;
    let output = run(site, "status", 3)?;
    ensure!(output.stderr.contains("nothing is filtered on eth1"), "{output:?}");
    let first = output.stdout.lines().next().unwrap_or_default();
    ensure!(first.starts_with("ENFORCING") && first.ends_with("; UNFILTERED: eth1"), "{output:?}");
    ensure!(output.stdout.contains(" unfiltered "), "{output:?}");
    let report: Value = serde_json::from_str(&run(site, "status -o json", 3)?.stdout)?;
    ensure!(
        report["interfaces"][0]["mode"] == "native" && report["interfaces"][1]["mode"] == "gone",
        "{report}"
    );
    wait_until("health tells", || Ok(health(service)? == 503))?;
    wait_until("the metrics tell", || {
        Ok(has_metric(service, "sipguard_attached 0")?
            && has_metric(service, "sipguard_interface_guarded{interface=\"eth1\"} 0")?)
    })?;
    // Attached again it is guarded, and the dead row is gone.
    run(site, "attach eth1", 0)?;
    let report = site.guard.json(&["status"])?;
    let modes = report["interfaces"].as_array().context("interfaces")?;
    ensure!(modes.len() == 2 && modes.iter().all(|one| one["mode"] == "native"), "{report}");
    wait_until("all is well again", || {
        Ok(health(service)? == 200 && has_metric(service, "sipguard_attached 1")?)
    })
}

/// A VPN that is down: nothing comes by it, and when it comes again and nobody attaches it, it is an alarm.
#[test]
fn an_interface_that_is_not_there_is_no_alarm_while_others_are_filtered() -> Result<()> {
    let site = &two_interfaces()?;
    let scratch = Scratch::new("green")?;
    let service = &Service::start(site, &scratch, &[])?;
    site.pbx.run(&["ip", "link", "del", "eth1"])?;
    let output = run(site, "status", 9)?;
    ensure!(output.stderr.contains("not there now: eth1;"), "{output:?}");
    ensure!(
        output.stdout.contains("; not there: eth1\n") && output.stdout.contains(" not there "),
        "{output:?}"
    );
    run(site, "status eth1", 9)?;
    run(site, "status eth0", 0)?;
    // Whoever attaches another one does not forget it.
    run(site, "attach eth0", 0)?;
    run(site, "status", 9)?;
    let report: Value = serde_json::from_str(&run(site, "status -o json", 9)?.stdout)?;
    let modes = ["native", "absent"];
    ensure!([0, 1].map(|at| &report["interfaces"][at]["mode"]) == modes, "{report}");
    wait_until("the metrics tell", || {
        let absent = "sipguard_interface_info{interface=\"eth1\",driver=\"\",mode=\"absent\"} 1";
        Ok(has_metric(service, "sipguard_attached 1")? && has_metric(service, absent)?)
    })?;
    // The alert is of an interface that is there.
    ensure!(
        !service.get("/metrics")?.body.contains("sipguard_interface_guarded{interface=\"eth1\"}"),
        "an alarm"
    );
    let health_now = service.get("/health")?;
    ensure!(
        health_now.status == 200 && health_now.body.contains("attached; not there now: eth1"),
        "{health_now:?}"
    );
    // It comes, and nobody guards it.
    add_interface(site)?;
    run(site, "status", 3)?;
    wait_until("health tells", || Ok(health(service)? == 503))?;
    run(site, "attach eth0", 0)?;
    run(site, "status", 3)?;
    run(site, "attach eth1", 0)?;
    run(site, "status", 0)?;
    // Where none is there, nothing is filtered at all.
    for interface in ["eth0", "eth1"] {
        site.pbx.run(&["ip", "link", "del", interface])?;
    }
    run(site, "status", 9)?;
    wait_until(
        "health tells",
        || Ok(health(service)? == 503 && has_metric(service, "sipguard_attached 0")?),
    )?;
    run(site, "detach --all", 0)?;
    run(site, "status", 3).map(drop)
}

/// Whoever was refused still has to hear from `status` that the interface is not filtered.
#[test]
fn an_attach_that_is_refused_leaves_the_alarm() -> Result<()> {
    let site = two_interfaces()?;
    site.pbx.run(&["ip", "link", "del", "eth1"])?;
    add_interface(&site)?;
    let other = Guard::new(&site.pbx, &neighbour("SIPGUARD", "sipguard")?);
    other.attach(&["eth1"])?;
    let output = run(&site, "attach eth1", 5)?;
    ensure!(output.stderr.contains("another sipguard"), "{output:?}");
    let output = run(&site, "status", 3)?;
    ensure!(output.stderr.contains("nothing is filtered on eth1"), "{output:?}");
    let first = output.stdout.lines().next().unwrap_or_default();
    ensure!(first.starts_with("ENFORCING") && first.ends_with("; UNFILTERED: eth1"), "{output:?}");
    ensure!(output.stdout.contains(" unfiltered "), "{output:?}");
    drop(other);
    run(&site, "attach eth1", 0)?;
    run(&site, "status", 0).map(drop)
}

/// As of a server of dial-in lines: there are more names than slots.
#[test]
fn interfaces_that_come_under_ever_other_names_find_room() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    for number in 0..=IFACE_SLOTS {
        let name = format!("ppp{number}");
        let [here, there] = [1, 2].map(|host| format!("10.79.{number}.{host}/24"));
        veth(&site.pbx, &name, &here, &site.phone, &name, &there, true)?;
        run(&site, &format!("attach {name}"), 0).with_context(|| name.clone())?;
        site.pbx.run(&["ip", "link", "del", &name])?;
    }
    let output = run(&site, "status -o json", 9)?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    let rows = report["interfaces"].as_array().context("interfaces")?;
    let native = rows.iter().filter(|row| row["mode"] == "native").count();
    ensure!(rows.len() == IFACE_SLOTS as usize && native == 1, "{report}");
    Ok(())
}

#[test]
fn another_namespace_is_no_alarm() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let program = neighbour("SIPGUARD", "sipguard")?;
    let mut command = site.phone.command(&program);
    command
        .args(["status", "-o", "json"])
        .env("SIPGUARD_PINS", site.guard.pins())
        .env("SIPGUARD_STORE", site.guard.store());
    let output = command.output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.success() && report["interfaces"][0]["mode"] == "elsewhere", "{report}");
    Ok(())
}

#[test]
fn a_bpffs_that_would_not_last_is_refused() -> Result<()> {
    let site = Site::new(true)?;
    let program = neighbour("SIPGUARD", "sipguard")?;
    // As `ip netns exec` does: mounts of its own, in which /sys has no bpffs.
    let script = format!(
        "mount --make-rslave / && mount -t tmpfs none /sys/fs/bpf && umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf && exec {} attach eth0",
        program.display()
    );
    let mut command = site.pbx.command("unshare");
    command
        .args(["--mount", "sh", "-c", &script])
        .env("SIPGUARD_PINS", site.guard.pins())
        .env("SIPGUARD_STORE", site.guard.store());
    let output = command.env("SIPGUARD_CONFIG", "/dev/null").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("nsenter --net="), "{output:?}");
    ensure!(!site.guard.pins().exists(), "something was pinned");
    Ok(())
}

#[test]
fn a_tunnel_without_ethernet_is_refused() -> Result<()> {
    let site = Site::new(true)?;
    if site.pbx.run(&["ip", "tuntap", "add", "tun0", "mode", "tun"]).is_err() {
        println!("skipped: a_tunnel_without_ethernet_is_refused (this kernel has no tun devices)");
        return Ok(());
    }
    site.pbx.run(&["ip", "link", "set", "tun0", "up"])?;
    let output = run(&site, "attach tun0 eth0", 5)?;
    ensure!(output.stderr.contains("without an Ethernet header"), "{output:?}");
    run(&site, "status", 3).map(drop)
}

#[test]
fn a_guard_that_is_weaker_than_it_could_be_says_so() -> Result<()> {
    let site = Site::new(true)?;
    let program = neighbour("SIPGUARD", "sipguard")?;
    // A kernel without BTF, as far as the guard sees.
    let without_btf = |words: &str| {
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs none /sys/kernel/btf && exec {} {words}",
            program.display()
        );
        let mut command = site.pbx.command("unshare");
        command.args(["--mount", "sh", "-c", &script]).env("SIPGUARD_PINS", site.guard.pins());
        command.env("SIPGUARD_STORE", site.guard.store()).env("SIPGUARD_CONFIG", "/dev/null").output()
    };
    let output = without_btf("attach eth0")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.matches("weaker than it could be").count() == 2, "{said}");
    let report: Value = serde_json::from_slice(&without_btf("status -o json")?.stdout)?;
    let what: Vec<_> = report["weaknesses"]
        .as_array()
        .context("weaknesses")?
        .iter()
        .map(|one| one["what"].clone())
        .collect();
    ensure!(what == ["sockets", "open-connections"], "{report}");
    let metrics = without_btf("counters --format prometheus")?;
    ensure!(
        String::from_utf8_lossy(&metrics.stdout).contains("sipguard_weakness{what=\"sockets\"} 1"),
        "{metrics:?}"
    );
    run(&site, "detach --all", 0)?;
    let output = run(&site, "attach eth0", 0)?;
    ensure!(output.stderr.is_empty(), "{output:?}");
    let report = site.guard.json(&["status"])?;
    ensure!(report["weaknesses"].as_array().is_some_and(Vec::is_empty), "{report}");
    Ok(())
}

#[test]
fn of_two_that_attach_at_once_the_second_says_so() -> Result<()> {
    for _ in 0..10 {
        let site = Site::new(true)?;
        let scratch = Scratch::new("attach")?;
        let start = |name: &str| -> Result<(Running, std::path::PathBuf)> {
            let path = scratch.join(name);
            let mut command = site.guard.command(&["attach", "eth0"]);
            command.stdout(std::fs::File::create(&path)?).stderr(Stdio::inherit());
            Ok((Running::start("sipguard attach", &mut command)?, path))
        };
        let both = [start("one")?, start("other")?];
        let mut said = Vec::new();
        for (mut one, path) in both {
            wait_until("it ends", || Ok(one.try_wait()?.is_some()))?;
            ensure!(one.try_wait()?.is_some_and(|status| status.success()), "it failed");
            said.push(std::fs::read_to_string(path)?);
        }
        said.sort();
        ensure!(
            said[0].starts_with("eth0: attached already")
                && said[1].starts_with("eth0: attached in native mode"),
            "{said:?}"
        );
        let parent = site.guard.pins().parent().context("a directory")?;
        let name = format!("{}%new%", site.guard.pins().file_name().unwrap_or_default().to_string_lossy());
        let left = std::fs::read_dir(parent)?
            .flatten()
            .filter(|one| one.file_name().to_string_lossy().starts_with(&name));
        ensure!(left.count() == 0, "pins that were begun are left");
    }
    Ok(())
}

#[test]
fn an_attach_that_was_killed_at_any_moment_hinders_nobody() -> Result<()> {
    let site = Site::new(true)?;
    for delay_ms in [1, 5, 20, 60, 120, 250, 400, 700] {
        let mut command = site.guard.command(&["attach", "eth0"]);
        let mut process =
            Running::start("sipguard attach", command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        process.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait_until("the process is gone", || Ok(process.try_wait()?.is_some()))?;
        run(&site, "block 192.0.2.7", 0)?;
        run(&site, "attach eth0", 0)?;
        let rules = site.guard.rules()?;
        ensure!(rules.len() == 1 && rules[0]["in_force"] == true, "killed after {delay_ms} ms: {rules:?}");
        run(&site, "unblock --all", 0)?;
        run(&site, "detach --all", 0)?;
        let parent = site.guard.pins().parent().context("a directory")?;
        let name = site.guard.pins().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let left = std::fs::read_dir(parent)?
            .flatten()
            .filter(|one| one.file_name().to_string_lossy().starts_with(&name));
        ensure!(left.count() == 0, "pins are left after a kill at {delay_ms} ms");
    }
    Ok(())
}

#[test]
fn pins_that_can_t_be_read_are_not_called_absent() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let program = neighbour("SIPGUARD", "sipguard")?;
    // A user with the capabilities, whom the modes of the directories keep out.
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps",
        "+bpf,+net_admin,+perfmon",
    ]);
    command.args(["--ambient-caps", "+bpf,+net_admin,+perfmon", "--"]).arg(&program).arg("status");
    command.env("SIPGUARD_PINS", site.guard.pins()).env("SIPGUARD_STORE", site.guard.store());
    let output = command.process_group(0).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(4) && said.contains("permission denied"), "{output:?}");
    Ok(())
}

/// A bridge and its port, attached together or one after the other: each packet would be judged and counted twice.
#[test]
fn interfaces_that_have_the_same_packets_are_not_attached_together() -> Result<()> {
    let site = Site::new(true)?;
    site.pbx.run(&["ip", "link", "add", "br0", "type", "bridge"])?;
    site.pbx.run(&["ip", "link", "set", Site::INTERFACE, "master", "br0"])?;
    let refused = site.guard.run(&["attach", Site::INTERFACE, "br0"])?.expect(1)?;
    ensure!(refused.stderr.contains("eth0 and br0 have the same packets"), "{}", refused.stderr);
    ensure!(!site.guard.pins().exists(), "something is left");
    site.guard.attach(&[Site::INTERFACE])?;
    site.guard.run(&["attach", "br0"])?.expect(1)?;
    let status = site.guard.json(&["status"])?;
    ensure!(status["interfaces"].as_array().map(Vec::len) == Some(1), "{status}");
    Ok(())
}
