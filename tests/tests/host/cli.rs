//! What the command line says, as snapshots. `INSTA_UPDATE=always` writes them anew; read the difference before you commit it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use sipguard_tests::{guard::neighbour, scratch::Scratch};

/// Output and exit status of a command line, with pins that do not exist and a store of its own.
pub(crate) fn said(words: &str, store: &Scratch) -> Result<String> {
    let output = Command::new(neighbour("SIPGUARD", "sipguard")?)
        .args(words.split_whitespace())
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-cli-test")
        .env("SIPGUARD_STORE", store.join("rules.db"))
        .env("SIPGUARD_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let status = output.status.code().context("an exit status")?;
    Ok(format!("$ sipguard {words}\n{out}{err}exit status {status}\n"))
}

fn all(lines: &[&str]) -> Result<String> {
    let store = Scratch::new("cli")?;
    lines.iter().map(|words| said(words, &store)).collect::<Result<Vec<_>>>().map(|said| said.join("\n"))
}

/// Verbs whose help is looked at.
const VERBS: &[&str] = &[
    "attach",
    "upgrade",
    "detach",
    "status",
    "block",
    "unblock",
    "allow",
    "unallow",
    "deny",
    "permit",
    "trunk",
    "trunk add",
    "limit",
    "limit set",
    "bans",
    "checks",
    "checks set",
    "list",
    "feed",
    "feed add",
    "feed refresh",
    "import",
    "export",
    "log",
    "lookup",
    "explain",
    "counters",
    "events",
    "capture",
    "top",
    "mode",
    "check",
    "reload",
    "crash",
    "replay",
    "serve",
    "config",
    "config show",
    "completion",
    "version",
];

#[test]
fn help() -> Result<()> {
    let mut lines = vec!["--help".to_owned()];
    lines.extend(VERBS.iter().map(|verb| format!("{verb} --help")));
    insta::assert_snapshot!(all(&lines.iter().map(String::as_str).collect::<Vec<_>>())?);
    Ok(())
}

#[test]
fn the_help_of_every_verb_is_looked_at() -> Result<()> {
    let help = said("--help", &Scratch::new("cli")?)?;
    let (groups, _) = help.split_once("\nOptions of every verb:\n").context("the verbs")?;
    // A line that continues another begins farther to the right.
    let verbs = groups.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let verbs: Vec<&str> = verbs.filter(|verb| !verb.is_empty() && *verb != "help").collect();
    assert!(verbs.len() > 20, "{verbs:?}");
    let unseen: Vec<_> = verbs.iter().filter(|verb| !VERBS.contains(verb)).collect();
    assert!(unseen.is_empty(), "{unseen:?} are not in the list");
    Ok(())
}

#[test]
fn mistakes() -> Result<()> {
    insta::assert_snapshot!(all(&[
        "",
        "blok 203.0.113.9",
        "block",
        "block phone",
        "block 203.0.113.7/24",
        "block 203.0.113.7:0",
        "block 203.0.113.7:70000",
        "block 203.0.113.0/24:5060",
        "block 2001:db8::5:5060",
        "block 224.0.0.0/4",
        "feed add Drop https://lists.example/",
        "feed add drop ftp://lists.example/",
        "feed add drop bad.txt",
        "feed add drop /nowhere/bad.txt",
        "feed add drop /etc/hostname --every 100ms",
        "feed add drop /etc/hostname --keep 5m",
        "feed add drop /etc/hostname --keep permanent",
        "feed add crowdsec /etc/hostname --format crowdsec",
        "feed refresh --force",
        "feed refresh drop",
        "feed remove drop",
        "block 2000::/3",
        "allow 203.0.113.7:5060",
        "list deny --origin feed",
        "list deny --expiring 1h",
        "unallow 203.0.113.7:5060",
        "block 203.0.113.7 --for soon",
        "block 203.0.113.7 --for 0",
        "block 203.0.113.7 --origin two_words,or_more",
        "list --expiring soon",
        "replay",
        "replay capture.pcap --pbx phone",
        "replay capture.pcap --flows 7",
        "replay no-such-file.pcap",
        "replay no-such-file.pcap --config no-such-file.toml",
        "allow phone",
        "unallow",
        "lookup nowhere",
        "deny register/tls --from devices",
        "deny sctp --from trunks",
        "deny tcp/udp --from trunks",
        "deny tcp --from carriers",
        "deny tcp",
        "deny --from trunks",
        "permit --from trunks",
        "permit tcp",
        "trunk",
        "trunk add Carrier --peer 192.0.2.7",
        "trunk add trunks --peer 192.0.2.7",
        "trunk add carrier",
        "trunk add carrier --peer phone",
        "trunk add carrier --peer 0.0.0.0/1",
        "trunk add carrier --peer ::/0",
        "trunk add carrier --peer 192.0.2.7 --transport sctp",
        "trunk add carrier --peer 192.0.2.7 --method CALL",
        "trunk add carrier --peer 192.0.2.7 --profile loose",
        "trunk set carrier --mode drop",
        "mode --trunk carrier",
        "checks",
        "checks set bare-lf off",
        "checks set bad-nubmer off",
        "checks set bad-number on",
        "checks set bad-number enforce",
        "checks set BAD-NUBMER off",
        "checks set bad-number off --devices --trunk carrier",
        "explain",
        "explain bad-nubmer",
        "explain Bad-Nubmer",
        "trunk show carrier",
        "top --once -d 0",
        "events --since -5m",
        "events --since 2099-01-01",
        "limit set",
        "limit set 20",
        "limit set 0/s",
        "limit set 20/s burst",
        "limit set 20/s burst none",
        "limit set --monitor",
        "limit set 20/s monitor",
        "limit set none --monitor",
        "limit set --of open off",
        "limit reset --trunk carrier",
        "limit set --of calls 20/s",
        "limit set --per carrier --of invite 20/s",
        "limit set --per trunk 20/s",
        "limit clear --per trunk",
        "limit clear carrier",
        "limit set --trunk carrier --of invite 20/s",
        "attach",
        "attach nosuchif0",
        "attach a-name-that-is-much-too-long",
        "attach lo --port 0",
        "attach lo --confirm permanent",
        "attach lo --xdp-mode offload",
        "mode drop",
        "counters --by weather",
        "list blocks",
    ])?);
    Ok(())
}

#[test]
fn mistakes_in_lists() -> Result<()> {
    let store = Scratch::new("cli")?;
    let mut text = String::new();
    for (name, content) in [
        ("a.txt", "203.0.113.7\n  203.0.113.9 phone # no address\n"),
        ("b.txt", "203.0.113.0/24\n203.0.113.7/24\n"),
        ("c.csv", "address,rule\n203.0.113.7,block\n203.0.113.8,drop\n"),
        ("d.csv", "address,reason\n203.0.113.7,\"a reason\n"),
        ("e.csv", "reason,address,ends\nwhy,203.0.113.7,tomorrow\n"),
        ("f.csv", "reason,address\nwhy\n"),
        ("g.csv", "name,number\nphone,7\n"),
        ("h.json", "[\n  \"203.0.113.7\",\n  \"phone\"\n]\n"),
        ("i.json", "{ \"rows\": [\n  { \"source\": \"203.0.113.7\", \"mode\": \"soft\" }\n] }\n"),
        ("j.json", "[ \"203.0.113.7\",\n"),
        ("k.json", "[ 7 ]"),
        ("l.json", "[ { \"rule\": \"block\" } ]"),
        ("m.json", "[ { \"source\": \"203.0.113.7\", \"origin\": \"two words\" } ]"),
        ("n.ipset", "create bad hash:ip,port\nadd bad 203.0.113.7,udp:5060\n"),
        ("o.ipset", "add bad 203.0.113.7 timeout soon\n"),
        ("p.ipset", "add bad\n"),
        ("q.ipset", "add bad 203.0.113.7 comment why\n"),
        ("r.ipset", "swap bad good\n"),
        ("u.txt", "203.0.113.7\n  240.0.0.0/4\n"),
        ("v.csv", "comment,network\nmartians,::ffff:0:0/96\n"),
        ("w.json", "[\n  \"203.0.113.7\",\n  { \"cidr\": \"2000::/3\" }\n]\n"),
        ("x.ipset", "add bad 203.0.113.7\nadd bad 0.0.0.0/1 timeout 5\n"),
        ("t.csv", "address,rule\n203.0.113.7:4001,allow\n"),
    ] {
        let file = store.write(name, content)?;
        let file = file.to_string_lossy();
        text += &format!("{}\n", said(&format!("import {file}"), &store)?.replace(&*file, name));
    }
    std::fs::write(store.join("s.txt"), b"203.0.113.7\n\xff\n")?;
    for name in ["s.txt", "missing.txt"] {
        let file = store.join(name);
        let file = file.to_string_lossy();
        text += &format!("{}\n", said(&format!("import {file}"), &store)?.replace(&*file, name));
    }
    insta::assert_snapshot!(text + &said("export --format txt", &store)?);
    Ok(())
}

#[test]
fn not_attached() -> Result<()> {
    insta::assert_snapshot!(all(&[
        "status",
        "status eth0",
        "block 203.0.113.9",
        "block 203.0.113.9:4001",
        "block 203.0.113.9:4001",
        "unblock 203.0.113.9:4001",
        "unblock 203.0.113.9",
        "unblock --all",
        "allow 203.0.113.9",
        "allow 203.0.113.9",
        "unallow 203.0.113.9",
        "list",
        "trunk add carrier --peer 192.0.2.7 --method INVITE",
        "trunk show nobody",
        "trunk remove carrier",
        "trunk list",
        "deny tcp --from trunks",
        "deny tcp --from trunks",
        "permit tcp --from trunks",
        "deny",
        "lookup 203.0.113.9",
        "counters",
        "counters --format prometheus",
        "mode",
        "mode monitor",
        "detach eth0",
        "detach --all",
    ])?);
    Ok(())
}

#[test]
fn a_trunk_is_shown_with_its_own_checks_and_limits() -> Result<()> {
    let store = Scratch::new("cli")?;
    for words in [
        "trunk add carrier --peer 192.0.2.7",
        "trunk add other --peer 192.0.2.8",
        "checks set bad-number off --trunk carrier",
        "checks set bare-lf monitor",
        "limit set --trunk carrier --of register 20/s --monitor",
        "limit set --trunk carrier --of open 7",
        "limit set --devices --of invite 20/s",
    ] {
        assert!(said(words, &store)?.ends_with("exit status 0\n"), "{words}");
    }
    let table = said("trunk show carrier", &store)?;
    assert!(table.contains("  checks of its own: bad-number off\n"), "{table}");
    assert!(table.contains("  limits: register 20/s burst 40 monitor, open 7 at once\n"), "{table}");
    let json = |name: &str| -> Result<serde_json::Value> {
        let told = said(&format!("trunk show -j {name}"), &store)?;
        let end = told.rfind('}').context("an object")?;
        Ok(serde_json::from_str(&told[told.find('{').context("an object")?..=end])?)
    };
    let (carrier, other) = (json("carrier")?, json("other")?);
    let list = |one: &serde_json::Value, key: &str| one[key].as_array().map(Vec::len);
    assert_eq!([list(&carrier, "checks"), list(&carrier, "limits")], [Some(1), Some(2)], "{carrier}");
    assert_eq!([list(&other, "checks"), list(&other, "limits")], [Some(0), Some(0)], "{other}");
    assert!(carrier["checks"][0]["state"] == "off" && carrier["limits"][1]["at_once"] == 7, "{carrier}");
    assert!(said("trunk show other", &store)?.contains("  checks of its own: none\n  limits: none\n"));
    Ok(())
}

/// What a reason means is documentation. What holds now is added for who may read it, and nobody is told a guess instead.
#[test]
fn a_reason_is_explained_without_privileges() -> Result<()> {
    let store = Scratch::new("cli")?;
    let with = said("explain bad-number", &store)?;
    let without = |words: &str| -> Result<(Option<i32>, String)> {
        let sipguard = neighbour("SIPGUARD", "sipguard")?;
        let output = Command::new("setpriv")
            .args(["--bounding-set", "-bpf,-net_admin,-perfmon,-sys_admin", "--inh-caps", "-all"])
            .arg(sipguard)
            .args(words.split(' '))
            .env("SIPGUARD_STORE", store.join("rules.db"))
            .output()?;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        Ok((output.status.code(), text))
    };
    let (status, text) = without("explain bad-number")?;
    let documentation: Vec<&str> = with.lines().filter(|line| line.contains(": sipguard ")).collect();
    assert!(status == Some(0) && documentation.len() == 4, "{text}{with}");
    assert!(documentation.iter().all(|line| text.contains(line)), "{text}");
    assert!(with.contains("  now: refuse for devices\n") && !text.contains("now: refuse"), "{text}{with}");
    assert!(text.contains("  now: not told: privileges are missing (CAP_BPF,"), "{text}");
    let (status, text) = without("explain -j bad-number")?;
    assert!(status == Some(0) && text.contains("\"untold\": \"privileges are missing"), "{text}");
    let (status, text) = without("explain bad-nubmer")?;
    assert!(status == Some(2) && text.contains("(did you mean bad-number?)"), "{text}");
    let (status, text) = without("explain rate-register")?;
    assert!(status == Some(0) && text.contains("  now: not told: privileges are missing"), "{text}");
    assert_eq!(without("lookup 203.0.113.7")?.0, Some(4), "what is no documentation");
    std::fs::create_dir(store.join("rules.db"))?;
    assert!(said("explain bad-number", &store)?.contains("now: not told: "), "a store that can't be read");
    Ok(())
}

/// What an option or a verb was called before does the same still, and no help names it.
#[test]
fn old_names() -> Result<()> {
    for (old, new) in [
        ("ban 203.0.113.7 --source feed --reason scans", "block 203.0.113.7 --origin feed --comment scans"),
        ("unban --all --source feed", "unblock --all --origin feed"),
        ("allow 203.0.113.7 --source list --reason ours", "allow 203.0.113.7 --origin list --comment ours"),
        ("unallow 203.0.113.7 --source list", "unallow 203.0.113.7 --origin list"),
        ("list --source feed", "list --origin feed"),
        ("log --source feed", "log --origin feed"),
        ("export --format txt --source feed", "export --format txt --origin feed"),
        ("import /dev/null --source feed --replace", "import /dev/null --origin feed --replace"),
        ("deny tcp --from trunks --reason storm", "deny tcp --from trunks --comment storm"),
        ("trunk add main --peer 192.0.2.7 --reason ours", "trunk add main --peer 192.0.2.7 --comment ours"),
        (
            "attach nosuchif0 --mode generic --limit line-bytes=8192",
            "attach nosuchif0 --xdp-mode generic --check line-bytes=8192",
        ),
        ("capture --limit 2K", "capture --max-size 2K"),
        ("limit set --per source --of register 20/s", "limit set --devices --of register 20/s"),
    ] {
        let outcome = |words: &str| -> Result<String> {
            let said = said(words, &Scratch::new("cli")?)?;
            Ok(said.split_once('\n').map(|(_, outcome)| outcome.to_owned()).unwrap_or_default())
        };
        let [was, is] = [outcome(old)?, outcome(new)?];
        assert!(was == is && !was.contains("exit status 2\n"), "{old}: {was}\n{new}: {is}");
        let verb = old.split(' ').next().unwrap_or_default();
        let help = outcome(&format!("{verb} --help"))?;
        for word in old.split(' ').filter(|word| word.starts_with("--") && !new.contains(word)) {
            assert!(!help.contains(&format!("{word} ")), "the help of {verb} names {word}");
        }
    }
    Ok(())
}

#[test]
fn version_and_completion() -> Result<()> {
    let store = Scratch::new("cli")?;
    assert!(
        said("version", &store)?
            .starts_with(&format!("$ sipguard version\nsipguard {} (ABI ", env!("CARGO_PKG_VERSION")))
    );
    assert!(said("version -j", &store)?.contains("\"schema\": \"sipguard.version/1\""));
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&format!("completion {shell}"), &store)?;
        assert!(script.contains("SIPGUARD_COMPLETE") && script.ends_with("exit status 0\n"), "{shell}");
    }
    Ok(())
}

