//! Group commit: calls that arrive while the database is busy share one transaction.
//!
//! Owns the order of calls. A database in memory is used on the caller's thread. One on disk has its own thread, the
//! `worker`. That thread starts with the queue, so that a later shortage of threads does not matter. It can be asked
//! whether it still answers.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::StoreError;
use super::batch::{Desk, Pending};
use super::guard::Guard;
use super::worker::{Message, Worker};

/// Maximum number of prepared statements that a connection keeps. It exceeds the number in regular use. With fewer,
/// most calls would prepare their statements again, which takes longer than running them.
const STATEMENTS: usize = 64;

/// A database connection that answers calls in batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    door: Arc<Door>,
    health: watch::Receiver<Option<StoreError>>,
}

enum Door {
    /// A database in memory never blocks: a call is done where it is made. `None` once it is closed.
    Here(Mutex<Option<Box<(Connection, Desk)>>>),
    Thread(Worker),
}

impl Queue {
    /// For a database in memory.
    pub(super) fn here(connection: Connection) -> Self {
        let (sender, health) = watch::channel(None);
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let desk = Desk::new(None, sender);
        Self { door: Arc::new(Door::Here(Mutex::new(Some(Box::new((connection, desk)))))), health }
    }

    /// For a database on disk: starts its thread.
    pub(super) fn on_thread(connection: Connection, guard: Option<Guard>) -> Result<Self, StoreError> {
        let (sender, health) = watch::channel(None);
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let worker = Worker::start(connection, Desk::new(guard, sender))?;
        Ok(Self { door: Arc::new(Door::Thread(worker)), health })
    }

    /// The database's current failure, if any.
    pub(super) fn health(&self) -> watch::Receiver<Option<StoreError>> {
        self.health.clone()
    }

    /// Whether the database's worker answers. May wait for ever, so the caller should set a timeout.
    pub(super) async fn answers(&self) -> bool {
        match &*self.door {
            Door::Here(_) => true,
            Door::Thread(worker) => {
                let (reply, answer) = oneshot::channel();
                worker.send(Message::Ping(reply)) && answer.await.is_ok()
            }
        }
    }

    /// Copies the database at this path, as it is between two transactions, into a file without a name. Calls are
    /// answered meanwhile.
    pub(super) async fn copy(&self, database: PathBuf) -> Result<File, StoreError> {
        let (reply, answer) = oneshot::channel();
        match &*self.door {
            Door::Here(_) => return Err(StoreError::internal("a store in memory is not copied")),
            Door::Thread(worker) => drop(worker.send(Message::Copy(database, reply))),
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Passes the connection to `hand`, after the waiting calls, on a thread that may block. Returns its result. Unless
    /// `hand` returns the connection, the queue is closed. `None` if it was closed already.
    pub(super) async fn lend<T: Send + 'static>(
        &self,
        hand: impl FnOnce(Connection) -> (T, Option<Connection>) + Send + 'static,
    ) -> Option<T> {
        match &*self.door {
            Door::Here(here) => {
                let mut here = lock(here);
                let (connection, desk) = *here.take()?;
                let (result, back) = hand(connection);
                *here = back.map(|connection| Box::new((connection, desk)));
                Some(result)
            }
            Door::Thread(worker) => {
                let (reply, answer) = oneshot::channel();
                let hand = Box::new(move |connection| {
                    let (result, back) = hand(connection);
                    // The caller may be gone.
                    drop(reply.send(result));
                    back
                });
                worker.send(Message::Lend(hand));
                answer.await.ok()
            }
        }
    }

    /// Runs `work` in a transaction and returns its result after the commit.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending::new(work, reply));
        match &*self.door {
            Door::Here(here) => {
                if let Some(here) = &mut *lock(here) {
                    let (connection, desk) = &mut **here;
                    desk.work_off(connection, vec![call]);
                }
            }
            // A message that cannot be sent is dropped with its reply, which the caller notices.
            Door::Thread(worker) => drop(worker.send(Message::Call(call))),
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

fn closed() -> StoreError {
    StoreError::internal("the store is closed")
}

/// Locks although another holder panicked, because the data stays consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::BoxFuture;
    use crate::store::StoreErrorKind;

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
        (Queue::on_thread(connection, None).unwrap(), commits)
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
        // Polled last, when the others wait behind the gate.
        calls.push(Box::pin(async move { open_gate.send(()).unwrap() }));
        futures_join(calls).await;
        // The first few may share the gate's commit.
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
        let rows: Option<i64> = queue
            .lend(|db| (db.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap(), None))
            .await;
        assert_eq!(rows, Some(1));
        assert_eq!(before.await, Ok(1));
        assert_eq!(insert(&queue, 2).await.unwrap_err().message, "the store is closed");
        assert!(!queue.answers().await);
        assert_eq!(queue.lend(|db| ((), Some(db))).await, None);
        assert!(queue.health().borrow().is_none(), "it was told to");
    }

    #[tokio::test]
    async fn a_thread_that_ends_by_itself_is_seen() {
        let (queue, _) = queue();
        let health = queue.health();
        assert_eq!(queue.lend::<()>(|_| panic!("a bug")).await, None);
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
