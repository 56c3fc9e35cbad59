//! One batch of calls in one transaction: each call in a savepoint of its own, each answered after the commit.
//!
//! Owns what is known of the database's health. The connection is lent for each batch, and what goes into one is decided by
//! whoever has it: `queue` or `worker`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::damage::{check, is_the_databases, missing};
use super::guard::{Found, Guard};
use super::{StoreError, StoreErrorKind};

/// A log that is larger than this, in bytes, is written into the database. One that cannot be grows, until that works.
const LARGEST_LOG: u64 = 4 << 20;

/// Minimum time between two attempts to empty a log that could not be emptied: each may write all of it.
const EMPTY_EVERY: Duration = Duration::from_secs(1);

/// What is known of the database, and whoever is told.
pub(super) struct Desk {
    /// `None` for a database in memory.
    guard: Option<Guard>,
    health: watch::Sender<Option<StoreError>>,
    /// Why the database is not used any more: it is damaged, and waits for another to take its place.
    given_up: Option<StoreError>,
    /// When the log could not be emptied, since then not at all.
    stuck_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(guard: Option<Guard>, health: watch::Sender<Option<StoreError>>) -> Self {
        Self { guard, health, given_up: None, stuck_at: None }
    }

    /// Whoever is told how the database is.
    pub(super) fn health(&self) -> &watch::Sender<Option<StoreError>> {
        &self.health
    }

    /// Commits a batch and answers its calls. Gives whether it wrote anything. Never panics: whoever waits gets an answer.
    pub(super) fn work_off(&mut self, db: &Connection, mut batch: Vec<Box<dyn Call>>) -> bool {
        let before = db.total_changes();
        let work = AssertUnwindSafe(|| {
            self.look(db)?;
            self.commit(db, before, &mut batch)
        });
        let outcome = catch_unwind(work).unwrap_or_else(|_| Err(StoreError::internal("the store panicked")));
        for call in batch {
            call.answer(outcome.clone());
        }
        db.total_changes() != before
    }

    /// Whether the files are still those that were opened: what is written into others is lost.
    pub(super) fn look(&mut self, db: &Connection) -> Result<(), StoreError> {
        if let Some(error) = &self.given_up {
            return Err(error.clone());
        }
        let found = self.guard.as_mut().map_or(Found::Same, Guard::look);
        let looked = match found {
            Found::Same => Ok(()),
            Found::Moved(message) => Err(StoreError { kind: StoreErrorKind::Moved, message }),
            Found::Written => self.read_again(db),
        };
        if let Err(error) = &looked {
            if let Some(guard) = &mut self.guard {
                guard.look_again();
            }
            self.failed(db, error.clone());
        }
        looked
    }

    /// Somebody else has written to the files. What is in memory is read anew, and all of it checked.
    fn read_again(&mut self, db: &Connection) -> Result<(), StoreError> {
        db.execute_batch("PRAGMA shrink_memory")?;
        check(db)?;
        // The log may not be readable after a crash: it is begun anew.
        self.empty_log(db)
    }

    /// Writes what is in the log into the database. Not left to SQLite: it would not be known which writing was ours. Where
    /// there is no room for it now, the log stays; an error is damage.
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

    /// Runs a batch in one transaction, and takes note of how the database is.
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
        // Reading may work where writing does not.
        let wrote = db.total_changes() != before;
        match failure {
            Some(failure) => self.failed(db, failure),
            None if wrote => note(&self.health, None),
            None => {}
        }
        outcome
    }

    /// Whether the log is large enough. It is never larger than what is left beside it, so that there is room to write it into
    /// the database. Where nothing can be written, because the disk is full or for a quota, emptying it makes room.
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

    /// Tells what the database fails with. One that is damaged is not used any more.
    fn failed(&mut self, db: &Connection, failure: StoreError) {
        // A table that is gone is an error like a mistake in a statement: which it is, the database says.
        let missing = (failure.kind == StoreErrorKind::Other).then(|| missing(db)).flatten();
        let failure = missing.unwrap_or(failure);
        if failure.kind.is_lasting() {
            self.given_up = Some(failure.clone());
        }
        note(&self.health, Some(failure));
    }
}

/// Tells how the database is, if that has changed in kind.
pub(super) fn note(health: &watch::Sender<Option<StoreError>>, failure: Option<StoreError>) {
    let kind = |health: &Option<StoreError>| health.as_ref().map(|error| error.kind);
    health.send_if_modified(|health| {
        let changed = kind(health) != kind(&failure);
        *health = failure;
        changed
    });
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
pub(super) trait Call: Send {
    /// Does the work; what fails must be undone.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// What the database failed with, if the work has failed through no fault of its own.
    fn failure(&self) -> Option<StoreError>;
    /// Gives the result to the caller, or the reason why the transaction came to nothing.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

pub(super) struct Pending<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F> {
    /// A call of this work, and where its result goes.
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
        // A bug in one call must not end the worker: everybody behind it would wait for ever.
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
        // Nobody listens any more: the work is done all the same.
        let _ = self.reply.send(result);
    }
}
