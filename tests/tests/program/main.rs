//! Tier `program`: frames through the loaded programs with `BPF_PROG_TEST_RUN`. It needs root, and neither an interface nor a peer.

mod advisories;
mod advisories_headers;
mod attacker;
mod budgets;
mod buffers;
mod cases;
mod checks;
mod corpus;
mod differential;
mod found;
mod fragments;
mod healing;
mod identities;
mod legal;
mod legal_headers;
mod program_runs;
mod proxy;
mod rates;
mod reasons;
mod receivers;
mod reset;
mod rules;
mod syns;
mod taps;
mod tcp_fragments;
mod unfinished;
