//! The only place that writes to the standard streams. Every text goes through `safe`, except commands for GitHub's runner,
//! text for programs (a completion script, a man page), and a `Picture`, whose cells are safe. Only the question in `pick`
//! is written by its library.
//!
//! A reader that has gone (`runwatch … | head`) is not an error; a full disk is. A reader that has stopped (a paused
//! terminal, a stalled connection) delays only the output, because an [`Out`] writes on its own thread. Meanwhile output
//! is queued, and dropped beyond a limit.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use super::picture::Picture;
use super::screen::{Frame, Screen};
use super::stream::Stream;
use super::{readers, safe, vital};
use crate::notify::log::{Receipt, receipt};
use crate::run::text::one_line;

/// Writes that may wait for a reader that has stopped; beyond that, lines are dropped.
const LONGEST_QUEUE: usize = 10_000;

/// How long the end of a command waits for what it has said to be written.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Writes text to standard output and flushes, on this thread. A reader that has gone is no error.
pub(super) fn stdout(text: &str) -> io::Result<()> {
    verbatim(&on_stdout(text))
}

/// Writes a text of our own to standard output as it is.
pub(super) fn verbatim(text: &str) -> io::Result<()> {
    match Stream::Stdout.write(text.as_bytes()) {
        Err(error) if is_gone(&error) => Ok(()),
        result => result,
    }
}

/// Whether standard output failed because its reader has gone: a closed pipe, or a terminal that was closed (EIO).
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || readers::stdout_has_gone()
}

/// Writes to standard error, on this thread. There is nobody left to tell if that fails.
pub(super) fn stderr(text: &str) {
    let _ = Stream::Stderr.write(on_stderr(text).as_bytes());
}

/// Says on standard error that something went wrong, and what to do, in one line, on this thread.
pub(super) fn error(text: impl std::fmt::Display) {
    stderr(&error_line(text));
}

/// As [`error`], where nothing may hold up the end of the process: if standard error has no room for so long, nothing is
/// said.
pub(super) fn last_words(text: &str, patience: Duration) {
    let stderr = io::stderr();
    let patience = Timespec::try_from(patience).unwrap_or_default();
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&patience)).is_ok_and(|ready| ready > 0) {
        // Past the lock, which a thread that is stuck may have.
        let _ = rustix::io::write(&stderr, error_line(text).as_bytes());
    }
}

/// What is foreign in an error ends with its line.
fn error_line(text: impl std::fmt::Display) -> String {
    format!("runwatch: {}\n", one_line(&text.to_string()))
}

/// A text as standard output may have it.
pub(super) fn on_stdout(text: &str) -> Cow<'_, str> {
    Stream::Stdout.safe(text)
}

fn on_stderr(text: &str) -> Cow<'_, str> {
    Stream::Stderr.safe(text)
}

/// The standard streams, written by a thread of their own. Cheap to clone.
#[derive(Clone)]
pub(super) struct Out {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// There is nothing left to write.
    emptied: Condvar,
    /// Whoever read standard output has gone.
    closed: CancellationToken,
    /// Standard output could not be written.
    failed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The display as it is to be drawn next; an older one that was never drawn is no loss.
    frame: Option<Frame>,
    writing: bool,
    dropped: usize,
}

enum Job {
    /// A line on standard output, above the display.
    Say(String),
    /// Bytes on standard error, above the display. Of a line of a log channel, how it went matters.
    Stderr(Vec<u8>, Option<Receipt>),
    /// The result, on standard output; how it went matters.
    Result(String, oneshot::Sender<io::Result<()>>),
}

