//! The daemon's local socket: HTTP with JSON on a Unix socket, so that curl can speak it too.
//!
//! `wire` is what goes over it, `serve` a small server for it, `client` the commands' side. What the daemon does about a
//! request is the daemon's.

mod client;
mod serve;
mod wire;

use std::path::PathBuf;

pub use client::{Client, ClientError};
pub use serve::{Answer, Serve, Server, serve_tcp, serve_unix};
pub use wire::{
    AddRequest, Added, AddedRun, Deliveries, Health, NewRun, ReloadAnswer, ResendRequest, Run, Runs, Settled,
    Status,
};

/// The socket's name.
const NAME: &str = "runwatch.sock";

/// Where the socket is: in `$RUNTIME_DIRECTORY` (systemd's), else `$XDG_RUNTIME_DIR/runwatch`, else in the state directory.
pub fn socket(env: &dyn Fn(&str) -> Option<String>, state_dir: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    set("RUNTIME_DIRECTORY")
        .and_then(|dirs| dirs.split(':').next().map(PathBuf::from))
        .or_else(|| set("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("runwatch")))
        .or(state_dir)
        .map(|dir| dir.join(NAME))
}

/// Where a command looks for a daemon's socket, in order: its own places first, then the system service's.
pub fn candidates(env: &dyn Fn(&str) -> Option<String>, state_dir: Option<PathBuf>) -> Vec<PathBuf> {
    let own = socket(env, None).into_iter().chain(state_dir.map(|dir| dir.join(NAME)));
    own.chain([PathBuf::from("/run/runwatch").join(NAME)]).collect()
}
