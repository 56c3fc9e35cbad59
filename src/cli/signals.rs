//! The signals that end a command. They stop here, at the edge: everything else is cancelled by value.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

/// A signal that comes so soon after another was meant by whoever sent the first: timeout(1) signals twice.
pub(super) const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the two signals over from the system, which would end the process at once.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one, as the exit code it means.
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Exit::Interrupted,
            Some(()) = self.terminate.recv() => Exit::Terminated,
            else => std::future::pending().await,
        }
    }
}
