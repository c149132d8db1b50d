//! The fuzz target `segments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sipguard_fuzz::segments(input));
