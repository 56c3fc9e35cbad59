//! Group commit: whatever is asked of the database while it is busy goes into one transaction together.
//!
//! Owns the order of calls, and the thread that a database on disk has to itself. That thread is started with the queue:
//! a machine that is short of threads later cannot stop it, and whether it still answers can be asked. `batch` commits.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::batch::{Call, Desk, Pending, note};
use super::{StoreError, StoreErrorKind};

/// The most calls in one transaction: enough that the fsync no longer counts, few enough to answer soon.
const BATCH: usize = 512;

/// Minimum time between the starts of two commits; calls that arrive meanwhile share one transaction. After a pause there
/// is no wait.
const GATHER: Duration = Duration::from_millis(3);

/// How long the drop of the last handle waits for the thread to close the file: a disk that hangs must not hold up the end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// A database connection that answers calls in batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    door: Arc<Door>,
    health: watch::Receiver<Option<StoreError>>,
}

enum Door {
    /// A database in memory never blocks: a call is done where it is made. `None` once it is closed.
    Here(Mutex<Option<Desk>>),
    Thread(Worker),
}

/// The thread that has the connection.
struct Worker {
    messages: Sender<Message>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

enum Message {
    Call(Box<dyn Call>),
    /// Asks whether the thread answers, whatever the database does.
    Ping(oneshot::Sender<()>),
    /// Ends the thread; what becomes of the connection is up to this. Later calls find the store closed.
    End(Box<dyn FnOnce(Connection) + Send>),
}

impl Queue {
    /// For a database in memory.
    pub(super) fn here(connection: Connection) -> Self {
        let (sender, health) = watch::channel(None);
        Self { door: Arc::new(Door::Here(Mutex::new(Some(Desk { connection, health: sender })))), health }
    }

    /// For a database on disk: starts its thread.
    pub(super) fn on_thread(connection: Connection) -> Result<Self, StoreError> {
        let (sender, health) = watch::channel(None);
        let (messages, received) = channel();
        let (ends, ended) = channel();
        let desk = Desk { connection, health: sender };
        let serve = move || {
            serve(desk, &received);
            drop(ends);
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(serve).map_err(|error| {
            let message = format!("cannot start the store's thread: {error}; allow this user more processes");
            StoreError { kind: StoreErrorKind::Other, message }
        })?;
        let worker = Worker { messages, ended: Mutex::new(ended) };
        Ok(Self { door: Arc::new(Door::Thread(worker)), health })
    }

    /// What the database fails with at the moment, if it does.
    pub(super) fn health(&self) -> watch::Receiver<Option<StoreError>> {
        self.health.clone()
    }

    /// Whether whoever works for the database answers. May wait for ever: bound it.
    pub(super) async fn answers(&self) -> bool {
        match &*self.door {
            Door::Here(_) => true,
            Door::Thread(worker) => {
                let (reply, answer) = oneshot::channel();
                worker.messages.send(Message::Ping(reply)).is_ok() && answer.await.is_ok()
            }
        }
    }

    /// Closes the queue behind what waits in it, gives the connection to `end` on the store's thread, and gives its result;
    /// `None` if the queue was closed already.
    pub(super) async fn end<T: Send + 'static>(
        &self,
        end: impl FnOnce(Connection) -> T + Send + 'static,
    ) -> Option<T> {
        match &*self.door {
            Door::Here(desk) => {
                let desk = lock(desk).take();
                desk.map(|desk| end(desk.connection))
            }
            Door::Thread(worker) => {
                let (reply, answer) = oneshot::channel();
                // Whoever waited for it may have gone.
                let end = Box::new(move |connection| drop(reply.send(end(connection))));
                worker.messages.send(Message::End(end)).ok()?;
                answer.await.ok()
            }
        }
    }

