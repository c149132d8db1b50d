//! `deny` and `permit`.

use anyhow::Result;
use sipguard_core::denial::{DeniedTraffic, Whom};
use sipguard_core::ops::denial::{Denied, Request};
use sipguard_core::ops::parse_reason;

use super::usage;

#[derive(Debug, clap::Args)]
pub struct DenyArgs {
    /// A transport (tcp, tls, udp), a method (REGISTER: over TCP and UDP), or a method over a transport (REGISTER/tcp); without one,
    /// what is denied is shown
    #[arg(value_name = "TRANSPORT|METHOD[/TRANSPORT]", requires = "from")]
    what: Vec<String>,

    /// Who may not send it: trunks, or devices (whoever is no trunk)
    #[arg(long, value_name = "trunks|devices", value_parser = Whom::parse, requires = "what")]
    from: Option<Whom>,

    /// Why, for `list deny`
    #[arg(long, alias = "reason", value_name = "TEXT", value_parser = parse_reason, requires = "what")]
    comment: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct PermitArgs {
    /// What was denied, written as for `deny`
    #[arg(required = true, value_name = "TRANSPORT|METHOD[/TRANSPORT]")]
    what: Vec<String>,

    /// Who may send it: trunks, or devices (whoever is no trunk)
    #[arg(long, value_name = "trunks|devices", value_parser = Whom::parse)]
    from: Whom,
}

impl DenyArgs {
    /// `None` asks for what is denied.
    pub fn request(self) -> Result<Option<Request>> {
        let Some(whom) = self.from else { return Ok(None) };
        let denied = Some(Denied { comment: self.comment });
        Ok(Some(Request { whom, what: parse(&self.what)?, denied }))
    }
}

impl PermitArgs {
    pub fn request(self) -> Result<Request> {
        Ok(Request { whom: self.from, what: parse(&self.what)?, denied: None })
    }
}

fn parse(words: &[String]) -> Result<Vec<DeniedTraffic>> {
    let mut all: Vec<DeniedTraffic> = Vec::new();
    for word in words {
        for what in DeniedTraffic::parse(word).map_err(usage)? {
            if !all.iter().any(|one| one.to_string() == what.to_string()) {
                all.push(what);
            }
        }
    }
    Ok(all)
}
