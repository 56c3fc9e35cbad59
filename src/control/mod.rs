//! The daemon's local socket: HTTP with JSON on a Unix socket, so that curl can use it too.
//!
//! `wire` defines the messages, `serve` is a small server, and `client` is the commands' side. The daemon handles the
//! requests.

mod client;
mod connections;
mod exchange;
mod object;
mod payload;
mod place;
mod serve;
mod wire;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

pub use client::{Client, ClientError};
pub use exchange::{Answer, Asked, Serve};
pub use object::Object;
pub use place::{Opened, Place};
pub use serve::{Server, any_ended, serve_opened, serve_tcp, serve_unix};
pub use wire::{
    AddRequest, Added, AddedRun, Deliveries, Doctor, Finding, FindingState, Health, NewRun, Ping,
    ReloadAnswer, ResendRequest, RetryRequest, Run, Runs, Settled, Status,
};

/// The socket's name.
const NAME: &str = "runwatch.sock";

/// The environment variable for the socket's path, for the daemon and the commands.
const VARIABLE: &str = "RUNWATCH_SOCKET";

/// Reads an environment variable. Paths need not be UTF-8.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The path of a daemon's socket: `$RUNWATCH_SOCKET`, else in `$RUNTIME_DIRECTORY` (set by systemd), else in
/// `$XDG_RUNTIME_DIR/runwatch`, else in the state directory.
pub fn socket(env: Environment<'_>, state_dir: &Path) -> PathBuf {
    named(env).or_else(|| in_runtime_dir(env)).unwrap_or_else(|| state_dir.join(NAME))
}

/// Where a command looks for a daemon's socket, in order: the named path, or else this user's own paths and then the
/// system service's.
pub fn candidates(env: Environment<'_>, state_dir: Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(named) = named(env) {
        return vec![named];
    }
    let own = in_runtime_dir(env).into_iter().chain(state_dir.map(|dir| dir.join(NAME)));
    own.chain([PathBuf::from("/run/runwatch").join(NAME)]).collect()
}

fn set(env: Environment<'_>, name: &str) -> Option<OsString> {
    env(name).filter(|value| !value.is_empty())
}

fn named(env: Environment<'_>) -> Option<PathBuf> {
    set(env, VARIABLE).map(PathBuf::from)
}

fn in_runtime_dir(env: Environment<'_>) -> Option<PathBuf> {
    let first = |dirs: OsString| {
        let first = dirs.as_bytes().split(|byte| *byte == b':').next()?;
        Some(PathBuf::from(OsStr::from_bytes(first)))
    };
    let systemds = set(env, "RUNTIME_DIRECTORY").and_then(first);
    let users = || set(env, "XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("runwatch"));
    systemds.or_else(users).map(|dir| dir.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_and_commands_look_in_the_same_places() {
        let state = Path::new("/state");
        for (name, value, expected) in [
            ("RUNWATCH_SOCKET", "/named", "/named"),
            ("RUNTIME_DIRECTORY", "/run/a:/run/b", "/run/a/runwatch.sock"),
            ("XDG_RUNTIME_DIR", "/run/user/1", "/run/user/1/runwatch/runwatch.sock"),
            ("RUNWATCH_SOCKET", "", "/state/runwatch.sock"),
        ] {
            let env = |asked: &str| (asked == name).then(|| value.into());
            let served = socket(&env, state);
            assert_eq!(served, Path::new(expected), "{name}={value}");
            assert_eq!(candidates(&env, Some(state.to_owned()))[0], served, "{name}={value}");
        }
        let nothing = |_: &str| None;
        assert_eq!(candidates(&nothing, None), [Path::new("/run/runwatch/runwatch.sock")]);
    }
}
