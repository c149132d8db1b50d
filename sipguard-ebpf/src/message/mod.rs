//! Messages over TCP and UDP: `sip` runs the framer of `sipguard-common` over `window`, and `match_headers` looks up rules about header lines.
//! `fragment` orders the IP fragments of a datagram before that, and `checksum` is verified before a stream is rejected.

pub mod checksum;
pub mod fragment;
pub mod match_headers;
pub mod sip;
mod window;
