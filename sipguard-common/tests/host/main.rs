//! Tier `host`: the framer by itself, against a byte-wise one and against what real user agents sent, and `docs/reference/checks.md` against the reasons.

mod checks;
mod corpus;
mod framer;
mod match_headers;
mod oracle;
mod proxy;
