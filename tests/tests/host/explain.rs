//! What `explain`, `limit` and `checks` say of what is set, and how it is changed.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::scratch::Scratch;

use crate::cli::said;

/// Runs command lines that succeed, and gives what the last one said.
fn told(store: &Scratch, lines: &[&str]) -> Result<String> {
    let mut text = String::new();
    for words in lines {
        text = said(words, store)?;
        ensure!(text.ends_with("exit status 0\n"), "{text}");
    }
    Ok(text)
}

fn expect(text: &str, parts: &[&str], not: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "`{part}` is missing in {text}");
    }
    for part in not {
        ensure!(!text.contains(part), "`{part}` is in {text}");
    }
    Ok(())
}

/// Whatever stops something has a command that lets it pass, and each command that is told is one.
#[test]
fn each_reason_has_a_remedy_that_is_a_command() -> Result<()> {
    let store = Scratch::new("explain")?;
    told(&store, &["trunk add carrier --peer 192.0.2.7"])?;
    let mut commands = BTreeSet::new();
    for reason in Reason::ALL {
        let text = told(&store, &[&format!("explain {}", reason.name())])?;
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.split_once(": sipguard ")).map(|(_, line)| line).collect();
        ensure!(lines.is_empty() == (reason.class() == sipguard_common::Class::Pass), "{text}");
        commands.extend(lines.into_iter().map(str::to_owned));
    }
    for command in commands {
        let kind = ["open", "unfinished"].iter().any(|kind| command.contains(&format!("--of {kind}")));
        let mut line = command.split(" [").next().unwrap_or_default().to_owned();
        for (word, value) in [
            ("ADDR:PORT", "203.0.113.7:4001"),
            ("ADDRESS", "203.0.113.8"),
            ("ADDR", "203.0.113.7"),
            ("CIDR", "203.0.113.0/24"),
            ("USER@HOST", "1234@pbx.example"),
            ("TEXT", "scanner"),
            ("METHOD", "REGISTER"),
            ("TRANSPORT", "tcp"),
            ("COUNT", "5"),
            ("DURATION", "60s"),
            ("LIMIT", if kind { "7" } else { "20/s" }),
            ("trunk add NAME", "trunk add other"),
            ("NAME", "carrier"),
        ] {
            line = line.replace(word, value);
        }
        let text = said(&line, &store)?;
        // Nothing is attached, whose mode it were.
        let status = if line == "mode monitor" { 3 } else { 0 };
        ensure!(text.ends_with(&format!("exit status {status}\n")), "{command}: {text}");
    }
    Ok(())
}

#[test]
fn what_lifts_it_is_told() -> Result<()> {
    let store = Scratch::new("explain")?;
    for (reason, parts) in [
        ("method-denied", &["permit METHOD --from devices\n", "trunk set NAME --method all\n"][..]),
        ("transport-denied", &["permit TRANSPORT --from trunks\n", "trunk set NAME --transport all\n"]),
        ("blocked-host", &["unblock ADDR\n"]),
        ("blocked-prefix", &["unblock CIDR\n", "allow ADDR\n"]),
        ("blocked-device", &["unblock ADDR:PORT\n"]),
        ("blocked-identity", &["unblock sip:USER@HOST\n"]),
        ("blocked-user-agent", &["unblock --user-agent TEXT\n"]),
        ("banned-device", &["list ban\n", "unblock ADDR:PORT\n", "bans off\n"]),
        ("banned-address", &["list ban\n", "unblock ADDR\n", "bans off\n"]),
        ("SEQUENCE-GAP", &["sequence-gap: ", "it has no switch of its own", "mode monitor\n"]),
    ] {
        expect(&told(&store, &[&format!("explain {reason}")])?, parts, &[])?;
    }
    Ok(())
}

