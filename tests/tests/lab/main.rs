//! Tier `lab`: an attached guard in network namespaces, with real sockets and real peers: Kamailio, SIPp, phones, a browser, Prometheus.
//! It needs root and the packages that `cargo xtask setup --for test` installs.

mod allow;
mod attacks;
mod balancer;
mod bans;
mod capture;
mod cases;
mod claims;
mod config;
mod confirm;
mod dashboard;
mod denials;
mod devices;
mod evasion;
mod events;
mod exchange;
mod framing;
mod green_lights;
mod half_messages;
mod hep;
mod incident;
mod lifecycle;
mod limits;
mod metrics;
mod open_connections;
mod policy;
mod protection;
mod serve;
mod sockets;
mod store;
mod store_file;
mod top;
mod traffic;
mod trunks;
mod units;
mod user_agents;