/// What bash offers for the last of these words.
fn offered(words: &[&str], store: &Scratch) -> Result<Vec<String>> {
    let sipguard = neighbour("SIPGUARD", "sipguard")?;
    let path = sipguard.parent().context("a directory")?.display();
    let script = format!(
        "PATH={path}:$PATH; source <(sipguard completion bash); COMP_WORDS=({}); COMP_CWORD={}; COMP_TYPE=9; \
         _clap_complete_sipguard sipguard '{}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
        words[words.len() - 1],
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-cli-test")
        .env("SIPGUARD_STORE", store.join("rules.db"))
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

#[test]
fn a_shell_completes_what_only_this_host_knows() -> Result<()> {
    let store = Scratch::new("cli")?;
    said("trunk add carrier --peer 192.0.2.7", &store)?;
    said("trunk add cargo --peer 192.0.2.8", &store)?;
    for (words, expected) in [
        (&["sipguard", "checks", "set", "bad-nu"][..], &["bad-number"][..]),
        (&["sipguard", "explain", "blocked-d"], &["blocked-device"]),
        // No check, so nothing to be switched.
        (&["sipguard", "checks", "set", "blocked-d"], &[]),
        (&["sipguard", "trunk", "show", "ca"], &["cargo", "carrier"]),
        (&["sipguard", "mode", "monitor", "--trunk", "carr"], &["carrier"]),
        (&["sipguard", "unbl"], &["unblock"]),
        (&["sipguard", "events", "--reason", "banned-a"], &["banned-address"]),
    ] {
        let mut found = offered(words, &store)?;
        found.sort();
        assert_eq!(found, expected, "{words:?}");
    }
    let mut interfaces: Vec<String> = std::fs::read_dir("/sys/class/net")?
        .map(|one| Ok(one?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    // Tests beside this one make and remove others.
    interfaces.retain(|name| name == "eth0");
    let found = offered(&["sipguard", "attach", "eth"], &store)?;
    assert!(interfaces.iter().all(|name| found.contains(name)), "{found:?}");
    assert!(!offered(&["sipguard", "attach", "l"], &store)?.contains(&"lo".to_owned()));
    Ok(())
}

#[test]
fn a_group_without_a_verb_shows() -> Result<()> {
    let store = Scratch::new("cli")?;
    said("trunk add carrier --peer 192.0.2.7", &store)?;
    let behind =
        |words: &str| anyhow::Ok(said(words, &store)?.split_once('\n').context("lines")?.1.to_owned());
    for (group, verb) in [
        ("trunk", "list"),
        ("limit", "list"),
        ("checks", "ls"),
        ("crash", "ls"),
        ("bans", "ls"),
        ("config", "show"),
    ] {
        let shown: String = behind(group)?;
        assert_eq!(shown, behind(&format!("{group} {verb}"))?, "{group}");
        assert!(shown.ends_with("exit status 0\n"), "{group}: {shown}");
    }
    Ok(())
}

/// In a terminal of so many columns; the command makes one of its own.
fn on_terminal(words: &str, columns: u16, store: &Scratch) -> Result<String> {
    let sipguard = neighbour("SIPGUARD", "sipguard")?;
    let line = format!("stty cols {columns} rows 24; {} {words}", sipguard.display());
    let output = Command::new("script")
        .args(["--quiet", "--command", &line, "/dev/null"])
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-cli-test")
        .env("SIPGUARD_STORE", store.join("rules.db"))
        .env("SIPGUARD_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .output()?;
    Ok(String::from_utf8(output.stdout)?.replace('\r', ""))
}

#[test]
fn tables_and_help_fit_a_terminal() -> Result<()> {
    let store = Scratch::new("cli")?;
    let comment =
        "a carrier whose comment is as long as those that people write when they are asked for the reason";
    let sipguard = neighbour("SIPGUARD", "sipguard")?;
    let added = Command::new(sipguard)
        .args(["trunk", "add", "carrier", "--peer", "192.0.2.7", "--comment", comment])
        .env("SIPGUARD_PINS", "/sys/fs/bpf/sipguard-cli-test")
        .env("SIPGUARD_STORE", store.join("rules.db"))
        .output()?;
    assert!(added.status.success(), "{added:?}");
    for (words, columns) in [("trunk", 60), ("trunk", 80), ("--help", 60), ("--help", 80)] {
        let shown = on_terminal(words, columns, &store)?;
        // What is said beside the table is no part of it.
        let lines = shown.lines().filter(|line| !line.starts_with("sipguard: "));
        let widest = lines.map(|line| line.chars().count()).max().context("lines")?;
        assert!(widest <= usize::from(columns), "{words} in {columns}: {widest}\n{shown}");
        assert!(
            shown.contains(if words == "trunk" { "carrier" } else { "Options of every verb:" }),
            "{shown}"
        );
    }
    assert!(said("trunk", &store)?.contains(comment), "in a pipe a row is one line");
    Ok(())
}
