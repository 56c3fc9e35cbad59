//! The list of runs, in chunks of any size.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwatch::api::fuzzing::list(data));
