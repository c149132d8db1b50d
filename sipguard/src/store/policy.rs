//! The policy that the store wants of the kernel, and what of it a new store takes over.

use anyhow::Result;

use super::rows::Rows;
use super::say::Change;
use crate::denial::{What, Whom};
use crate::policy::Policy;

/// What the maps should say.
pub fn wanted(rows: &Rows<'_>) -> Result<Policy> {
    let mut policy = Policy { denied: [[0; 3]; 2], devices: rows.has_device()? };
    for denial in rows.denials()? {
        denial.what.deny(&mut policy.denied[denial.whom.class()]);
    }
    Ok(policy)
}

/// Fills a new store with what the kernel has.
pub fn take_over(change: &mut Change<'_>, policy: &Policy) -> Result<()> {
    for whom in [Whom::Devices, Whom::Trunks] {
        let found = What::of(&policy.denied[whom.class()]);
        change.deny(whom, &found, Some("found in the kernel"))?;
    }
    Ok(())
}
