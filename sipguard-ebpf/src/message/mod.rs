//! The message, TCP and UDP alike: `sip` drives the framer of `sipguard-common` over `window`, and asks `screen` where there are rules about a line.
//! `fragment` puts a datagram in IP fragments in order before that, and `checksum` is asked before a stream is refused.

pub mod checksum;
pub mod fragment;
pub mod screen;
pub mod sip;
mod window;
