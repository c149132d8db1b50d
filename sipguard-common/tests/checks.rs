//! `docs/checks.md` is written from `Reason` and the limits; this test writes it when `SIPGUARD_WRITE_DOCS` is set, and fails when it is
//! not what they say.

use std::fmt::Write as _;
use std::path::Path;

use sipguard_common::framer::{LIMITS, Limits};

use sipguard_common::{Class, Reason, When};

const HEAD: &str = "# What sipguard checks

Written from `sipguard-common/src/reason.rs` and `framer/limits.rs` by `SIPGUARD_WRITE_DOCS=1 cargo test -p sipguard-common --test checks`.

The words are those of `sipguard counters` and of its Prometheus label `reason`. A malformed TCP stream is reset (with
`attach --on-malformed drop` its segments are dropped), a malformed datagram is dropped; in monitor mode both pass and are counted apart.

On TCP every check of a message holds for the byte stream, whatever the segments. On UDP a datagram is one message: Content-Length is
optional, what follows the body is ignored, and headers that go on in later IP fragments are judged there. On a TLS port only the record
framing is judged; nothing is decrypted, and neither SIP inside TLS nor WSS is seen. SDP, multipart bodies and the meaning of a message are
the PBX's.

Profiles: `default` is what every real device should pass; `strict` (`attach --profile strict`) also refuses what only grammar forbids.
";

fn table(out: &mut String, title: &str, class: Class) {
    let rows = Reason::ALL.iter().filter(|reason| reason.class() == class);
    writeln!(out, "\n## {title}\n").unwrap();
    let malformed = class == Class::Malformed;
    if malformed {
        writeln!(
            out,
            "| reason | what is refused | profile | written in | seen in the wild |\n|---|---|---|---|---|"
        )
        .unwrap();
    } else {
        writeln!(out, "| reason | what it is | written in |\n|---|---|---|").unwrap();
    }
    for reason in rows {
        let (word, text, source) = (reason.name(), reason.text(), reason.source());
        if malformed {
            let when = match reason.when() {
                When::Always | When::Default => "default",
                When::Stricter => "default; more in strict",
                When::Strict => "strict",
            };
            writeln!(out, "| `{word}` | {text} | {when} | {source} | {} |", reason.advisories()).unwrap();
        } else {
            writeln!(out, "| `{word}` | {text} | {source} |").unwrap();
        }
    }
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    table(&mut out, "Malformed: refused, and the source is named", Class::Malformed);
    table(&mut out, "Reset without accusation", Class::Reset);
    table(&mut out, "Dropped", Class::Drop);
    table(&mut out, "Passed", Class::Pass);
    out += "\n## Limits\n\n`sipguard attach --limit NAME=VALUE` sets one; the profile sets all.\n\n";
    out += "| name | what it limits | default | strict | range |\n|---|---|---|---|---|\n";
    for limit in LIMITS {
        let (default, strict) = (limit.get(&Limits::default()), limit.get(&Limits::strict()));
        let (low, high) = limit.range;
        writeln!(out, "| `{}` | {} | {default} | {strict} | {low} to {high} |", limit.name, limit.text)
            .unwrap();
    }
    out
}

#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checks.md");
    if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/checks.md is not what the code says: write it anew, its head says how");
}

#[test]
fn limits_lie_within_their_ranges() {
    for limit in LIMITS {
        for limits in [Limits::default(), Limits::strict()] {
            let (low, high) = limit.range;
            assert!((low..=high).contains(&limit.get(&limits)), "{}", limit.name);
        }
        let mut limits = Limits::default();
        limit.set(&mut limits, limit.range.1);
        assert_eq!(limit.get(&limits), limit.range.1, "{}", limit.name);
    }
}
