//! `sipguard man DIR`: the manual pages. They come from the command tree, as `docs/reference/cli.md` does.

use std::fs;
use std::path::Path;

use super::help;
use anyhow::{Context as _, Result};

/// Writes `sipguard.1`, and a page for each visible verb such as `sipguard-trunk-add.1`, into `directory`.
///
/// # Errors
/// When the directory can't be made or a page can't be written.
pub fn man(directory: &Path) -> Result<()> {
    let context = || format!("writing manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(context)?;
    clap_mangen::generate_to(help::command(), directory).with_context(context)
}

/// The pages tell of every verb.
#[cfg(all(test, feature = "replay", feature = "serve", feature = "top"))]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::{env, process};

    use clap::{Arg, Command, Parser as _};

    use super::super::Cli;
    use super::*;

    const HEAD: &str = "# The command line

Generated from the command tree by `SIPGUARD_WRITE_DOCS=1 cargo test -p sipguard --lib cli::pages`.
`sipguard VERB --help` prints the same, and `sipguard man DIR` writes it as manual pages.

Every verb is idempotent.
";

    /// The command tree with everything that clap adds to it.
    fn tree() -> Command {
        let mut command = help::command().disable_help_subcommand(true);
        command.build();
        command
    }

    /// Visible verbs below `command`, verbs of verbs included, each with its whole name.
    fn verbs(command: &Command) -> Vec<(String, &Command)> {
        let mut all = Vec::new();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_bin_name().unwrap_or_else(|| verb.get_name());
            all.push((name.to_owned(), verb));
            all.extend(verbs(verb));
        }
        all
    }

    /// Text on one line of a table.
    fn cell(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
    }

    /// Text in lines of at most 120 characters.
    fn wrapped(text: &str) -> String {
        let mut page = String::new();
        let mut width = 0;
        for word in text.split_whitespace() {
            let is_full = width + 1 + word.len() > 120;
            page.push_str(if width == 0 {
                ""
            } else if is_full {
                "\n"
            } else {
                " "
            });
            width = if is_full { word.len() } else { width + usize::from(width > 0) + word.len() };
            page.push_str(word);
        }
        page
    }

    /// How an argument is typed.
    fn typed(arg: &Arg) -> String {
        let names = arg.get_value_names().unwrap_or_default();
        let values: String = names.iter().map(|name| format!(" <{name}>")).collect();
        let values = if arg.get_action().takes_values() { values } else { String::new() };
        match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}{values}"),
            (Some(short), None) => format!("-{short}{values}"),
            (None, Some(long)) => format!("--{long}{values}"),
            (None, None) => values.trim_start().to_owned(),
        }
    }

    /// What an argument means, its possible values, its environment variable and its default.
    fn meaning(arg: &Arg) -> String {
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
        let mut text = cell(&help.unwrap_or_default());
        let possible = arg.get_possible_values();
        if arg.get_action().takes_values() && !possible.is_empty() {
            let one = |value: &clap::builder::PossibleValue| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), cell(&help.to_string())),
                None => format!("`{}`", value.get_name()),
            };
            let values = possible.iter().filter(|value| !value.is_hide_set()).map(one);
            write!(text, ". One of {}", values.collect::<Vec<_>>().join(", ")).unwrap();
        }
        if let Some(variable) = arg.get_env() {
            write!(text, ". Environment: `{}`", variable.to_string_lossy()).unwrap();
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if arg.get_action().takes_values() && !defaults.is_empty() && !arg.is_hide_default_value_set() {
            write!(text, ". Default: `{}`", defaults.join(" ")).unwrap();
        }
        text
    }

    /// A table of the arguments of a command that `wanted` selects.
    fn arguments(page: &mut String, command: &Command, wanted: impl Fn(&Arg) -> bool) {
        let is_listed = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help" && wanted(arg);
        let listed: Vec<_> = command.get_arguments().filter(is_listed).collect();
        if listed.is_empty() {
            return;
        }
        page.push_str("\n| argument | meaning |\n|---|---|\n");
        for arg in listed {
            writeln!(page, "| `{}` | {} |", typed(arg).replace('|', "\\|"), meaning(arg)).unwrap();
        }
    }

    fn section(page: &mut String, name: &str, verb: &Command) {
        let about = verb.get_long_about().or_else(|| verb.get_about()).map(ToString::to_string);
        let mut about = format!("{}.", about.unwrap_or_default().trim_end_matches('.'));
        let aliases: Vec<_> = verb.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
        if !aliases.is_empty() {
            write!(about, " Also: {}.", aliases.join(", ")).unwrap();
        }
        write!(page, "\n## {name}\n\n{}", wrapped(&about)).unwrap();
        let usage = verb.clone().render_usage().to_string();
        let usage: Vec<_> = usage.trim_start_matches("Usage:").lines().map(wrapped).collect();
        writeln!(page, "\n\n```text\n{}\n```", usage.join("\n").trim()).unwrap();
        arguments(page, verb, |arg| !arg.is_global_set());
        if let Some(after) = verb.get_after_help() {
            write!(page, "\n```text\n{}\n```\n", after.to_string().trim_end()).unwrap();
        }
    }

    fn page() -> String {
        let tree = tree();
        let mut page = HEAD.to_owned();
        let after = tree.get_after_help().map(ToString::to_string).unwrap_or_default();
        write!(page, "\n{}\n\n## Options of every verb\n", wrapped(&after)).unwrap();
        arguments(&mut page, &tree, Arg::is_global_set);
        for (name, verb) in verbs(&tree) {
            section(&mut page, &name, verb);
        }
        page
    }

    #[test]
    fn the_page_of_the_command_line_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
        if env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
            fs::write(&path, page()).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page(), "docs/reference/cli.md is not current: its head says how to generate it");
    }

    #[test]
    fn every_visible_verb_has_a_manual_page() {
        let directory: PathBuf = env::temp_dir().join(format!("sipguard-man-{}", process::id()));
        man(&directory).unwrap();
        let written: BTreeSet<String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        let pages = fs::read_to_string(directory.join("sipguard-trunk-add.1"));
        fs::remove_dir_all(&directory).unwrap();
        let tree = tree();
        let names = verbs(&tree).into_iter().map(|(name, _)| format!("{}.1", name.replace(' ', "-")));
        let expected: BTreeSet<String> = names.chain(["sipguard.1".to_owned()]).collect();
        assert_eq!(written, expected);
        assert!(pages.unwrap().contains("peer"), "the page of a verb has its options");
    }

    /// Words of a command as a shell has them, up to a comment, a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
        for c in line.chars().chain([' ']) {
            match c {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => {
                    if ["#", "|", "<", ">"].contains(&word.as_str()) {
                        break;
                    }
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        words
    }

    /// Every command of README.md and of the guide, with its file.
    fn documented() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let guide = fs::read_dir(root.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path());
        let mut all = Vec::new();
        for path in guide.chain([root.join("README.md"), root.join("docs/limits.md")]) {
            let text = fs::read_to_string(&path).unwrap();
            let blocks = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::trim_start);
            let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
            let commands = blocks.chain(spans).filter(|line| line.starts_with("sipguard "));
            all.extend(commands.map(|line| (path.display().to_string(), line.to_owned())));
        }
        all
    }

    #[test]
    fn every_documented_command_is_understood() {
        let documented = documented();
        assert!(documented.len() > 100, "only {} commands", documented.len());
        for (path, line) in documented {
            if let Err(error) = Cli::try_parse_from(words(&line))
                && !line.contains("VERB")
            {
                panic!("{path}: `{line}`: {error}");
            }
        }
    }
}
