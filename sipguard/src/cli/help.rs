//! What `--help` says beyond what each argument does: the verbs in groups, and examples. One place, from which the manual pages and
//! `docs/reference/cli.md` come too.

use clap::{Command, CommandFactory as _};

use super::args::{Cli, EVERY_VERB};

/// The verbs by what one wants to do.
const GROUPS: &[(&str, &[&str])] = &[
    ("Filter", &["attach", "detach", "upgrade", "mode", "status"]),
    ("Look", &["counters", "top", "events", "capture", "lookup", "explain", "crash"]),
    ("Block and allow", &["block", "unblock", "allow", "unallow", "list", "feed", "import", "export", "log"]),
    ("Policy", &["trunk", "limit", "checks", "bans", "deny", "permit"]),
    ("Configuration and service", &["config", "check", "reload", "serve"]),
    ("Try first", &["replay"]),
    ("This program", &["completion", "version", "help"]),
];

/// Examples by verb; of a verb of a group with a blank between.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "attach",
        &[
            ("attach eth0 --monitor --confirm 60s", "count only, and take it back unless Enter is pressed"),
            ("attach", "the interfaces of the configuration file"),
        ],
    ),
    ("detach", &[("detach --all", "nothing of sipguard is left in the kernel; the rules stay in the store")]),
    (
        "block",
        &[
            ("block 203.0.113.7 --for 1h --comment \"scans\"", "one address, for an hour"),
            ("block 198.51.100.9:5072", "one device behind a NAT"),
            ("block --user-agent friendly-scanner", "whoever calls itself so"),
        ],
    ),
    ("unblock", &[("unblock 203.0.113.7", "blocks and bans of an address")]),
    ("list", &[("list ban", "who is banned, and until when")]),
    ("lookup", &[("lookup 203.0.113.7:5072", "what decides about a device")]),
    ("explain", &[("explain bad-number", "what a reason means, and how to let it pass")]),
    (
        "counters",
        &[
            ("counters --by source", "who sends what is malformed"),
            ("counters --by source --of register", "who sends the most REGISTER"),
            ("counters --format prometheus", "for Prometheus"),
        ],
    ),
    (
        "events",
        &[
            ("events -f", "as they come"),
            ("events --src 203.0.113.7 --reason bad-number --since 10m", "of one sender and reason"),
        ],
    ),
    (
        "capture",
        &[
            ("capture --for 1m -w phone.pcapng --src 203.0.113.7", "what one phone sends, for a minute"),
            ("capture --verdict drop | tshark -r -", "what is stopped, at once"),
        ],
    ),
    (
        "replay",
        &[
            ("replay capture.pcap", "what would be stopped of it, by the built-in defaults"),
            (
                "replay --with-store --config /etc/sipguard/sipguard.toml -",
                "by what this host has, from standard input",
            ),
        ],
    ),
    ("trunk add", &[("trunk add carrier --peer 198.51.100.0/28", "the addresses of a carrier")]),
    ("trunk set", &[("trunk set carrier --mode monitor", "stop nothing of it, and count what would be")]),
    (
        "checks set",
        &[
            ("checks set bad-number monitor", "only count it"),
            ("checks set bad-number off --trunk carrier", "do not look for it in what a carrier sends"),
        ],
    ),
    ("deny", &[("deny REGISTER --from trunks", "no carrier registers here"), ("deny", "what is denied")]),
    (
        "feed add",
        &[
            ("feed add drop https://lists.example/drop.txt --every 1h", "a list of addresses and prefixes"),
            (
                "feed add crowdsec http://127.0.0.1:8080 --format crowdsec --key-file /etc/sipguard/crowdsec.key",
                "the decisions of a CrowdSec on this host",
            ),
        ],
    ),
    ("serve", &[("serve --listen 127.0.0.1:9506", "then http://127.0.0.1:9506 has the dashboard")]),
];

/// Widest help.
const MOST_COLUMNS: usize = 100;

