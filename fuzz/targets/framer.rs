//! The fuzz target `framer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sipguard_fuzz::framer(input));
