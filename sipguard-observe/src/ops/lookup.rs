//! What somebody who is looked up sent that was malformed or over a limit.

use anyhow::Result;
use sipguard_common::framer::identity_of;
use sipguard_core::by_address::AddressRow;
use sipguard_core::ops::lookup::LookupQuery;
use sipguard_core::ops::{Context, counters};
use sipguard_core::target::Target;

use crate::events::uri_of;
use crate::fault::Fault;

/// Of an address its row; of an identity or a user agent the rows of the addresses whose first malformed message said so, since a malformed message
/// may say anything.
///
/// # Errors
/// When no guard is attached, or the store or a map can't be read.
pub fn offenders(host: &Context, asked: &LookupQuery) -> Result<Vec<AddressRow>> {
    match asked {
        LookupQuery::Address(address, _) => Ok(counters::of_address(host, *address)?.into_iter().collect()),
        LookupQuery::Claim { targets, .. } => {
            let Some(longest) = targets.first() else { return Ok(Vec::new()) };
            let mut rows = counters::by_address(host)?;
            rows.retain(|row| {
                let malformed = row.reasons.iter().filter(|reason| reason.reason.is_malformed());
                malformed.map(Fault::of).any(|fault| says(&fault, longest))
            });
            Ok(rows)
        }
    }
}

/// Whether the message said that it is of this identity, or of a user agent that begins so.
fn says(fault: &Fault, target: &Target) -> bool {
    match target {
        Target::Identity(identity) => {
            let key = |from: &String| identity_of(uri_of(from)).map(|(key, _)| bytemuck::cast(key));
            fault.from.as_ref().and_then(key) == Some(identity.key())
        }
        Target::UserAgent(begin) => {
            let agent = fault.user_agent.as_ref();
            let head = agent.and_then(|agent| agent.get(..begin.text().len()));
            head.is_some_and(|head| head.eq_ignore_ascii_case(begin.text()))
        }
        Target::Source(_) | Target::Device(_) => false,
    }
}
