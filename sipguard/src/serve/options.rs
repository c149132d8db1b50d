//! What an operator chooses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where it listens unless told otherwise. Only this host gets there.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9506";

/// What an operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub listen: Listen,
    /// Where the history is kept.
    pub history: Keep,
}

/// `ADDR:PORT`, or `NAME:PORT` of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub String);

/// A file, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<PathBuf>);

impl Default for Listen {
    fn default() -> Listen {
        Listen(DEFAULT_LISTEN.to_owned())
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep(Some(super::DEFAULT_HISTORY.into()))
    }
}

impl Listen {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<Listen, String> {
        let named = || {
            let (name, port) = text.rsplit_once(':')?;
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
            port.parse::<u16>().is_ok_and(|_| is_name).then_some(())
        };
        if text.parse::<SocketAddr>().is_ok() || named().is_some() {
            return Ok(Listen(text.to_owned()));
        }
        Err(format!("an address with its port is wanted, such as {DEFAULT_LISTEN} or [::1]:9506"))
    }
}

impl Keep {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn parse(text: &str) -> Result<Keep, String> {
        match text {
            "none" => Ok(Keep(None)),
            text if Path::new(text).is_absolute() => Ok(Keep(Some(text.into()))),
            _ => Err("a file is wanted with its whole path, or none".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_a_file_its_whole_path() {
        for good in ["127.0.0.1:9506", "[::1]:1", "0.0.0.0:0", "localhost:9506", "pbx-1.example:80"] {
            assert_eq!(Listen::parse(good), Ok(Listen(good.to_owned())));
        }
        for bad in ["", ":9506", "127.0.0.1", "::1:x", "a b:1", "localhost:65536", "http://localhost:1"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Keep::parse("none"), Ok(Keep(None)));
        assert_eq!(Keep::parse("/a/b"), Ok(Keep(Some("/a/b".into()))));
        assert!(Keep::parse("b").is_err() && Keep::parse("").is_err());
    }
}
