//! `docs/reference/checks.md` is generated from `Reason` and the limits. With `SIPGUARD_WRITE_DOCS` set this test writes
//! the page; without, it fails when the page is not current.

use std::fmt::Write as _;
use std::path::Path;

use sipguard_common::framer::{LIMITS, Limits};

use sipguard_common::{Class, Reason, When};

const HEAD: &str = "# What sipguard checks

Generated from `sipguard-common/src/reason.rs` and `framer/limits.rs` by
`SIPGUARD_WRITE_DOCS=1 cargo test -p sipguard-common --test host checks`.

The names are those of `sipguard counters` and of the Prometheus label `reason`. A malformed TCP stream is reset (with
`attach --on-malformed drop` its segments are dropped). A malformed datagram is dropped. In monitor mode both pass and
are counted apart.

On TCP every check of a message holds for the byte stream, however it is cut into segments. On UDP a datagram is one
message: Content-Length is optional, bytes after the body are ignored, and headers that continue in later IP fragments
are checked there. On a TLS port only the record framing is checked. Nothing is decrypted: SIP inside TLS and WSS is
not seen. SDP, multipart bodies and the meaning of a message are left to the PBX.

Each malformed reason and `slow-message` is a check that can be switched: `sipguard checks set bad-number monitor` lets
its faults pass and counts them, `off` does not look for them, `refuse` is what holds otherwise; `--devices` and
`--trunk NAME` are for those alone. The rest of the message is judged as before. Behind the faults that say `no` under
\"can be off\" it is uncertain where the message ends: they can be monitored, and the rest of the connection then passes
as `mid-stream` until a message begins. `sipguard explain REASON` shows a row of this page, and how it is set.

Two profiles: `default` is what every real device passes; `strict` (`attach --profile strict`) also refuses what only
the grammar forbids.
";

fn table(out: &mut String, title: &str, class: Class) {
    let rows = Reason::ALL.iter().filter(|reason| reason.class() == class);
    writeln!(out, "\n## {title}\n").unwrap();
    let malformed = class == Class::Malformed;
    if malformed {
        writeln!(
            out,
            "| reason | what is refused | profile | can be off | written in | seen in the wild | sent without harm by |\n|---|---|---|---|---|---|---|"
        )
        .unwrap();
    } else {
        writeln!(out, "| reason | what it is | written in |\n|---|---|---|").unwrap();
    }
    for reason in rows {
        let (word, text, source) = (reason.name(), reason.text(), reason.spec());
        if malformed {
            let when = match reason.when() {
                When::Always | When::Default => "default",
                When::Stricter => "default; more in strict",
                When::Strict => "strict",
            };
            let off = if reason.loses_framing() { "no" } else { "yes" };
            let (seen, harmless) = (reason.advisories(), reason.harmless_senders());
            writeln!(out, "| `{word}` | {text} | {when} | {off} | {source} | {seen} | {harmless} |").unwrap();
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
    out += "\n## Limits\n\n`sipguard attach --check NAME=VALUE` sets one; the profile sets all.\n\n";
    out += "| name | what it limits | default | strict | range |\n|---|---|---|---|---|\n";
    for limit in LIMITS {
        let (default, strict) = (limit.get(&Limits::default()), limit.get(&Limits::strict()));
        let (low, high) = limit.range;
        writeln!(out, "| `{}` | {} | {default} | {strict} | {low} to {high} |", limit.name, limit.text)
            .unwrap();
    }
    out += SIZES;
    out
}

/// Why the limits of sizes are what they are.
const SIZES: &str = "
By default sizes accuse nobody: they are what the common servers take at the most, and what is larger is refused without
a step towards a ban. The lines with `line-bytes` are those that parsers copy into buffers of a fixed size: all
published overflows are in them. Other lines carry tokens (X-Twilio-CallToken, JWTs, PASSporTs of 4 kB and more). A
header section or a message of 65535 bytes is the limit of OpenSIPS and of pjsip in Asterisk; Kamailio takes 32767;
Sofia in FreeSWITCH takes 2 MiB, and sends bodies above 64 kB, as RLS servers do in NOTIFY. A registrar that answers
with 130 Contact lines stays below `header-lines`. `strict` has the small limits of a network without such peers.

Before an Asterisk (pjsip), which has a buffer of 65535 bytes for a connection and throws away all of it when that is
full, so that it goes on in the middle of a message, set smaller ones, and refuse LF alone, which it does not take for
the end of a header section: `--check section-bytes=32768 --check body-bytes=32000 --refuse-lf yes`. Who sends more to
an Asterisk over TCP gets no answer from it anyway.

What is refused over UDP is dropped without an answer, and its sender repeats it for 32 s (RFC 3261 section 17.1.2.2).
An ICMP error would not tell it more: with a port-unreachable to each datagram baresip and SIPp gave up after 32 s as
they did without, since a socket that sends to many addresses is not told of it; only sipsak, which connects its socket,
saw it at once. So there is no such answer.
";

#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/checks.md");
    if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/reference/checks.md is not current: its head says how to generate it");
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