#[test]
fn a_limit_is_explained_with_what_holds() -> Result<()> {
    let store = Scratch::new("explain")?;
    let explain = "explain rate-register";
    let text = told(&store, &[explain])?;
    expect(
        &text,
        &["now: not told: there are no rules yet, and devices begin with 500/s burst 6000\n"],
        &[],
    )?;
    let text = told(&store, &["trunk add carrier --peer 192.0.2.7", explain])?;
    expect(
        &text,
        &[
            "now: 500/s burst 6000 for devices\n",
            "now: none for trunk carrier\n",
            "only count it: sipguard limit set --of register 500/s burst 6000 --monitor\n",
            "only count it of a trunk: sipguard limit set --trunk NAME --of register LIMIT --monitor\n",
            "let it pass of a trunk: sipguard limit clear --trunk NAME --of register\n",
        ],
        &["only counted"],
    )?;
    let set =
        ["limit clear --of register", "limit set --trunk carrier --of REGISTER 20/s --monitor", explain];
    let now = [
        "now: none for devices\n",
        "now: 20/s burst 40 for trunk carrier; only counted: set with --monitor\n",
    ];
    expect(&told(&store, &set)?, &now, &[])?;
    let json = told(&store, &["explain -j rate-register"])?;
    expect(&json, &["\"per_second\": 20", "\"untold\": null"], &[])?;
    let of = said("counters --by source --of REGISTER", &store)?;
    expect(&of, &["exit status 3\n"], &["tallied"])?;
    let set = ["limit set --of open 7", "explain open-connections"];
    expect(&told(&store, &set)?, &["now: 7 at once for devices\n", "limit set --of open 7 --monitor\n"], &[])
}

#[test]
fn a_check_is_explained_with_what_takes_it_back() -> Result<()> {
    let store = Scratch::new("explain")?;
    let explain = "explain bad-number";
    let offers = |whom: &str| format!("let it pass from {whom}: ");
    let [everybody, devices, trunk] = ["everybody", "devices", "a trunk"].map(offers);
    let text = told(&store, &["trunk add carrier --peer 192.0.2.7", explain])?;
    let back = "take that back: sipguard checks clear bad-number [--devices|--trunk NAME]\n";
    expect(&text, &[&everybody, &devices, &trunk, back], &[])?;
    let text = told(&store, &["checks set BAD-NUMBER off --devices"])?;
    expect(&text, &["; `sipguard explain bad-number` says what that lets through"], &[])?;
    let text = told(&store, &[explain])?;
    let back = "take back what is set for devices: sipguard checks clear bad-number --devices\n";
    expect(&text, &[&everybody, &trunk, back], &[&devices, "take that back"])?;
    let text = told(&store, &["checks set bad-number off", explain])?;
    let own = "take back what is set for everybody: sipguard checks clear bad-number\n";
    expect(&text, &[back, own], &[&devices, &everybody, &trunk])
}

#[test]
fn clearing_says_what_goes_and_what_stays() -> Result<()> {
    let store = Scratch::new("explain")?;
    let text = told(&store, &["limit list"])?;
    expect(&text, &["no rules yet; a new store has for devices: register 500/s burst 6000, "], &[])?;
    let text = told(&store, &["limit reset"])?;
    expect(&text, &["the default again: all for devices: register 500/s burst 6000"], &["nothing changed"])?;
    let text = told(&store, &["limit reset"])?;
    expect(&text, &["nothing changed, it is the default already: register 500/s burst 6000, "], &[])?;
    let text = told(&store, &["limit clear"])?;
    let parts = [
        "there were ",
        "register 500/s burst 6000",
        "unfinished 256 at once",
        "`sipguard limit reset` sets the default again",
    ];
    expect(&text, &parts, &[])?;
    expect(&told(&store, &["limit list"])?, &["no limits; `sipguard limit reset` sets the defaults\n"], &[])?;
    let text = told(&store, &["trunk add carrier --peer 192.0.2.7", "limit reset --trunk carrier"])?;
    expect(&text, &["nothing changed, there was no limit: all for trunk carrier"], &["default already"])?;
    let set = ["checks set bad-number off --devices", "checks set bare-lf monitor --trunk carrier"];
    told(&store, &set)?;
    let text = told(&store, &["checks clear bad-number"])?;
    expect(&text, &["nothing changed, it is set for devices (add --devices)"], &["carrier", "not set"])?;
    let text = told(&store, &["checks set bad-number off", "checks clear"])?;
    let stays = "no check is set any more for everybody; what is set for devices (add --devices), trunk carrier (add --trunk carrier) stays";
    expect(&text, &[stays], &[])?;
    let text = told(&store, &["checks clear --devices", "checks clear bare-lf --trunk carrier"])?;
    expect(&text, &["bare-lf is not set any more for trunk carrier"], &["stays"])
}
