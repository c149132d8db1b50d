//! The table of messages from public bug reports, `tests/cases/cases.json`: what each holds, and what is right.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What is right for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every byte reaches the application.
    Passes,
    /// No connection and no datagram is read whole.
    Refused,
    /// It passes or is dropped, and nothing counts it as malformed.
    Quiet,
    /// It passes once its sender is declared a front that speaks the PROXY protocol, and is refused from anybody else.
    FrontOnly,
    /// The connection ends by itself within 45 s.
    Ends,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What is right.
    pub expected: Expected,
    /// Its datagrams.
    pub udp: Vec<Vec<u8>>,
    /// Its connections, each with what is written one after the other.
    pub tcp: Vec<Vec<Vec<u8>>>,
    /// The port that its connections go to.
    pub tcp_port: u16,
    /// The port that they come from, if it matters.
    pub source_port: Option<u16>,
}

impl Case {
    /// What is right for a connection of it, by what is written first: what does not speak the PROXY protocol needs no front.
    #[must_use]
    pub fn expected_of(&self, connection: &[Vec<u8>]) -> Expected {
        let first = connection.first().map_or(&[][..], Vec::as_slice);
        let speaks = first.starts_with(b"PROXY ") || first.starts_with(b"\r\n\r\n\0\r\nQUIT\n");
        if self.expected == Expected::FrontOnly && !speaks { Expected::Passes } else { self.expected }
    }
}

/// Every case.
///
/// # Errors
/// When the table has what nobody knows.
pub fn cases() -> Result<Vec<Case>> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/cases/cases.json"));
    let table: Vec<Value> = serde_json::from_str(text).context("tests/cases/cases.json")?;
    table.iter().map(|case| read(case).with_context(|| case["id"].to_string())).collect()
}

fn read(case: &Value) -> Result<Case> {
    let expected = match case["expect"].as_str() {
        Some("pass") => Expected::Passes,
        Some("refuse") => Expected::Refused,
        Some("quiet") => Expected::Quiet,
        Some("pass-as-balancer") => Expected::FrontOnly,
        Some("ends") => Expected::Ends,
        other => bail!("`expect` is {other:?}"),
    };
    let port = |key: &str| case[key].as_u64().map(u16::try_from).transpose();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let writes = |connection: &Value| list(connection).iter().map(|write| bytes(&write["bytes"])).collect();
    Ok(Case {
        id: case["id"].as_str().context("no id")?.to_owned(),
        expected,
        udp: list(&case["udp"]).iter().map(bytes).collect::<Result<_>>()?,
        tcp: list(&case["tcp"]).iter().map(writes).collect::<Result<_>>()?,
        tcp_port: port("tcp_port")?.unwrap_or(5060),
        source_port: port("source_port")?,
    })
}

/// The bytes of a literal as Python has them.
fn bytes(text: &Value) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_str().context("bytes are a string")?.chars();
    while let Some(sign) = rest.next() {
        if sign != '\\' {
            ensure!(sign.is_ascii(), "{sign:?} is no byte");
            bytes.push(sign as u8);
            continue;
        }
        bytes.push(match rest.next().context("a backslash at the end")? {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).with_context(|| digits.clone())?
            }
            other @ ('\\' | '\'' | '"') => other as u8,
            other => bail!("\\{other} is no escape"),
        });
    }
    Ok(bytes)
}
