//! The headers of a packet, from the outside in: `eth` finds the IP header, `ip` the transport header, `tcp` and `udp` the payload. All read
//! through `bytes`.

pub mod bytes;
pub mod eth;
pub mod ip;
pub mod tcp;
pub mod udp;
