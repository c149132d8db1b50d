//! The switches of checks by command and by file: for everybody, for devices, for a trunk; and what comes of them on real connections.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::{Reason, abi::CheckSwitches};
use sipguard_core::{pins::Pins, policy::PolicyMaps};
use sipguard_tests::{
    application::{PATIENCE, Server, expect_same, sip, udp, uninterrupted, wait_until},
    guard::{Guard, Site},
    message::{OPTIONS, bent},
    scratch::Scratch,
};

fn run(guard: &Guard, words: &str) -> Result<String> {
    Ok(guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(0)?.stdout)
}

/// A guard with the phone's IPv4 address as a trunk, so that it is a trunk by IPv4 and a device by IPv6.
fn site() -> Result<Site> {
    let site = Site::guarded(true, &[])?;
    run(&site.guard, "trunk add carrier --peer 10.77.0.2")?;
    Ok(site)
}

/// What the kernel has for devices and for the trunk.
fn in_force(guard: &Guard) -> Result<[CheckSwitches; 2]> {
    let policy = PolicyMaps::open(&Pins::new(guard.pins()))?.read()?;
    Ok([policy.checks, policy.trunks[1].checks])
}

fn checks() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| reason.is_check())
}

#[test]
fn each_check_is_switched_for_whom_it_is_said() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    let none = [CheckSwitches::NONE; 2];
    for reason in checks() {
        let (name, bit) = (reason.name(), reason.check_bit());
        for (options, devices, trunk) in
            [("", true, true), (" --devices", true, false), (" --trunk carrier", false, true)]
        {
            for (state, entry) in [
                ("off", CheckSwitches { off: bit, monitored: 0 }),
                ("monitor", CheckSwitches { off: 0, monitored: bit }),
            ] {
                let words = format!("checks set {name} {state}{options}");
                if state == "off" && reason.loses_framing() {
                    let said = guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(2)?;
                    for part in [name, "can't be off", "uncertain where the message ends", "`monitor`"] {
                        ensure!(said.stderr.contains(part), "{words}: it said {}", said.stderr);
                    }
                    ensure!(in_force(guard)? == none, "{words} changed something");
                    continue;
                }
                run(guard, &words)?;
                let of = |is: bool| if is { entry } else { CheckSwitches::NONE };
                ensure!(in_force(guard)? == [of(devices), of(trunk)], "{words}: {:?}", in_force(guard)?);
                ensure!(run(guard, &words)?.starts_with("nothing changed"), "{words} again");
            }
            run(guard, &format!("checks clear {name}{options}"))?;
            ensure!(in_force(guard)? == none, "{name}{options} was not taken back");
        }
    }
    Ok(())
}

#[test]
fn one_of_ones_own_comes_before_everybodys_and_all_are_kept() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    let [number, lf] = [Reason::BadNumber, Reason::BareLf].map(Reason::check_bit);
    run(guard, "checks set bad-number off")?;
    run(guard, "checks set bad-number refuse --devices")?;
    run(guard, "checks set bare-lf monitor --trunk carrier")?;
    let expected = [CheckSwitches::NONE, CheckSwitches { off: number, monitored: lf }];
    ensure!(in_force(guard)? == expected, "{:?}", in_force(guard)?);
    let rows = guard.rows(&["checks", "list"])?;
    let told: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {} {}", row["scope"], row["trunk"], row["reason"], row["state"]))
        .map(|line| line.replace('"', ""))
        .collect();
    ensure!(
        told == [
            "everybody null bad-number off",
            "trunk carrier bare-lf monitor",
            "devices null bad-number refuse"
        ],
        "{told:?}"
    );
    // Kept, brought back, and found in the kernel when the store is gone.
    run(guard, "detach --all")?;
    guard.attach(&[Site::INTERFACE])?;
    ensure!(in_force(guard)? == expected, "they did not come back: {:?}", in_force(guard)?);
    std::fs::remove_file(guard.store())?;
    run(guard, "block 192.0.2.7")?;
    ensure!(in_force(guard)? == expected, "they were not found in the kernel: {:?}", in_force(guard)?);
    run(guard, "trunk remove recovered-1")?;
    ensure!(guard.rows(&["checks", "list"])?.is_empty(), "a trunk that is gone has checks");
    for (words, part) in [
        ("checks set bad-nubmer off", "`bad-nubmer` is no check (did you mean bad-number?): write one of"),
        ("checks set blocked-host off", "`blocked-host` is no check of messages"),
        ("checks set bad-number on", "`on` is none of refuse, monitor, off"),
    ] {
        let said = guard.run(&words.split(' ').collect::<Vec<_>>())?.expect(2)?;
        ensure!(said.stderr.contains(part), "{words}: it said {}", said.stderr);
    }
    let said = guard.run(&["checks", "set", "bad-number", "off", "--trunk", "nobody"])?.expect(2)?;
    ensure!(said.stderr.contains("there is no trunk nobody"), "it said {}", said.stderr);
    Ok(())
}

