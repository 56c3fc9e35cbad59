//! The signals that end a command. Only the command line handles them; other code is cancelled by a value.
//!
//! SIGHUP ends a command in the foreground. The daemon reloads at it instead, and handles it itself.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

/// Signals within this time count as one, because timeout(1) signals twice.
pub(super) const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM, and SIGHUP for what runs in the foreground.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Handles SIGINT and SIGTERM, which would otherwise end the process at once.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: None,
        })
    }

    /// Also handles SIGHUP, unless the process was started with it ignored (nohup).
    pub(super) fn in_foreground() -> std::io::Result<Self> {
        let hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { hangup, ..Self::new()? })
    }

    /// Waits for the next signal, and returns the exit code that it means.
    pub(super) async fn next(&mut self) -> Exit {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => None,
            }
        };
        tokio::select! {
            Some(()) = hangup => Exit::HungUp,
            Some(()) = self.interrupt.recv() => Exit::Interrupted,
            Some(()) = self.terminate.recv() => Exit::Terminated,
            else => std::future::pending().await,
        }
    }
}

/// Changes of the terminal's size (SIGWINCH).
pub(super) struct Resizes(Option<Signal>);

impl Resizes {
    /// Listens. Where that cannot be, the next drawing has the new size, later.
    pub(super) fn listen() -> Self {
        Self(signal(SignalKind::window_change()).ok())
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        let resized = async { self.0.as_mut()?.recv().await };
        if resized.await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether this process was started with SIGHUP ignored, as by nohup(1). Must be called before the signal is handled, because
/// that undoes it.
pub(super) fn hangup_is_ignored() -> bool {
    use std::sync::OnceLock;
    static IGNORED: OnceLock<bool> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        // proc_pid_status(5); where there is no /proc, nothing is known to be ignored.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
    })
}
