//! The thread of a database on disk.
//!
//! Owns the connection, and decides what goes into a batch. It ends when it has given the connection away, or with the
//! last handle. If it ends otherwise, it reports that, because nothing would be recorded any more.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::batch::{Call, Desk, note};
use super::copy::snapshot;
use super::{StoreError, StoreErrorKind};

/// Maximum number of calls in one transaction: enough to make the cost of the fsync small, few enough to answer soon.
const BATCH: usize = 512;

/// Minimum time between the starts of two commits; calls that arrive meanwhile share one transaction. After a pause
/// there is no wait.
const GATHER: Duration = Duration::from_millis(3);

/// The same while many calls arrive at once, such as when many runs end together. Each commit writes and syncs all
/// pages that it changed, so fewer and larger commits are faster.
const GATHER_MANY: Duration = Duration::from_millis(12);

/// Number of calls in one commit that counts as many.
const MANY: usize = 16;

/// Maximum time that dropping the last handle waits for the thread to close the file. A hanging disk must not block the
/// shutdown.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// A request to the thread.
pub(super) enum Message {
    /// Work on the database.
    Call(Box<dyn Call>),
    /// Reply at once.
    Ping(oneshot::Sender<()>),
    /// Copy the database at this path into a file without a name.
    Copy(PathBuf, oneshot::Sender<Result<File, StoreError>>),
    /// Give the connection away. Unless it comes back, the thread ends.
    Lend(Box<dyn FnOnce(Connection) -> Option<Connection> + Send>),
}

/// The handle of the thread.
pub(super) struct Worker {
    messages: Sender<Message>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl Worker {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, desk: Desk) -> Result<Self, StoreError> {
        let (messages, received) = channel();
        let (ends, ended) = channel();
        let work = move || {
            Work { desk, messages: received, next: None, wrote_at: None, gather: GATHER }.run(connection);
            drop(ends);
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(|error| {
            let message = format!("cannot start the store's thread: {error}; allow this user more processes");
            StoreError { kind: StoreErrorKind::Other, message }
        })?;
        Ok(Self { messages, ended: Mutex::new(ended) })
    }

    /// Sends a request; false if the thread has ended.
    pub(super) fn send(&self, message: Message) -> bool {
        self.messages.send(message).is_ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let close = |connection| {
            drop(connection);
            None
        };
        // It may have ended already.
        let _ = self.messages.send(Message::Lend(Box::new(close)));
        // Nothing is ever sent: this waits for the thread's end, up to the timeout.
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(END_PATIENCE);
    }
}

/// The thread's state.
struct Work {
    desk: Desk,
    messages: Receiver<Message>,
    /// Taken from the queue but not handled yet.
    next: Option<Message>,
    /// When something was last written.
    wrote_at: Option<Instant>,
    /// Minimum time from then to the next commit.
    gather: Duration,
}

impl Work {
    fn run(mut self, mut connection: Connection) {
        let unexpected = Unexpected(self.desk.health().clone());
        while let Some(message) = self.next.take().or_else(|| self.messages.recv().ok()) {
            match message {
                Message::Call(call) => self.work_off(&connection, call),
                Message::Ping(reply) => self.pong(&connection, reply),
                Message::Copy(database, reply) => {
                    let copied = snapshot(&connection, &database, || self.go_on(&connection));
                    // The caller may be gone.
                    drop(reply.send(copied));
                }
                Message::Lend(hand) => match hand(connection) {
                    Some(back) => connection = back,
                    None => break,
                },
            }
        }
        std::mem::forget(unexpected);
    }

    /// Commits this call and those waiting behind it.
    fn work_off(&mut self, connection: &Connection, call: Box<dyn Call>) {
        if let Some(wait) = self.wrote_at.and_then(|at| self.gather.checked_sub(at.elapsed())) {
            std::thread::sleep(wait);
        }
        let mut batch = vec![call];
        while batch.len() < BATCH && self.next.is_none() {
            match self.messages.try_recv() {
                Ok(Message::Call(call)) => batch.push(call),
                Ok(other) => self.next = Some(other),
                Err(_) => break,
            }
        }
        let began = Instant::now();
        self.gather = if batch.len() < MANY { GATHER } else { GATHER_MANY };
        if self.desk.work_off(connection, batch) {
            self.wrote_at = Some(began);
        }
    }

    fn pong(&mut self, connection: &Connection, reply: oneshot::Sender<()>) {
        // Errors go to those who watch the health.
        let _ = self.desk.check(connection);
        let _ = reply.send(());
    }

    /// Answers waiting calls during a long copy. Returns whether the copy may continue.
    fn go_on(&mut self, connection: &Connection) -> bool {
        loop {
            match self.next.take().or_else(|| self.messages.try_recv().ok()) {
                Some(Message::Call(call)) => self.work_off(connection, call),
                Some(Message::Ping(reply)) => self.pong(connection, reply),
                Some(Message::Copy(_, reply)) => {
                    let error = StoreError::internal("the state is being copied already");
                    drop(reply.send(Err(error)));
                }
                Some(other) => {
                    // This request does not wait for a copy.
                    self.next = Some(other);
                    return false;
                }
                None => return true,
            }
        }
    }
}

/// Reports that the thread ended unexpectedly, because nothing would be recorded any more.
struct Unexpected(watch::Sender<Option<StoreError>>);

impl Drop for Unexpected {
    fn drop(&mut self) {
        let message = "the store's thread has ended".to_owned();
        note(&self.0, Some(StoreError { kind: StoreErrorKind::Ended, message }));
    }
}