/// Messages with one fault, on one connection of the phone to an address of the PBX, and as datagrams: whether all got there.
fn passes(site: &Site, address: IpAddr, message: &[u8]) -> Result<bool> {
    let (phone, application) = Server::listen(&site.pbx, sip(address))?.connect(&site.phone)?;
    let all = [message, OPTIONS].concat();
    phone.offer(&all)?;
    let by_tcp = application.wait_for(all.len()).is_ok_and(|bytes| bytes == all);
    let socket = udp(&site.pbx, sip(address))?;
    socket.set_read_timeout(Some(PATIENCE / 10))?;
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    site.phone.enter(|| UdpSocket::bind((any, 0))?.send_to(message, sip(address)))??;
    let mut read = [0; 2048];
    let by_udp = uninterrupted(|| socket.recv(&mut read));
    ensure!(by_tcp == by_udp.is_ok(), "TCP: {by_tcp}, UDP: {by_udp:?}");
    if let Ok(count) = by_udp {
        expect_same(&read[..count], message)?;
    }
    Ok(by_tcp)
}

#[test]
fn what_is_off_or_monitored_gets_there_and_is_told() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    let [trunk, device] = Site::PBX;
    let twice = bent(OPTIONS, "Call-ID", "t: <sip:c@h>\r\nCall-ID");
    ensure!(!passes(&site, trunk, &twice)?, "it is refused at first");
    run(guard, "checks set duplicate-header monitor --trunk carrier")?;
    ensure!(passes(&site, trunk, &twice)?, "the trunk's is only counted");
    ensure!(!passes(&site, device, &twice)?, "a device's is refused");
    let counted = |action: &str| -> Result<u64> {
        let rows = guard.counter_rows()?;
        let of =
            |row: &&sipguard_tests::guard::Counter| row.reason == "duplicate-header" && row.action == action;
        Ok(rows.iter().filter(of).map(|row| row.packets).sum())
    };
    wait_until("both are counted", || Ok(counted("would-reset")? == 1 && counted("would-drop")? == 1))?;
    // Told by whoever asks.
    let status = run(guard, "status")?;
    ensure!(status.contains("check duplicate-header: monitor for trunk carrier\n"), "{status}");
    let shown = guard.json(&["status"])?;
    ensure!(shown["checks"][0]["state"] == "monitor" && shown["checks"][0]["trunk"] == "carrier", "{shown}");
    for verb in ["lookup", "explain"] {
        let said = run(guard, &format!("{verb} 10.77.0.2"))?;
        ensure!(said.contains("check duplicate-header: monitor\n"), "{said}");
        let said = run(guard, &format!("{verb} 192.0.2.9"))?;
        ensure!(!said.contains("check "), "{said}");
        let said = run(guard, &format!("{verb} duplicate-header"))?;
        for part in [
            "From, To, Call-ID or CSeq twice",
            "written in: RFC 3261 7.3.1",
            "stops: CVE-2018-14767",
            "sent without harm by: OpenSIPS",
            "now: refuse for devices\n",
            "now: monitor for trunk carrier\n",
            "let it pass from a trunk: sipguard checks set duplicate-header off --trunk NAME\n",
        ] {
            ensure!(said.contains(part), "{part} is missing in {said}");
        }
    }
    let said = guard.run(&["explain", "duplicate-headers"])?.expect(2)?;
    ensure!(
        said.stderr.contains("`duplicate-headers` (did you mean duplicate-header?) is neither an address nor a SIP identity nor a reason"),
        "{}",
        said.stderr
    );
    let said = run(guard, "explain blocked-host")?;
    ensure!(said.contains("The source address is blocked.") && said.contains("unblock ADDR\n"), "{said}");
    // The remedy that is told works, and without it all is as before.
    run(guard, "checks set duplicate-header off --devices")?;
    ensure!(passes(&site, device, &twice)?, "a device's is not looked for");
    let told = counted("would-reset")?;
    ensure!(passes(&site, device, &twice)? && counted("would-reset")? == told, "what is off is not counted");
    run(guard, "checks clear --devices")?;
    ensure!(!passes(&site, device, &twice)?, "a device's is refused again");
    Ok(())
}

