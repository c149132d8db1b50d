//! The fuzz target `datagrams`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sipguard_fuzz::datagrams(input));
