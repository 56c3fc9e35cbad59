//! Writing to the standard streams, the one place that does.
//!
//! A reader that has gone (`runwatch … | head`) is no error: it has what it wanted. A full disk is one.

use std::io::{self, Write as _};

/// Writes to standard output and flushes. A closed pipe is quiet success.
pub(super) fn stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to standard error. There is nobody left to tell if that fails.
pub(super) fn stderr(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says on standard error that something went wrong, and what to do.
pub(super) fn error(text: impl std::fmt::Display) {
    stderr(&format!("runwatch: {text}\n"));
}
