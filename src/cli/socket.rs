//! Connects commands to the daemon's socket, and maps its errors to exit codes.
//!
//! Used by every command that asks the daemon: `add`, `remove`, `list`, `show`, `deliveries`, `reload` and `doctor`.

use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::flags::Global;
use super::out::{self, Out};
use super::setup::{environment, path_variable};
use crate::control::{self, Client, ClientError};
use crate::daemon;
use crate::small_file;

/// A connection to the daemon.
pub(super) async fn connect(global: &Global) -> Result<Client, Failure> {
    // A file that was named must be there, whatever is needed of it.
    if let Some(path) = global.config()
        && let Err(error) = small_file::read_text(path, small_file::LARGE)
    {
        let path = path.display();
        out::error(format_args!("cannot read the configuration file {path}: {error}"));
        return Err(Failure::Said(Exit::Config));
    }
    // It says only where the state is: mistakes in it, or a file of the daemon's own, are no reason to find no daemon.
    let loaded = crate::config::load(global.config(), &environment, &global.overrides(None)).ok();
    let state_dir = loaded.and_then(|loaded| loaded.config.state_dir);
    Ok(Client::connect(&candidates(state_dir.as_deref())).await?)
}

/// Where the daemon's socket may be, given the configured state directory.
pub(super) fn candidates(state_dir: Option<&Path>) -> Vec<PathBuf> {
    control::candidates(&path_variable, daemon::directory(state_dir, &path_variable))
}

/// Why a command that uses the socket failed.
pub(super) enum Failure {
    /// The daemon refused, or none answers.
    Client(ClientError),
    /// The reason was shown already.
    Said(Exit),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Exit> for Failure {
    fn from(exit: Exit) -> Self {
        Self::Said(exit)
    }
}

/// Turns the result of a command that uses the socket into its exit code, and shows the error.
pub(super) fn end(out: &Out, result: Result<Exit, Failure>) -> Exit {
    match result {
        Ok(exit) | Err(Failure::Said(exit)) => exit,
        Err(Failure::Client(error)) => {
            out.error(&error);
            exit_of(&error)
        }
    }
}

/// The exit code for what went wrong with the daemon.
fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::NotFound(_) => Exit::NotFound,
        ClientError::Refused(_) => Exit::Usage,
        ClientError::NoDaemon(_)
        | ClientError::Forbidden(_)
        | ClientError::Silent { .. }
        | ClientError::Gone { .. } => Exit::NoDaemon,
        ClientError::Unavailable(_) | ClientError::Write(_) | ClientError::Broken { .. } => Exit::Internal,
    }
}
