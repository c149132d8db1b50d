//! The lab: network namespaces, a real PBX, real phones and a fragile one, in which sipguard is tested and
//! demonstrated. Everything a guard of this crate starts or makes is gone when the guard is.

pub mod application;
pub mod bench;
pub mod browser;
pub mod capture;
pub mod chance;
pub mod demo;
pub mod dial;
pub mod envelope;
pub mod fragile;
pub mod guard;
pub mod guest;
pub mod interrupt;
pub mod judge;
pub mod kamailio;
pub mod lab;
pub mod message;
pub mod netns;
pub mod network;
pub mod office;
pub mod packet;
pub mod process;
pub mod program;
pub mod question;
pub mod relay;
pub mod rules;
pub mod scratch;
pub mod segment;
pub mod sender;
pub mod service;
pub mod sipp;
pub mod supervisor;
pub mod tmpfs;
pub mod user_agent;
pub mod wire;
pub mod witness;