/// The command tree with all that `--help` says.
#[must_use]
pub fn command() -> Command {
    let columns = terminal_size::terminal_size().map_or(MOST_COLUMNS, |(width, _)| usize::from(width.0));
    tree(columns.clamp(40, MOST_COLUMNS))
}

/// The same, in lines of at most `columns` characters.
fn tree(columns: usize) -> Command {
    let command = with_examples(Cli::command(), "");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let template = format!(
        "{}\n{{usage-heading}} {{usage}}\n\n{}{EVERY_VERB}:\n{{options}}{{after-help}}",
        wrapped(&about, columns, 0, 0),
        groups(&command, columns)
    );
    command.help_template(template)
}

/// Puts examples at the end of the help of each verb below `path`, behind what it has there already.
fn with_examples(command: Command, path: &str) -> Command {
    command.mut_subcommands(|verb| {
        let path = format!("{path} {}", verb.get_name()).trim_start().to_owned();
        let verb = with_examples(verb, &path);
        let Some((_, examples)) = EXAMPLES.iter().find(|(name, _)| *name == path) else { return verb };
        let before = verb.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
        verb.after_help(format!("{before}{}", examples_text(examples)))
    })
}

fn examples_text(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(line, what)| format!("  sipguard {line}\n      {what}"));
    format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// The verbs with what they do, by group.
fn groups(command: &Command, columns: usize) -> String {
    let mut text = String::new();
    for (group, verbs) in GROUPS {
        text += &format!("{group}:\n");
        for name in *verbs {
            let (about, aliases) = match command.find_subcommand(name) {
                Some(verb) if verb.is_hide_set() => continue,
                Some(verb) => (
                    verb.get_about().map(ToString::to_string).unwrap_or_default(),
                    verb.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>(),
                ),
                None => ("Print this, or the help of a verb".to_owned(), Vec::new()),
            };
            let also =
                if aliases.is_empty() { String::new() } else { format!(" [alias: {}]", aliases.join(", ")) };
            text += &format!("  {name:<12}{}", wrapped(&format!("{about}{also}"), columns, 14, 14));
        }
        text += "\n";
    }
    // What clap takes for a template's own.
    text.replace('{', "(").replace('}', ")")
}

/// A text in lines of at most `columns` characters: the first begins behind `used` of them, the others behind `indent` blanks.
fn wrapped(text: &str, columns: usize, used: usize, indent: usize) -> String {
    let (mut out, mut at) = (String::new(), used);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if at > used.max(indent) && at + 1 + width > columns {
            out += &format!("\n{}", " ".repeat(indent));
            at = indent;
        } else if at > used.max(indent) {
            out.push(' ');
            at += 1;
        }
        out += word;
        at += width;
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn each_visible_verb_is_in_one_group() {
        let command = Cli::command();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        grouped.sort_unstable();
        let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(Command::get_name);
        let mut visible: Vec<&str> = visible.chain(["help"]).collect();
        visible.sort_unstable();
        if cfg!(all(feature = "replay", feature = "serve", feature = "top")) {
            assert_eq!(grouped, visible);
        }
    }

    #[test]
    fn groups_fit_their_columns() {
        for columns in [40, 60, 80, 100] {
            let text = groups(&Cli::command(), columns);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{columns}: {text}");
        }
    }

    #[test]
    fn every_example_is_understood() {
        for (verb, examples) in EXAMPLES {
            for (line, _) in *examples {
                assert!(line.starts_with(verb), "{line} is no example of {verb}");
                let line = line.split(" | ").next().unwrap_or_default().replace("\"scans\"", "scans");
                let words = ["sipguard"].into_iter().chain(line.split(' '));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
            let mut command = &tree(80);
            for name in verb.split(' ') {
                command = command.find_subcommand(name).unwrap_or_else(|| panic!("{verb}"));
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(examples[0].0), "{verb}: {help}");
        }
    }
}
