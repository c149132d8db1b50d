//! A byte-wise framer written from RFC 3261 without a look at the fast one, and the properties that bind the two. The
//! fuzz targets compile this directory too.

pub mod bytewise;
pub mod flow;
pub mod lines;
pub mod properties;
pub mod stun;
pub mod tls;
pub mod via;
