//! What `attach` and `replay` share: which ports are guarded, and how what comes there is checked.

use sipguard_common::framer::LIMITS;
use sipguard_core::settings::{Profile, SettingsRequest};

#[derive(Debug, clap::Args)]
pub struct GuardArgs {
    /// Guarded ports of the PBX, TCP and UDP; plain SIP only, since TLS, WebSocket or HTTP there would be
    /// reset [default: 5060, or those in force or in the configuration file]
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,

    /// Ports of SIP over TLS, whose records are checked and not decrypted; `none` for none [default: 5061, or those in force or in the
    /// configuration file]
    #[arg(long = "tls-port", value_name = "PORT", value_delimiter = ',', value_parser = parse_tls_port)]
    tls_ports: Vec<TlsPort>,

    /// Which checks are made and how large the limits are; docs/reference/checks.md lists them [default: default, or what is in force or in the
    /// configuration file]
    #[arg(long, value_enum)]
    profile: Option<Profile>,

    /// Refuse messages whose lines end with LF alone [default: no, or what is in force or in the configuration file]
    #[arg(long, value_name = "YES|NO", num_args = 0..=1, require_equals = true, default_missing_value = "yes", value_parser = clap::builder::BoolishValueParser::new())]
    refuse_lf: Option<bool>,

    /// Set the limit of one check, such as line-bytes=8192; can be repeated
    #[arg(long = "check", alias = "limit", value_name = "NAME=VALUE", value_parser = parse_check)]
    checks: Vec<(usize, u32)>,
}

/// A port, or `none`.
#[derive(Clone, Copy, Debug)]
struct TlsPort(Option<u16>);

impl GuardArgs {
    /// What is asked of the settings.
    pub fn settings(self) -> SettingsRequest {
        let tls_ports =
            (!self.tls_ports.is_empty()).then(|| self.tls_ports.iter().filter_map(|port| port.0).collect());
        SettingsRequest {
            ports: (!self.ports.is_empty()).then_some(self.ports),
            tls_ports,
            profile: self.profile,
            refuse_lf: self.refuse_lf,
            single: self.checks,
            ..SettingsRequest::default()
        }
    }
}

fn parse_tls_port(text: &str) -> Result<TlsPort, String> {
    if text == "none" {
        return Ok(TlsPort(None));
    }
    match text.parse() {
        Ok(port) if port != 0 => Ok(TlsPort(Some(port))),
        _ => Err("a port is 1 to 65535, or `none`".to_owned()),
    }
}

fn parse_check(text: &str) -> Result<(usize, u32), String> {
    let names = || LIMITS.iter().map(|limit| limit.name).collect::<Vec<_>>().join(", ");
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("NAME=VALUE is missing; names are {}", names()))?;
    let index = LIMITS.iter().position(|limit| limit.name == name);
    let index = index.ok_or_else(|| format!("no check `{name}`; there are {}", names()))?;
    let (low, high) = LIMITS[index].range;
    match value.parse() {
        Ok(number) if (low..=high).contains(&number) => Ok((index, number)),
        _ => Err(format!("{name} is a number from {low} to {high}")),
    }
}