/// Whatever is set, in monitor mode it only counts; who looks at what is set is told so.
#[test]
fn whoever_only_counts_is_told() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    let lists =
        ["limit list", "checks list", "explain bad-number", "explain rate-register", "explain bare-lf"];
    run(guard, "checks set bad-number refuse --devices")?;
    run(guard, "checks set bad-number refuse --trunk carrier")?;
    run(guard, "checks set bare-lf monitor")?;
    run(guard, "limit set --trunk carrier --of register 20/s")?;
    let by_whom = |devices: &str, trunk: &str| -> Result<()> {
        for list in ["limit list", "checks list"] {
            let words: Vec<&str> = list.split(' ').collect();
            for row in guard.rows(&words)? {
                let whose = if row["scope"] == "trunk" { trunk } else { devices };
                ensure!(row["monitored_by"].as_str().unwrap_or("nobody") == whose, "{list}: {row}");
            }
        }
        for list in lists {
            let told = run(guard, list)?;
            for whose in ["guard", "trunk"] {
                let is = [devices, trunk].contains(&whose) && list != "explain bare-lf";
                let text = format!("; only counted: mode monitor of the {whose}");
                ensure!(told.contains(&text) == is, "{list}, {devices}, {trunk}: {told}");
            }
        }
        Ok(())
    };
    by_whom("nobody", "nobody")?;
    run(guard, "mode monitor")?;
    by_whom("guard", "guard")?;
    run(guard, "mode monitor --trunk carrier")?;
    by_whom("guard", "trunk")?;
    run(guard, "mode enforce")?;
    by_whom("nobody", "trunk")?;
    run(guard, "mode enforce --trunk carrier")?;
    run(guard, "mode monitor")?;
    by_whom("guard", "nobody")
}

#[test]
fn a_file_says_it_and_says_it_no_more() -> Result<()> {
    let site = site()?;
    let guard = &site.guard;
    let scratch = Scratch::new("checks")?;
    let path = scratch.join("sipguard.toml");
    let reload = |text: &str, status: i32| {
        std::fs::write(&path, text)?;
        guard.run(&["reload", "--config", path.to_str().context("a path")?])?.expect(status)
    };
    let [number, lf, name] =
        [Reason::BadNumber, Reason::BareLf, Reason::BadHeaderName].map(Reason::check_bit);
    let text = "[checks]\nbad-number = \"off\"\ndevices = { bad-number = \"monitor\" }\n\n[trunks.carrier]\npeers = [\"10.77.0.2\"]\n\n\
                [trunks.carrier.checks]\nbare-lf = \"monitor\"\nbad-header-name = \"off\"\n";
    reload(text, 0)?;
    let expected =
        [CheckSwitches { off: 0, monitored: number }, CheckSwitches { off: number | name, monitored: lf }];
    ensure!(in_force(guard)? == expected, "{:?}", in_force(guard)?);
    let said = reload(text, 0)?.stdout;
    ensure!(!said.contains("->"), "it is so already: {said}");
    // A mistake changes nothing, and says where and what.
    for (wrong, part) in [
        ("[checks]\nbare-cr = \"off\"\n", "`bare-cr` can't be off"),
        ("[checks.devices]\nbad-content-length = \"off\"\n", "`bad-content-length` can't be off"),
        ("[checks]\nbad-number = \"on\"\n", "`on` is none of refuse, monitor, off"),
        ("[checks]\nbad-nubmer = \"off\"\n", "no limit and no check `bad-nubmer`"),
        (
            "[trunks.x]\npeers = [\"192.0.2.1\"]\nchecks = { valid = \"off\" }\n",
            "`valid` is no check of messages",
        ),
    ] {
        let said = reload(wrong, 6)?.stderr;
        ensure!(said.contains(part) && said.contains("sipguard.toml:"), "{wrong}: it said {said}");
        ensure!(in_force(guard)? == expected, "{wrong}: something changed");
    }
    reload("[trunks.carrier]\npeers = [\"10.77.0.2\"]\n", 0)?;
    ensure!(in_force(guard)? == [CheckSwitches::NONE; 2], "{:?}", in_force(guard)?);
    Ok(())
}
