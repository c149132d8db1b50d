//! Rules by name: who is blocked or allowed, why, until when and by whom, in one SQLite file. The kernel's maps are derived from it.
//!
//! A verb that changes rules goes this way (`change.rs`):
//!
//! 1. its turn (`lock.rs`);
//! 2. while attached: `version` is raised and committed. From here on `version` and `applied` differ;
//! 3. one transaction: what has ended is swept, rows change, and the maps are reconciled with what is desired;
//! 4. `applied` becomes `version` with the commit of that transaction.
//!
//! A rule that the kernel refuses undoes the maps and the transaction, so the store never claims what is not in force. A process
//! that dies leaves `version` and `applied` distinct; the next one sees it and compares all of the store with all of the maps (`compare.rs`). A long list
//! takes many such changes (`bulk.rs`). Who only reads takes no lock, and reads page by page: a long look would keep writers from their commit.

mod apply;
mod at_once;
mod audit;
mod bans;
mod bulk;
mod change;
mod checks;
mod compare;
mod configured;
mod denials;
mod desired;
mod diagnosis;
mod dry_run;
mod edit;
mod feeds;
mod limits;
mod lock;
mod mapped;
mod open;
mod origin;
mod policy;
mod rows;
mod schema;
mod tally;
mod trunks;
mod undo_log;
mod within;

pub use at_once::AtOnceLimit;
pub use audit::AuditRecord;
pub(crate) use audit::{lines, note};
pub use bans::row as ban_row;
pub(crate) use bulk::bulk;
pub use change::Changed;
pub(crate) use change::{blocks_in_force, change, refresh, restore};
pub use checks::CheckRow;
pub use configured::{ConfiguredNames, ConfiguredRows};
pub use denials::{Denial, DenialChange};
pub use desired::Allowed;
pub(crate) use desired::decides;
pub use dry_run::{DryRun, dry_run};
pub use edit::{Change, Counts, RuleRemoval, RuleSpec};
pub use feeds::FeedRow;
pub use limits::{DEFAULTS as DEFAULT_LIMITS, Limit};
pub use open::{all_trunks, read};
pub use origin::{origin as parse_origin, reason as parse_reason};
pub(crate) use rows::key;
pub use rows::{RuleKey, RuleQuery, RuleRow, StoreTables};
pub use trunks::Peers;

/// Default place of the store.
pub const DEFAULT_FILE: &str = "/var/lib/sipguard/sipguard.db";
/// Who sets a rule unless another origin is named: the operator, by hand.
pub const OPERATOR: &str = "cli";
/// Who bans: the guard itself.
pub const GUARD: &str = "guard";
/// Who changes rules for the configuration file.
pub const CONFIGURATION: &str = "config";
/// Who set a rule that was found in the kernel without a row in the store.
pub const RECOVERED: &str = "recovered";
/// How the name of a trunk begins that was found in the kernel, which knows it by its number.
pub(crate) const RECOVERED_TRUNK: &str = "recovered-";
