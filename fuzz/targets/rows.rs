//! Rows of the state file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwatch::store::fuzzing::rows(data));
