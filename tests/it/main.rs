//! Integration tests: the built binary, and the library against servers on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod alerts;
mod architecture;
mod backup;
mod busy;
mod ci;
mod client;
mod commands;
mod completions;
mod configuration;
mod control;
mod daemon;
mod damage;
mod deliveries;
mod delivery;
mod desktop;
mod discovery;
mod doctor;
mod documentation;
mod durability;
mod exit_codes;
mod full_disk;
mod hostile;
mod http2;
mod ids;
mod inherited;
mod listing;
mod log_channel;

mod metrics;
mod notifying;
mod odd_answers;
mod official;
mod outbox_requests;
mod overlapping;
mod pacing;
mod polling;
mod port;
mod proxies;
mod readers;
mod recording;
mod redacting;
mod repairing;
mod requests;
mod runs;
mod schedule;
mod scheduler_discovery;
mod service_manager;
mod shell_blocks;
mod shortage;
mod simulation;
mod simulator;
mod skipping;
mod socket;
mod socket_file;
mod state;
mod supervision;
mod support;
mod systemd;
mod terminal;
mod then;
mod throttling;
mod torture;
mod unseen;
mod verdicts;
mod wait;
mod warning;
mod watch_dir;
