//! Standard output and standard error: writing to them, and the terminal that each leads to.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;

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
            Self::Stdout => write_fully(io::stdout().lock(), bytes),
            Self::Stderr => write_fully(io::stderr().lock(), bytes),
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

/// Writes everything, and waits where there is no room: whoever reads may have made the pipe non-blocking for both ends.
fn write_fully(mut out: impl Write + AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match waiting(&mut out, |out| out.write(bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    waiting(&mut out, Write::flush)
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