    /// Runs `work` in a transaction and gives its result once that is committed.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending::new(work, reply));
        match &*self.door {
            Door::Here(desk) => {
                if let Some(desk) = &*lock(desk) {
                    desk.work_off(vec![call]);
                }
            }
            // One that is not taken is dropped, and so is its reply.
            Door::Thread(worker) => drop(worker.messages.send(Message::Call(call))),
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::internal("the store is closed")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // As good if it has ended already.
        let _ = self.messages.send(Message::End(Box::new(drop)));
        // Nothing is ever sent: this waits for the end, or not any longer.
        let _ = lock(&self.ended).recv_timeout(END_PATIENCE);
    }
}

/// Works off messages until it is told to end.
fn serve(desk: Desk, messages: &Receiver<Message>) {
    let unexpected = Unexpected(desk.health.clone());
    let mut wrote_at: Option<Instant> = None;
    let mut next = None;
    loop {
        let Some(message) = next.take().or_else(|| messages.recv().ok()) else { break };
        match message {
            Message::Call(call) => {
                if let Some(wait) = wrote_at.and_then(|at| GATHER.checked_sub(at.elapsed())) {
                    std::thread::sleep(wait);
                }
                let mut batch = vec![call];
                while batch.len() < BATCH && next.is_none() {
                    match messages.try_recv() {
                        Ok(Message::Call(call)) => batch.push(call),
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                let began = Instant::now();
                if desk.work_off(batch) {
                    wrote_at = Some(began);
                }
            }
            // Whoever asked may have given up.
            Message::Ping(reply) => drop(reply.send(())),
            Message::End(end) => {
                end(desk.connection);
                break;
            }
        }
    }
    std::mem::forget(unexpected);
}

/// Says that the thread has ended without having been told to: nothing would be recorded any more.
struct Unexpected(watch::Sender<Option<StoreError>>);

impl Drop for Unexpected {
    fn drop(&mut self) {
        let message = "the store's thread has ended".to_owned();
        note(&self.0, Some(StoreError { kind: StoreErrorKind::Ended, message }));
    }
}

/// The data behind these locks is consistent after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::BoxFuture;

    fn queue() -> (Queue, Arc<AtomicUsize>) {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER UNIQUE)").unwrap();
        let commits = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&commits);
        connection
            .commit_hook(Some(move || {
                counter.fetch_add(1, Ordering::SeqCst);
                false
            }))
            .unwrap();
        (Queue::on_thread(connection).unwrap(), commits)
    }

    async fn insert(queue: &Queue, x: i64) -> Result<usize, StoreError> {
        queue.call(move |db| db.execute("INSERT INTO t VALUES (?1)", [x])).await
    }

    #[tokio::test]
    async fn a_call_that_fails_takes_nothing_else_along() {
        let (queue, _) = queue();
        let calls = (0..50).map(|n| insert(&queue, n / 2));
        let results = futures_join(calls).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 25);
        let rows: i64 =
            queue.call(|db| db.query_row("SELECT count(*) FROM t", (), |row| row.get(0))).await.unwrap();
        assert_eq!(rows, 25);
    }

    #[tokio::test]
    async fn calls_that_wait_share_a_commit() {
        let (queue, commits) = queue();
        let (open_gate, gate) = std::sync::mpsc::channel::<()>();
        let gated = queue.call(move |_| {
            let _ = gate.recv();
            Ok(())
        });
        let mut calls: Vec<BoxFuture<'_, ()>> = vec![Box::pin(async { gated.await.unwrap() })];
        for n in 0..400 {
            let queue = &queue;
            calls.push(Box::pin(async move { assert_eq!(insert(queue, n).await, Ok(1)) }));
        }
        // Polled last: by then the others wait behind the gate.
        calls.push(Box::pin(async move { open_gate.send(()).unwrap() }));
        futures_join(calls).await;
        // The first few may have gone with the gate.
        assert!(commits.load(Ordering::SeqCst) <= 2, "{commits:?} commits for 400 inserts");
    }

    #[tokio::test]
    async fn a_panic_in_a_call_does_not_take_the_store_along() {
        let (queue, _) = queue();
        let broken: Result<(), _> = queue.call(|_| panic!("broken")).await;
        assert_eq!(broken.unwrap_err().message, "a call to the store panicked");
        assert!(insert(&queue, 1).await.is_ok());
        assert!(queue.answers().await);
    }

    #[tokio::test]
    async fn a_queue_that_is_ended_answers_what_came_before_and_refuses_what_comes_after() {
        let (queue, _) = queue();
        let mut before = Box::pin(insert(&queue, 1));
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(before.as_mut().poll(cx).is_pending())).await
        );
        let rows: Option<i64> =
            queue.end(|db| db.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap()).await;
        assert_eq!(rows, Some(1));
        assert_eq!(before.await, Ok(1));
        assert_eq!(insert(&queue, 2).await.unwrap_err().message, "the store is closed");
        assert!(!queue.answers().await);
        assert_eq!(queue.end(drop).await, None);
        assert!(queue.health().borrow().is_none(), "it was told to");
    }

    #[tokio::test]
    async fn a_thread_that_ends_by_itself_is_seen() {
        let (queue, _) = queue();
        let health = queue.health();
        assert_eq!(queue.end(|_| panic!("a bug")).await, None::<()>);
        let mut health = health;
        let ended = health.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(ended.kind, StoreErrorKind::Ended);
    }

    /// Polls every future of a list until all are done.
    async fn futures_join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
        let mut futures: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
        let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            for (slot, result) in futures.iter_mut().zip(&mut results) {
                if let Some(future) = slot
                    && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
                {
                    *result = Some(output);
                    *slot = None;
                }
            }
            if futures.iter().all(Option::is_none) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        results.into_iter().flatten().collect()
    }
}
