//! Requests on the daemon's socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwatch::daemon::fuzzing::request(data));
