//! Notices that whoever reads the standard streams has gone: a closed pipe, a closed terminal, a lost connection.
//!
//! A quiet watch may write nothing for hours, so a failed write would come too late. So the descriptors are polled. Files and
//! `/dev/null` never report a reader that has gone. Used by `foreground` and while `watch` fetches the list of runs.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::exit::Exit;
use super::signals::hangup_is_ignored;
use super::verdict::Cut;

/// The streams that show the progress. The command ends when none of them has a reader any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Standard output.
    OnStdout,
    /// Standard error, with a result on standard output. The command continues while either has a reader.
    OnBoth,
}

/// Waits until the readers have gone.
pub(super) struct Readers {
    /// `None` if a stream can never lose its reader, such as a file.
    gone: Option<oneshot::Receiver<Cut>>,
}

impl Readers {
    /// Starts a thread that polls the streams.
    pub(super) fn of(shown: Shown) -> Self {
        let (tell, gone) = oneshot::channel();
        // It is never joined: it waits for as long as the readers stay. Without a thread, a write notices, later.
        let _ = std::thread::Builder::new().name("readers".to_owned()).spawn(move || {
            if let Some(cut) = until_gone(shown) {
                let _ = tell.send(cut);
            }
        });
        Self { gone: Some(gone) }
    }

    /// Waits until the readers have gone, and returns how that ends the watch. Waits for ever if they stay.
    pub(super) async fn gone(&mut self) -> Cut {
        if let Some(gone) = &mut self.gone {
            if let Ok(cut) = gone.await {
                return cut;
            }
            // It must not be asked again.
            self.gone = None;
        }
        std::future::pending().await
    }
}

/// Blocks until the readers have gone; `None` if that cannot happen.
fn until_gone(shown: Shown) -> Option<Cut> {
    // Asked before it hangs up: a terminal that has gone is none.
    let stdout_is_terminal = io::stdout().is_terminal();
    let terminal = stdout_is_terminal || (shown == Shown::OnBoth && io::stderr().is_terminal());
    // Whoever ignores SIGHUP (nohup) wants to outlive the terminal.
    if terminal && hangup_is_ignored() {
        return None;
    }
    wait_for_hangup(io::stdout())?;
    match shown {
        Shown::OnStdout if stdout_is_terminal => Some(Cut::Signal(Exit::HungUp)),
        Shown::OnStdout => Some(Cut::NobodyReads),
        Shown::OnBoth => {
            wait_for_hangup(io::stderr())?;
            Some(Cut::Signal(Exit::HungUp))
        }
    }
}

/// Blocks until the stream's other end has gone; `None` if it cannot be polled.
fn wait_for_hangup(stream: impl AsFd) -> Option<()> {
    loop {
        // No events are asked for: these two are always reported.
        let mut polled = [PollFd::new(&stream, PollFlags::empty())];
        match poll(&mut polled, None) {
            Ok(_) => return hung_up(&polled).then_some(()),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Whether the reader of standard output has gone by now.
pub(super) fn stdout_has_gone() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok() && hung_up(&polled)
}

fn hung_up(polled: &[PollFd<'_>]) -> bool {
    polled.iter().all(|polled| polled.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
