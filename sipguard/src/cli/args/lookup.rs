//! `lookup` and `explain`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use sipguard_common::Reason;
use sipguard_core::near;
use sipguard_core::ops::lookup::LookupQuery;
use sipguard_core::target::Target;

use super::usage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address; with a port, the device behind it; a SIP identity; or a reason that `counters` shows
    #[arg(value_name = "ADDR[:PORT]|sip:USER@HOST|REASON", required_unless_present = "agent")]
    subject: Option<String>,

    /// End with status 10 where a rule or a ban stops it, so that a script can ask; monitor mode or not
    #[arg(long)]
    pub exit_code: bool,

    /// A User-Agent, as a request has it
    #[arg(long = "user-agent", value_name = "TEXT", conflicts_with = "subject")]
    agent: Option<String>,
}

/// What is asked about.
pub enum Asked {
    /// Somebody.
    Who(LookupQuery),
    /// A reason, with its check.
    Reason(Reason),
}

impl Args {
    pub fn request(&self) -> Result<Asked> {
        self.reason().map_or_else(|| self.who().map(Asked::Who), |reason| Ok(Asked::Reason(reason)))
    }

    fn reason(&self) -> Option<Reason> {
        let text = self.subject.as_deref()?;
        Reason::ALL.iter().copied().find(|reason| reason.name().eq_ignore_ascii_case(text))
    }

    fn who(&self) -> Result<LookupQuery> {
        if let Some(agent) = &self.agent {
            return Ok(LookupQuery::user_agent(agent));
        }
        let text = self.subject.as_deref().unwrap_or_default();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(LookupQuery::Address(address.to_canonical(), None));
        }
        if let Ok(device) = text.parse::<SocketAddr>() {
            return Ok(LookupQuery::Address(device.ip().to_canonical(), Some(device.into())));
        }
        let hint = near::hint(&text.to_ascii_lowercase(), Reason::ALL.iter().map(|reason| reason.name()));
        match text.parse::<Target>() {
            Ok(target @ Target::Identity(_)) => {
                Ok(LookupQuery::Claim { shown: target.to_string(), targets: vec![target] })
            }
            Err(error) if text.to_ascii_lowercase().starts_with("sip") => Err(usage(error)),
            _ => Err(usage(format!(
                "`{text}`{hint} is neither an address nor a SIP identity nor a reason: write 203.0.113.7, 203.0.113.7:5060, 2001:db8::7, \
                 [2001:db8::7]:5060, sip:1234@pbx.example, or a reason that `sipguard counters` shows, such as {}; of a User-Agent ask with \
                 `--user-agent TEXT`",
                Reason::BadNumber.name()
            ))),
        }
    }
}
