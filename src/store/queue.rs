//! Group commit: whatever is asked of the database while it is busy goes into one transaction together.
//!
//! Owns the connection and the order of calls. A call runs inside a savepoint, so that one that fails takes nothing else
//! along, and is answered only when the transaction it was part of has been committed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{StoreError, StoreErrorKind};

/// The most calls in one transaction: enough that the fsync no longer counts, few enough to answer soon.
const BATCH: usize = 512;

/// From the beginning of one commit to the next: what is asked for in between shares it. An fsync that takes longer does the
/// same by itself; after a pause there is no wait.
const GATHER: Duration = Duration::from_millis(3);

/// A database connection that answers calls in batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whether the database may block: one in memory does not, and a thread for it would be waste.
    blocks: bool,
    waiting: Mutex<Waiting>,
    /// `None` once it is closed.
    connection: Mutex<Option<Connection>>,
    health: watch::Sender<Option<StoreError>>,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Box<dyn Call>>,
    /// Whether a task is at work on the queue.
    busy: bool,
    /// When something was last written.
    wrote_at: Option<Instant>,
}

impl Queue {
    /// `blocks` says whether the database may block, as one on disk does: then a thread of its own works it off.
    pub(super) fn new(connection: Connection, blocks: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                blocks,
                waiting: Mutex::new(Waiting::default()),
                connection: Mutex::new(Some(connection)),
                health: watch::Sender::new(None),
            }),
        }
    }

    /// What the database fails with at the moment, if it does.
    pub(super) fn health(&self) -> watch::Receiver<Option<StoreError>> {
        self.shared.health.subscribe()
    }

    /// Lets go of the database and leaves its files as they are, so that they can be put elsewhere. Blocks.
    pub(super) fn close(&self) {
        if let Some(connection) = lock(&self.shared.connection).take() {
            // Else SQLite would write to the one file, and delete another by a name that may be somebody else's by then.
            let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    /// Runs `work` in a transaction and gives its result once that is committed.
    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending { work: Some(work), result: None, reply });
        let idle = {
            let mut waiting = lock(&self.shared.waiting);
            waiting.calls.push_back(call);
            !std::mem::replace(&mut waiting.busy, true)
        };
        if idle && self.shared.blocks {
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.work_off());
        } else if idle {
            self.shared.work_off();
        }
        answer.await.unwrap_or_else(|_| Err(broken("the store is closed")))
    }
}

impl Shared {
    /// Commits batch after batch until nothing waits.
    fn work_off(&self) {
        loop {
            let wrote_at = lock(&self.waiting).wrote_at;
            if let Some(wait) = wrote_at.and_then(|at| GATHER.checked_sub(at.elapsed())) {
                std::thread::sleep(wait);
            }
            let mut batch: Vec<Box<dyn Call>> = {
                let mut waiting = lock(&self.waiting);
                let count = waiting.calls.len().min(BATCH);
                if count == 0 {
                    waiting.busy = false;
                    return;
                }
                waiting.calls.drain(..count).collect()
            };
            // Whatever happens in there: as long as this goes on, nobody waits for ever.
            let committed = AssertUnwindSafe(|| match &*lock(&self.connection) {
                Some(connection) => self.commit(connection, &mut batch),
                None => Err(broken("the store is closed")),
            });
            let outcome = catch_unwind(committed).unwrap_or_else(|_| Err(broken("the store panicked")));
            for call in batch {
                call.answer(outcome.clone());
            }
        }
    }

    /// Runs a batch in one transaction, and takes note of how the database is.
    fn commit(&self, connection: &Connection, batch: &mut [Box<dyn Call>]) -> Result<(), StoreError> {
        let (began, before) = (Instant::now(), connection.total_changes());
        let outcome = commit(connection, batch);
        let failures = batch.iter().filter_map(|call| call.failure());
        let failure = outcome.as_ref().err().cloned().into_iter().chain(failures).next();
        // Reading may work where writing does not.
        let wrote = connection.total_changes() != before;
        if wrote && self.blocks {
            lock(&self.waiting).wrote_at = Some(began);
        }
        if failure.is_some() || wrote {
            let kind = |health: &Option<StoreError>| health.as_ref().map(|error| error.kind);
            self.health.send_if_modified(|health| {
                let changed = kind(health) != kind(&failure);
                *health = failure;
                changed
            });
        }
        outcome
    }
}

/// Runs a batch in one transaction. An error here means that none of it happened.
fn commit(connection: &Connection, batch: &mut [Box<dyn Call>]) -> Result<(), StoreError> {
    if !connection.is_autocommit() {
        // A transaction was left open by a failed commit or a panic.
        connection.execute_batch("ROLLBACK")?;
    }
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let done = run_all(connection, batch).and_then(|()| {
        connection.prepare_cached("COMMIT")?.execute(())?;
        Ok(())
    });
    if done.is_err() && !connection.is_autocommit() {
        // Best effort: what cannot be rolled back now is rolled back before the next batch.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

fn run_all(connection: &Connection, batch: &mut [Box<dyn Call>]) -> Result<(), StoreError> {
    let alone = batch.len() == 1;
    for call in batch {
        if !alone {
            connection.prepare_cached("SAVEPOINT one")?.execute(())?;
        }
        if let Err(error) = call.run(connection) {
            if connection.is_autocommit() {
                // A full disk and the like: SQLite has rolled everything back by itself.
                return Err(error);
            }
            if alone {
                return Ok(connection.execute_batch("ROLLBACK; BEGIN")?);
            }
            connection.prepare_cached("ROLLBACK TO one")?.execute(())?;
        }
        if !alone {
            connection.prepare_cached("RELEASE one")?.execute(())?;
        }
    }
    Ok(())
}

/// One call, with its type forgotten.
trait Call: Send {
    /// Does the work; what fails must be undone.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// What the database failed with, if the work has failed through no fault of its own.
    fn failure(&self) -> Option<StoreError>;
    /// Gives the result to the caller, or the reason why the transaction came to nothing.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Pending<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Call for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        // A bug in one call must not end the worker: everybody behind it would wait for ever.
        let work = self.work.take();
        let run = AssertUnwindSafe(|| work.map(|work| work(connection)));
        self.result = catch_unwind(run).ok().flatten();
        match &self.result {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(StoreError::from(error)),
            None => Err(broken("a call to the store panicked")),
        }
    }

    fn failure(&self) -> Option<StoreError> {
        let Some(Err(error)) = &self.result else { return None };
        let code = error.sqlite_error_code().filter(|code| *code != rusqlite::ErrorCode::ConstraintViolation);
        code.map(|_| StoreError::from(error))
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let result = match (commit, self.result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result.map_err(|error| StoreError::from(&error)),
            (Ok(()), None) => Err(broken("a call to the store panicked")),
        };
        // Nobody listens any more: the work is done all the same.
        let _ = self.reply.send(result);
    }
}

fn broken(message: &str) -> StoreError {
    StoreError { kind: StoreErrorKind::Other, message: message.to_owned() }
}

/// The data behind these locks is consistent after a panic: the queue by itself, the connection by its rollback.
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
        (Queue::new(connection, true), commits)
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
