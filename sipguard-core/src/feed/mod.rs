//! Feeds: lists of others that are read again and again. Pure: what a feed is, what its text says, and what of it is to be changed.

mod crowdsec;
mod list;
mod plan;
mod secret;

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::address::Source;

pub(crate) use crowdsec::read as read_decisions;
pub(crate) use list::{apiban, read as read_list};
pub(crate) use plan::{DesiredBlock, Plan, plan};
pub(crate) use secret::hidden;

/// How the origin of a feed's rules begins; its name follows.
pub const ORIGIN: &str = "feed:";
/// The most entries that one feed may have.
pub const MOST_ENTRIES: usize = 100_000;
/// The most bytes that one answer may have.
pub const MOST_BYTES: u64 = 4 << 20;

/// The form of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FeedForm {
    /// A list in one of the forms of `import`, as its name or its beginning tells: one address or prefix a line, CSV, JSON, or `ipset save`
    List,
    /// What apiban.org answers, page by page
    Apiban,
    /// The decisions of a CrowdSec LAPI, as a bouncer reads them
    Crowdsec,
}

impl FeedForm {
    /// Every form.
    pub const ALL: [FeedForm; 3] = [FeedForm::List, FeedForm::Apiban, FeedForm::Crowdsec];

    /// Its name in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FeedForm::List => "list",
            FeedForm::Apiban => "apiban",
            FeedForm::Crowdsec => "crowdsec",
        }
    }

    /// The one with a name.
    #[must_use]
    pub fn of(name: &str) -> Option<FeedForm> {
        FeedForm::ALL.into_iter().find(|form| form.name() == name)
    }

    /// How often it is read unless told otherwise.
    #[must_use]
    pub fn usual_every(self) -> Duration {
        Duration::from_secs(if self == FeedForm::Crowdsec { 1 } else { 300 })
    }
}

/// Where a feed comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum FeedSource {
    /// A URL of HTTP or HTTPS.
    Url(String),
    /// A file with its whole path.
    File(String),
}

impl FeedSource {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<FeedSource, String> {
        if text.chars().any(|character| character.is_control() || character == ' ') {
            return Err("a URL or a file is wanted, without spaces".to_owned());
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(FeedSource::Url(text.to_owned()));
        }
        if text.contains("://") {
            return Err(format!("`{text}`: only http://, https:// and files can be read"));
        }
        if text.starts_with('/') {
            return Ok(FeedSource::File(text.to_owned()));
        }
        Err(format!("`{text}` is no URL, and a file is wanted with its whole path"))
    }

    /// As it was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            FeedSource::Url(text) | FeedSource::File(text) => text,
        }
    }
}

impl fmt::Display for FeedSource {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedSource::File(path) => f.write_str(path),
            FeedSource::Url(url) => f.write_str(&secret::without(url)),
        }
    }
}

impl fmt::Debug for FeedSource {
    /// As [`Display`](fmt::Display).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of a feed, which its origin has.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if (1..=32).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no name of a feed: 1 to 32 of a-z, 0-9 and -_."))
}

/// Blocks that a feed may never ask for: addresses that are not of the internet (RFC 6890), which lists of what is not routed have.
#[must_use]
pub(crate) fn is_special(source: &Source) -> bool {
    const SPECIAL: [&str; 14] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    ];
    SPECIAL
        .iter()
        .filter_map(|net| net.parse().ok())
        .any(|net: Source| net.covers(source) || source.covers(&net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_without_its_secret() {
        for (typed, shown) in [
            ("https://apiban.org/api/SECRET/banned", "https://apiban.org/..."),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://user:SECRET@lists.example", "https://lists.example"),
            ("https://lists.example?key=SECRET", "https://lists.example/..."),
            ("https://lists.example#SECRET", "https://lists.example/..."),
            ("/etc/sipguard/bad.txt", "/etc/sipguard/bad.txt"),
        ] {
            let source = FeedSource::parse(typed).unwrap();
            assert_eq!((source.to_string(), format!("{source:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for typed in ["ftp://lists.example/", "bad.txt", "https://a b"] {
            assert!(FeedSource::parse(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn what_is_not_of_the_internet_is_special() {
        for (source, special) in [
            ("10.1.2.3", true),
            ("192.168.0.0/16", true),
            ("192.0.0.0/8", true),
            ("fd77::1", true),
            ("203.0.113.7", false),
            ("2001:db8::/32", false),
            ("100.128.0.0/9", false),
        ] {
            assert_eq!(is_special(&source.parse().unwrap()), special, "{source}");
        }
    }
}
