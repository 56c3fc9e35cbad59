//! The answer about one run.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwatch::api::fuzzing::run(data));
