//! Everything together: the built binary, and the library against servers on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod architecture;
mod client;
mod commands;
mod daemon;
mod delivery;
mod desktop;
mod exit_codes;
mod notifying;
mod official;
mod polling;
mod simulator;
mod support;
mod terminal;
mod wait;
