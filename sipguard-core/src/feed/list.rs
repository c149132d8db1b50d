//! Lists: those that `import` reads, and apiban.org's.

use serde::Deserialize;

use super::MOST_ENTRIES;
use crate::address::Source;
use crate::exchange::{self, Entry};
use crate::rule::RuleVerb;

/// The addresses and prefixes of a list, each once. `name` tells its form.
///
/// # Errors
/// The first mistake, with its place: also a prefix shorter than /8 (IPv6: /16), an allowance, and more than [`MOST_ENTRIES`].
pub(crate) fn read(name: &str, text: &str) -> Result<Vec<Source>, String> {
    // Before anything is read of it: each entry takes more memory than its text, and `serve` has little.
    let entries = text.bytes().filter(|byte| matches!(byte, b'\n' | b'{')).count();
    if entries > 2 * MOST_ENTRIES {
        return Err(format!("it has more than {} lines", 2 * MOST_ENTRIES));
    }
    let form = exchange::guess(name, text);
    let entries = exchange::read(form, text, false).map_err(|mistake| mistake.to_string())?;
    unique(entries.into_iter().map(|entry| source(&entry)).collect::<Result<_, _>>()?)
}

fn source(entry: &Entry) -> Result<Source, String> {
    if entry.verb != RuleVerb::Block {
        return Err(format!("{}: a feed can't allow", entry.target));
    }
    match entry.target.source().filter(|_| entry.target.is_source()) {
        Some(source) => Ok(source),
        None => Err(format!("{}: a feed has addresses and prefixes alone", entry.target)),
    }
}

pub(super) fn unique(mut sources: Vec<Source>) -> Result<Vec<Source>, String> {
    sources.sort_unstable();
    sources.dedup();
    if sources.len() > MOST_ENTRIES {
        return Err(format!("it has {} entries, more than {MOST_ENTRIES}", sources.len()));
    }
    Ok(sources)
}

/// A page of apiban.org.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApibanPage {
    /// Its addresses.
    pub sources: Vec<Source>,
    /// The identity of its last one, behind which the next page begins; `None` at the end.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct ApibanAnswer {
    ipaddress: Vec<String>,
    #[serde(rename = "ID")]
    id: String,
}

/// Reads a page. The last one says `none` and has no addresses.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn apiban(text: &str) -> Result<ApibanPage, String> {
    let answer: ApibanAnswer = serde_json::from_str(text)
        .map_err(|error| format!("this is no answer of apiban.org, with `ipaddress` and `ID`: {error}"))?;
    if answer.id.eq_ignore_ascii_case("none") {
        return Ok(ApibanPage { sources: Vec::new(), next: None });
    }
    let is_id = answer.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if answer.id.is_empty() || answer.id.len() > 64 || !is_id {
        return Err(format!("`ID` is `{}`", answer.id.escape_default().take(64).collect::<String>()));
    }
    let sources: Vec<Source> = answer.ipaddress.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    if let Some(wide) = sources.iter().find(|source| source.is_wide()) {
        return Err(format!("{wide} is shorter than /{}", wide.least_bits()));
    }
    Ok(ApibanPage { sources, next: Some(answer.id) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_or_its_mistake_is_told() {
        let text = "# a list\n203.0.113.7\n2001:db8::/32 ; SBL1\n203.0.113.7\n";
        let read_text = |text: &str| read("https://lists.example/drop.txt", text);
        assert_eq!(read_text(text).unwrap().len(), 2);
        for (text, said) in [
            ("203.0.113.7\n<html>\n", "2:1: "),
            ("0.0.0.0/0\n", "shorter than /8"),
            ("203.0.113.7:5060\n", "addresses and prefixes alone"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let allows = read("x.json", r#"[{"target": "203.0.113.7", "rule": "allow"}]"#).unwrap_err();
        assert!(allows.contains("can't allow"), "{allows}");
        let long: String = (0..=MOST_ENTRIES as u32)
            .map(|at| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + at)))
            .collect();
        assert!(read_text(&long).unwrap_err().contains("more than"));
    }

    #[test]
    fn apiban_is_read_page_by_page() {
        let page = apiban(r#"{"ipaddress":["203.0.113.7","198.51.100.9"],"ID":"1606161616"}"#).unwrap();
        assert_eq!((page.sources.len(), page.next.as_deref()), (2, Some("1606161616")));
        let end = apiban(r#"{"ipaddress":["no new bans"],"ID":"none"}"#).unwrap();
        assert_eq!(end, ApibanPage { sources: Vec::new(), next: None });
        for text in [
            "",
            "{}",
            r#"{"ipaddress":["x"],"ID":"1"}"#,
            r#"{"ipaddress":[],"ID":"../x"}"#,
            r#"{"ipaddress":["0.0.0.0/1"],"ID":"1"}"#,
        ] {
            assert!(apiban(text).is_err(), "{text}");
        }
    }
}
