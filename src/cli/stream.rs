//! Standard output and standard error: writing to them, and the terminal that each leads to.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use rustix::event::{PollFd, PollFlags, poll};

use super::block::Size;
use super::safe;

/// The size if the terminal does not know its own.
const USUAL: Size = Size { height: 24, width: 80, reflows: false };

/// A stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stream {
    #[default]
    Stdout,
    Stderr,
}

impl Stream {
    /// Writes everything and flushes, on this thread.
    pub(super) fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => write_whole(io::stdout().lock(), bytes, &STDOUT_TORN),
            Self::Stderr => write_whole(io::stderr().lock(), bytes, &STDERR_TORN),
        }
    }

    /// The text without what must not reach this stream.
    pub(super) fn safe(self, text: &str) -> Cow<'_, str> {
        safe::text(text, self.has_colours())
    }

    /// Whether colours are shown.
    pub(super) fn has_colours(self) -> bool {
        match self {
            Self::Stdout => console::colors_enabled(),
            Self::Stderr => console::colors_enabled_stderr(),
        }
    }

    /// Whether there is a terminal.
    pub(super) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Whether there is a terminal that can be drawn on.
    pub(super) fn is_screen(self) -> bool {
        self.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// The lines and columns of the terminal.
    pub(super) fn size(self) -> Size {
        let term = match self {
            Self::Stdout => Term::stdout(),
            Self::Stderr => Term::stderr(),
        };
        term.size_checked().map_or(USUAL, |(height, width)| Size {
            height: usize::from(height).max(1),
            width: usize::from(width).max(2),
            reflows: reflows(),
        })
    }
}

/// Whether the terminal wraps lines again when it becomes narrower. Most do; xterm, the Linux console and screen do not.
fn reflows() -> bool {
    let has = |name| std::env::var_os(name).is_some();
    let is_console = std::env::var_os("TERM").is_some_and(|term| term == "linux");
    has("TMUX") || !(has("XTERM_VERSION") || has("STY") || is_console)
}

/// Whether a stream ends in the middle of a line, because the last write failed there, as on a full disk.
static STDOUT_TORN: AtomicBool = AtomicBool::new(false);
static STDERR_TORN: AtomicBool = AtomicBool::new(false);

/// Writes everything. What follows a line that was cut off begins on a line of its own.
fn write_whole(mut out: impl Write + AsFd, bytes: &[u8], torn: &AtomicBool) -> io::Result<()> {
    if bytes.is_empty() {
        return waiting(&mut out, Write::flush);
    }
    if torn.load(Ordering::Relaxed) {
        write_fully(&mut out, b"\n").map_err(|(_, error)| error)?;
        torn.store(false, Ordering::Relaxed);
    }
    write_fully(&mut out, bytes).map_err(|(written, error)| {
        torn.store(written > 0 && bytes[written - 1] != b'\n', Ordering::Relaxed);
        error
    })
}

/// Writes everything, and waits where there is no room: whoever reads may have made the pipe non-blocking for both ends.
/// An error comes with the number of bytes that were written.
fn write_fully(out: &mut (impl Write + AsFd), bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match waiting(out, |out| out.write(&bytes[written..])) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) => return Err((written, error)),
        }
    }
    waiting(out, Write::flush).map_err(|error| (written, error))
}

/// Tries again until there is room.
fn waiting<O: AsFd, T>(out: &mut O, mut attempt: impl FnMut(&mut O) -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt(out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Broken off by a signal is as good as over.
                let _ = poll(&mut [PollFd::new(&*out, PollFlags::OUT)], None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    /// A file on a disk with room for so many bytes.
    struct Disk {
        file: std::fs::File,
        room: usize,
        kept: Vec<u8>,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= written;
            self.kept.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for &mut Disk {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }
    }

    #[test]
    fn what_follows_a_line_that_was_cut_off_begins_on_its_own_line() {
        let torn = AtomicBool::new(false);
        let mut disk = Disk { file: std::fs::File::open("/dev/null").unwrap(), room: 8, kept: Vec::new() };
        assert!(write_whole(&mut disk, b"one\n", &torn).is_ok());
        assert!(write_whole(&mut disk, b"two\nthree\n", &torn).is_err(), "cut off after a line");
        disk.room = 3;
        assert!(write_whole(&mut disk, b"four\n", &torn).is_err());
        assert!(write_whole(&mut disk, b"lost\n", &torn).is_err());
        disk.room = 1;
        assert!(write_whole(&mut disk, b"lost\n", &torn).is_err(), "only the line break had room");
        disk.room = 100;
        assert!(write_whole(&mut disk, b"five\n", &torn).is_ok());
        assert!(write_whole(&mut disk, b"six\n", &torn).is_ok());
        assert_eq!(String::from_utf8_lossy(&disk.kept), "one\ntwo\nfou\nfive\nsix\n");
    }
}
