//! The torture test messages of RFC 4475 and RFC 5118 through the loaded program: `corpus.tsv` says what each comes to, and why.
//!
//! They are an optional input: `SIPGUARD_CORPUS` names a directory with `rfc4475/` (one message a file, and `CLASSES.tsv` that says
//! what the RFC thinks of each) and `rfc5118/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sipguard_common::{Class, Reason};
use sipguard_tests::judge::{End, Profile, Verdict, tcp, udp};

const DIRECTORY: &str = "SIPGUARD_CORPUS";

/// One line a message: its class, what it comes to on TCP by default and strict and on UDP by default and strict, and why.
const EXPECTED: &str = include_str!("corpus.tsv");

/// Messages that the RFC calls valid and that are refused by default: where, and what for.
const REFUSED_THOUGH_VALID: [(&str, &[Column], Reason); 1] = [
    // It is about datagrams. As a stream it is two requests, the second of which says a wrong length.
    ("rfc4475/dblreq", &[Column::Tcp], Reason::BadStartLine),
];

/// What is no matter of semantics: the message, and where it must be refused.
const REFUSED: [(&str, &[Column]); 11] = [
    ("rfc4475/clerr", &[Column::UdpStrict]),
    ("rfc4475/lwsstart", &[Column::TcpStrict, Column::UdpStrict]),
    ("rfc4475/ncl", &Column::ALL),
    ("rfc4475/badvers", &Column::ALL),
    ("rfc4475/scalarlg", &Column::ALL),
    ("rfc4475/scalar02", &Column::ALL),
    ("rfc4475/mcl01", &Column::ALL),
    ("rfc4475/mismatch01", &Column::ALL),
    ("rfc4475/mismatch02", &Column::ALL),
    ("rfc4475/bigcode", &Column::ALL),
    ("rfc4475/insuf", &Column::ALL),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Tcp,
    TcpStrict,
    Udp,
    UdpStrict,
}

impl Column {
    const ALL: [Column; 4] = [Column::Tcp, Column::TcpStrict, Column::Udp, Column::UdpStrict];

    fn judge(self, bytes: &[u8]) -> Result<Verdict> {
        match self {
            Column::Tcp => tcp(Profile::Default, bytes),
            Column::TcpStrict => tcp(Profile::Strict, bytes),
            Column::Udp => udp(Profile::Default, bytes),
            Column::UdpStrict => udp(Profile::Strict, bytes),
        }
    }

    /// What becomes of a malformed message.
    fn refusal(self) -> End {
        match self {
            Column::Tcp | Column::TcpStrict => End::Reset,
            Column::Udp | Column::UdpStrict => End::Dropped,
        }
    }
}

/// A message of the corpus.
struct Message {
    name: String,
    /// `valid`, `invalid` or `app-layer` by RFC 4475; other words make no demand.
    class: String,
    /// In the order of [`Column::ALL`].
    verdicts: [Verdict; 4],
}

#[test]
fn torture_test_messages() -> Result<()> {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return say(&format!("skipped: torture_test_messages, {DIRECTORY} is not set\n"));
    };
    let directory = Path::new(&directory);
    let messages = judged(directory).with_context(|| format!("{DIRECTORY}={}", directory.display()))?;
    say(&table(&messages)?)?;
    for message in &messages {
        message.is_as_it_must_be()?;
    }
    let expected: Vec<_> = EXPECTED.lines().skip(1).collect();
    ensure!(messages.len() == expected.len(), "{} messages, not {}", messages.len(), expected.len());
    for (message, expected) in messages.iter().zip(expected) {
        let expected = expected.rsplit_once('\t').context("a reason")?.0;
        assert_eq!(message.row(), expected);
    }
    Ok(())
}

impl Message {
    /// What must hold of every message, whatever the table says.
    fn is_as_it_must_be(&self) -> Result<()> {
        for (column, verdict) in Column::ALL.into_iter().zip(self.verdicts) {
            let malformed = verdict.reason.class() == Class::Malformed;
            let end = if malformed { column.refusal() } else { End::Passed };
            ensure!(verdict.end == end, "{} in {column:?}: {verdict:?}", self.name);
            let strict = matches!(column, Column::TcpStrict | Column::UdpStrict);
            if self.class == "valid" && malformed && !strict {
                let known = REFUSED_THOUGH_VALID.iter().any(|(name, columns, reason)| {
                    *name == self.name && columns.contains(&column) && *reason == verdict.reason
                });
                ensure!(known, "{} is valid, and in {column:?} it is {verdict:?}", self.name);
            }
            let must = REFUSED.iter().any(|(name, columns)| *name == self.name && columns.contains(&column));
            ensure!(malformed || !must, "{} passes in {column:?}", self.name);
        }
        let [tcp, tcp_strict, udp, udp_strict] = self.verdicts.map(|verdict| verdict == Verdict::VALID);
        ensure!(tcp >= tcp_strict && udp >= udp_strict, "{} passes only where it is strict", self.name);
        Ok(())
    }

    /// The line of [`EXPECTED`], without why.
    fn row(&self) -> String {
        let words = self.verdicts.map(|verdict| verdict.reason.name());
        format!("{}\t{}\t{}", self.name, self.class, words.join("\t"))
    }
}

fn judged(directory: &Path) -> Result<Vec<Message>> {
    let classes = std::fs::read_to_string(directory.join("rfc4475/CLASSES.tsv")).context("CLASSES.tsv")?;
    let columns = classes.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let classes: BTreeMap<_, _> = columns.filter(|row| row.len() == 3).map(|row| (row[0], row[2])).collect();
    let mut messages = Vec::new();
    for folder in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(directory.join(folder)).context(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "dat") {
                continue;
            }
            let name = path.file_stem().and_then(|stem| stem.to_str()).context("a name")?;
            let class = if folder == "rfc4475" { *classes.get(name).context("a class")? } else { "-" };
            let bytes = std::fs::read(&path)?;
            let mut verdicts = [Verdict::VALID; 4];
            for (verdict, column) in verdicts.iter_mut().zip(Column::ALL) {
                *verdict = column.judge(&bytes).with_context(|| format!("{name} in {column:?}"))?;
            }
            messages.push(Message { name: format!("{folder}/{name}"), class: class.to_owned(), verdicts });
        }
    }
    messages.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(messages)
}

/// What came out, for people: the messages with why, and those that are wrong in a way that is none of a filter's business.
fn table(messages: &[Message]) -> Result<String> {
    let whys: BTreeMap<_, _> = EXPECTED
        .lines()
        .filter_map(|line| Some((line.split_once('\t')?.0, line.rsplit_once('\t')?.1)))
        .collect();
    let mut text = format!(
        "{:38}{:10}{:25}{:25}{:25}{:25}why\n",
        "message", "class", "TCP", "TCP strict", "UDP", "UDP strict"
    );
    let mut left = Vec::new();
    for message in messages {
        write!(text, "{:38}{:10}", message.name, message.class)?;
        for verdict in message.verdicts {
            write!(text, "{:25}", verdict.reason.name())?;
        }
        writeln!(text, "{}", whys.get(message.name.as_str()).copied().unwrap_or_default())?;
        let wrong = message.class == "invalid" || message.class == "app-layer";
        if wrong && message.verdicts == [Verdict::VALID; 4] {
            left.push(message.name.trim_start_matches("rfc4475/"));
        }
    }
    writeln!(text, "semantics, left to the PBX: {}", left.join(", "))?;
    Ok(text)
}

/// Prints even where the test harness keeps a test's output to itself.
fn say(text: &str) -> Result<()> {
    Ok(std::io::stderr().write_all(text.as_bytes())?)
}