impl Out {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let out = Self { shared: Arc::default() };
        let shared = Arc::clone(&out.shared);
        vital::spawn("output", move || shared.work())?;
        Ok(out)
    }

    /// Lines on standard output; a display below them stays below.
    pub(super) fn say(&self, text: &str) {
        self.shared.push(Job::Say(on_stdout(text).into_owned() + "\n"));
    }

    /// Lines on standard error.
    pub(super) fn note(&self, text: &str) {
        self.shared.push(Job::Stderr((on_stderr(text).into_owned() + "\n").into_bytes(), None));
    }

    /// Says on standard error that something went wrong, and what to do, in one line.
    pub(super) fn error(&self, text: impl std::fmt::Display) {
        self.shared.push(Job::Stderr(on_stderr(&error_line(text)).into_owned().into_bytes(), None));
    }

    /// Commands for GitHub's runner, on standard error. What is foreign in them is escaped.
    pub(super) fn commands(&self, text: &str) {
        self.shared.push(Job::Stderr(format!("{text}\n").into_bytes(), None));
    }

    /// The display at the bottom of the screen, from now on.
    pub(super) fn draw(&self, on: Stream, picture: Picture) {
        self.shared.queue().frame = Some(Frame { on, picture });
        self.shared.filled.notify_one();
    }

    /// Lines above the display that stay, as wide as they are.
    pub(super) fn leave(&self, on: Stream, picture: &Picture) {
        let lines = picture.lines(usize::MAX, on.has_colours());
        let text: String = lines.into_iter().map(|line| line.text + "\n").collect();
        self.shared.push(match on {
            Stream::Stdout => Job::Say(text),
            Stream::Stderr => Job::Stderr(text.into_bytes(), None),
        });
    }

    /// The result of a command, on standard output, as it is: whoever makes it makes it safe. Done when it has been written.
    pub(super) async fn result(&self, text: &str) -> io::Result<()> {
        let (reply, done) = oneshot::channel();
        self.shared.push(Job::Result(text.to_owned(), reply));
        // The thread ends only with the process.
        done.await.unwrap_or(Ok(()))
    }

    /// Waits until whoever read standard output has gone; for ever if they stay.
    pub(super) async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Whether something that was said on standard output was lost.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until everything has been written, for a moment.
    pub(super) fn finish(&self) {
        let queue = self.shared.queue();
        let waits = |queue: &mut Queue| !queue.jobs.is_empty() || queue.frame.is_some() || queue.writing;
        drop(self.shared.emptied.wait_timeout_while(queue, LAST_WORDS, waits));
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut queue = self.queue();
        if queue.jobs.len() < LONGEST_QUEUE || matches!(job, Job::Result(..)) {
            queue.jobs.push_back(job);
        } else {
            queue.dropped += 1;
        }
        self.filled.notify_one();
    }

    /// Writes what comes, for as long as the process lives.
    fn work(&self) {
        let mut screen = Screen::default();
        loop {
            let (job, frame, dropped) = self.next();
            if dropped > 0 {
                stderr(&format!("runwatch: {dropped} lines were dropped: nobody read them\n"));
            }
            let written = write(job, frame, &mut screen);
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed.cancel(),
                // The reader's end of a terminal: `readers` says how that ends the command.
                Err(error) if is_gone(&error) => {}
                Err(failure) => {
                    if !self.failed.swap(true, Ordering::Relaxed) {
                        error(format_args!("cannot write to standard output: {failure}"));
                    }
                }
            }
        }
    }

    fn next(&self) -> (Option<Job>, Option<Frame>, usize) {
        let mut queue = self.queue();
        queue.writing = false;
        if queue.jobs.is_empty() && queue.frame.is_none() {
            self.emptied.notify_all();
        }
        let idle = |queue: &mut Queue| queue.jobs.is_empty() && queue.frame.is_none();
        let mut queue = self.filled.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        queue.writing = true;
        (queue.jobs.pop_front(), queue.frame.take(), std::mem::take(&mut queue.dropped))
    }
}

fn write(job: Option<Job>, frame: Option<Frame>, screen: &mut Screen) -> io::Result<()> {
    if let Some(frame) = frame {
        screen.show(frame);
    }
    match job {
        None => screen.draw(),
        Some(Job::Say(text)) => screen.write_above(Stream::Stdout, text.as_bytes()),
        // Another attempt writes the line.
        Some(Job::Stderr(_, Some(receipt))) if receipt.is_void() => Ok(()),
        Some(Job::Stderr(bytes, receipt)) => {
            let written = screen.write_above(Stream::Stderr, &bytes);
            if let Some(receipt) = receipt {
                receipt.give(if stderr_was_closed() { Err(closed()) } else { written });
            }
            Ok(())
        }
        Some(Job::Result(text, reply)) => {
            // Usually the display has gone by now, and this takes it off the screen.
            let _ = screen.draw();
            // Whoever asked may have been told to stop.
            let _ = reply.send(verbatim(&text));
            Ok(())
        }
    }
}

/// Whether this process was started without a standard error. Rust opens `/dev/null` for reading and writing in its place,
/// so that no other file gets its number; what is written there, nobody gets.
fn stderr_was_closed() -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let stderr = io::stderr();
    let (Ok(here), Ok(null), Ok(flags)) = (fstat(&stderr), stat("/dev/null"), fcntl_getfl(&stderr)) else {
        return false;
    };
    here.st_rdev == null.st_rdev && here.st_mode == null.st_mode && flags.contains(OFlags::RDWR)
}

fn closed() -> io::Error {
    io::Error::other("standard error is closed")
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        let safe = |line: &str| on_stderr(line).into_owned();
        LogLine { shared: &self.shared, bytes: Vec::new(), safe, receipt: receipt() }
    }
}

/// Where log lines in JSON go.
pub(super) struct JsonLog(pub(super) Out);

impl<'a> MakeWriter<'a> for JsonLog {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { shared: &self.0.shared, bytes: Vec::new(), safe: safe::json, receipt: receipt() }
    }
}

/// One log line on its way to standard error.
pub(super) struct LogLine<'a> {
    shared: &'a Shared,
    bytes: Vec<u8>,
    /// Makes the line safe to show.
    safe: fn(&str) -> String,
    /// Of a line of a log channel.
    receipt: Option<Receipt>,
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            let line = String::from_utf8_lossy(&self.bytes);
            self.shared.push(Job::Stderr((self.safe)(&line).into_bytes(), self.receipt.take()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_dropped_and_counted() {
        let shared = Shared::default();
        for _ in 0..LONGEST_QUEUE + 7 {
            shared.push(Job::Stderr(Vec::new(), None));
        }
        let (reply, _done) = oneshot::channel();
        shared.push(Job::Result(String::new(), reply));
        let queue = shared.queue();
        assert_eq!((queue.jobs.len(), queue.dropped), (LONGEST_QUEUE + 1, 7), "a result is never dropped");
    }
}
