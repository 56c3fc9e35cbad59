//! Runs a batch of calls in one transaction. Each call has its own savepoint and is answered after the commit.
//!
//! Tracks the database's health. `queue` or `worker` owns the connection, lends it for each batch and decides what goes
//! into a batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::damage::{check, is_the_databases, missing};
use super::guard::{Found, Guard};
use super::{StoreError, StoreErrorKind};

/// Size of the log, in bytes, above which it is written into the database. If that fails, the log grows.
const LARGEST_LOG: u64 = 4 << 20;

/// Minimum time between two attempts to empty a log after a failure, because each may write all of it.
const EMPTY_EVERY: Duration = Duration::from_secs(1);

/// The database's health, and who is notified of it.
pub(super) struct Desk {
    /// `None` for a database in memory.
    guard: Option<Guard>,
    health: watch::Sender<Option<StoreError>>,
    /// Why the database is no longer used: it is damaged and waits for its replacement.
    given_up: Option<StoreError>,
    /// When emptying the log failed, if it failed ever since.
    stuck_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(guard: Option<Guard>, health: watch::Sender<Option<StoreError>>) -> Self {
        Self { guard, health, given_up: None, stuck_at: None }
    }

    /// Where changes of the database's health are sent.
    pub(super) fn health(&self) -> &watch::Sender<Option<StoreError>> {
        &self.health
    }

    /// Commits a batch and answers its calls. Returns whether it wrote anything. Never panics, so every caller gets an
    /// answer.
    pub(super) fn work_off(&mut self, db: &Connection, mut batch: Vec<Box<dyn Call>>) -> bool {
        let before = db.total_changes();
        let work = AssertUnwindSafe(|| {
            self.check(db)?;
            self.commit(db, before, &mut batch)
        });
        let outcome = catch_unwind(work).unwrap_or_else(|_| Err(StoreError::internal("the store panicked")));
        for call in batch {
            call.answer(outcome.clone());
        }
        db.total_changes() != before
    }

    /// Checks that the files are still those that were opened, because writes to others are lost.
    pub(super) fn check(&mut self, db: &Connection) -> Result<(), StoreError> {
        if let Some(error) = &self.given_up {
            return Err(error.clone());
        }
        let found = self.guard.as_mut().map_or(Found::Same, Guard::check);
        let checked = match found {
            Found::Same => Ok(()),
            Found::Moved(message) => Err(StoreError { kind: StoreErrorKind::Moved, message }),
            Found::Written => self.read_again(db),
        };
        if let Err(error) = &checked {
            if let Some(guard) = &mut self.guard {
                guard.check_again();
            }
            self.failed(db, error.clone());
        }
        checked
    }

    /// Another process wrote to the files. Reads the data again and checks all of it.
    fn read_again(&mut self, db: &Connection) -> Result<(), StoreError> {
        db.execute_batch("PRAGMA shrink_memory")?;
        check(db)?;
        // After a crash, the log may not be readable, so it is started again.
        self.empty_log(db)
    }

    /// Writes the log into the database. SQLite does not do this itself, because our writes could then not be told from
    /// others'. If there is no room, the log stays. An error means damage.
    fn empty_log(&mut self, db: &Connection) -> Result<(), StoreError> {
        let emptied = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        if let Some(guard) = &mut self.guard {
            guard.remember();
            self.stuck_at = (guard.remember_log() > 0).then(Instant::now);
        }
        match emptied.map_err(StoreError::from) {
            Err(error) if error.kind.is_lasting() => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs a batch in one transaction, and updates the health.
    fn commit(
        &mut self,
        db: &Connection,
        before: u64,
        batch: &mut [Box<dyn Call>],
    ) -> Result<(), StoreError> {
        let outcome = commit(db, batch);
        let failures = batch.iter().filter_map(|call| call.failure());
        let failure = outcome.as_ref().err().cloned().into_iter().chain(failures).next();
        if self.should_empty_log(failure.as_ref())
            && let Err(error) = self.empty_log(db)
        {
            self.failed(db, error);
            return outcome;
        }
        // Reads may succeed when writes fail.
        let wrote = db.total_changes() != before;
        match failure {
            Some(failure) => self.failed(db, failure),
            None if wrote => note(&self.health, None),
            None => {}
        }
        outcome
    }

    /// Whether to write the log into the database now. It is never larger than the free space, so that there is room
    /// for that. If writes fail because the disk or a quota is full, emptying the log makes room.
    fn should_empty_log(&mut self, failure: Option<&StoreError>) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        let log = guard.remember_log();
        let is_full = |error: &StoreError| matches!(error.kind, StoreErrorKind::Full | StoreErrorKind::Io);
        log > 0
            && self.stuck_at.is_none_or(|at| at.elapsed() >= EMPTY_EVERY)
            && (failure.is_some_and(is_full)
                || log > LARGEST_LOG
                || guard.room().is_some_and(|room| log > room))
    }

    /// Reports an error of the database. A damaged database is no longer used.
    fn failed(&mut self, db: &Connection, failure: StoreError) {
        // A missing table and a mistake in a statement give the same error, so the schema is checked.
        let missing = (failure.kind == StoreErrorKind::Other).then(|| missing(db)).flatten();
        let failure = missing.unwrap_or(failure);
        if failure.kind.is_lasting() {
            self.given_up = Some(failure.clone());
        }
        note(&self.health, Some(failure));
    }
}

/// Reports the health if its kind changed.
pub(super) fn note(health: &watch::Sender<Option<StoreError>>, failure: Option<StoreError>) {
    let kind = |health: &Option<StoreError>| health.as_ref().map(|error| error.kind);
    health.send_if_modified(|health| {
        let changed = kind(health) != kind(&failure);
        *health = failure;
        changed
    });
}

/// Runs a batch in one transaction. After an error, none of it happened.
fn commit(connection: &Connection, batch: &mut [Box<dyn Call>]) -> Result<(), StoreError> {
    if !connection.is_autocommit() {
        // A failed commit or a panic left a transaction open.
        connection.execute_batch("ROLLBACK")?;
    }
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let done = run_all(connection, batch).and_then(|()| {
        connection.prepare_cached("COMMIT")?.execute(())?;
        Ok(())
    });
    if done.is_err() && !connection.is_autocommit() {
        // Best effort: otherwise it is rolled back before the next batch.
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
                // After errors such as a full disk, SQLite has rolled back everything already.
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

/// A call with its types erased.
pub(super) trait Call: Send {
    /// Does the work. A failed call is rolled back.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// The database's error, if that made the work fail.
    fn failure(&self) -> Option<StoreError>;
    /// Sends the caller the result, or the error of the commit.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

pub(super) struct Pending<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F> {
    /// A call of `work` that sends its result to `reply`.
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), result: None, reply }
    }
}

impl<T, F> Call for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        // A bug in one call must not end the worker, because all later callers would wait for ever.
        let work = self.work.take();
        let run = AssertUnwindSafe(|| work.map(|work| work(connection)));
        self.result = catch_unwind(run).ok().flatten();
        match &self.result {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(StoreError::from(error)),
            None => Err(StoreError::internal("a call to the store panicked")),
        }
    }

    fn failure(&self) -> Option<StoreError> {
        let Some(Err(error)) = &self.result else { return None };
        is_the_databases(error).then(|| StoreError::from(error))
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let result = match (commit, self.result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result.map_err(|error| StoreError::from(&error)),
            (Ok(()), None) => Err(StoreError::internal("a call to the store panicked")),
        };
        // The caller may be gone; the work is done all the same.
        let _ = self.reply.send(result);
    }
}
