//! Watched runs in SQLite: reading them all, and writing one observation.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::{Commit, RunStore, SqliteStore, StoreError, StoredRun};
use crate::BoxFuture;
use crate::run::{Ending, Event, Progress, RunState, RunStatus, Subject, Terminal};

impl RunStore for SqliteStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredRun>, StoreError>> {
        Box::pin(self.queue.call(|db| {
            let mut select = db.prepare_cached(
                "SELECT id, name, status, samples_completed, samples_failed, number_of_samples, created_at, \
                 completed_at, watched_at, changed_at, progress_at, ended FROM runs",
            )?;
            // A row whose id no longer parses cannot be watched: it is left in the file and out of the list.
            let rows = select.query_map((), read_run)?.filter_map(Result::transpose);
            rows.collect()
        }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        let fills_outbox = commit.events.iter().any(|(_, channels)| !channels.is_empty());
        Box::pin(async move {
            self.queue.call(move |db| write(db, &commit)).await?;
            if fills_outbox {
                self.filled.send_modify(|count| *count += 1);
            }
            Ok(())
        })
    }
}

fn write(db: &Connection, commit: &Commit) -> rusqlite::Result<()> {
    write_run(db, &commit.run)?;
    for (event, channels) in &commit.events {
        write_event(db, event, commit.run.subject.id.as_str())?;
        for channel in channels {
            write_delivery(db, event, channel)?;
        }
    }
    Ok(())
}

fn write_run(db: &Connection, run: &StoredRun) -> rusqlite::Result<()> {
    let StoredRun { subject, state } = run;
    let status: Option<String> = state.status.clone().map(|status| status.as_str().to_owned());
    db.prepare_cached(
        "INSERT OR REPLACE INTO runs (id, name, status, samples_completed, samples_failed, number_of_samples, \
         created_at, completed_at, watched_at, changed_at, progress_at, ended) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        subject.id.as_str(),
        subject.name.as_deref(),
        status,
        count(state.progress.completed),
        count(state.progress.failed),
        count(state.progress.total),
        state.created_at.map(micros),
        state.completed_at.map(micros),
        micros(state.watched_at),
        state.changed_at.map(micros),
        state.progress_at.map(micros),
        state.ended.map(ending_word),
    ])?;
    Ok(())
}

fn write_event(db: &Connection, event: &Event, run_id: &str) -> rusqlite::Result<()> {
    let payload = serde_json::to_string(&event.payload)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.prepare_cached("INSERT OR IGNORE INTO events (id, run_id, at, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event.id.as_str(), run_id, micros(event.payload.timestamp), payload])?;
    Ok(())
}

fn write_delivery(db: &Connection, event: &Event, channel: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO deliveries (event_id, channel, state, attempts, due_at) \
         VALUES (?1, ?2, 'pending', 0, ?3)",
    )?
    .execute(params![event.id.as_str(), channel, micros(event.payload.timestamp)])?;
    Ok(())
}

fn read_run(row: &Row<'_>) -> rusqlite::Result<Option<StoredRun>> {
    let Ok(id) = row.get_ref(0)?.as_str()?.parse() else { return Ok(None) };
    let name: Option<Arc<str>> = row.get(1)?;
    let status: Option<String> = row.get(2)?;
    let ended: Option<String> = row.get(11)?;
    let counted = |column| row.get::<_, Option<i64>>(column).map(|n| n.and_then(|n| u64::try_from(n).ok()));
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.and_then(timestamp));
    Ok(Some(StoredRun {
        subject: Subject { id, name },
        state: RunState {
            status: status.map(|word| RunStatus::parse(Some(&word))),
            progress: Progress { completed: counted(3)?, failed: counted(4)?, total: counted(5)? },
            created_at: time(6)?,
            completed_at: time(7)?,
            watched_at: time(8)?.unwrap_or(Timestamp::UNIX_EPOCH),
            changed_at: time(9)?,
            progress_at: time(10)?,
            ended: ended.as_deref().and_then(ending_from),
            doubt: None,
        },
    }))
}

/// The words for an ending in the file. They stay as they are: old files are read for ever.
const ENDINGS: [(&str, Ending); 8] = [
    ("SUCCEEDED", Ending::Finished(Terminal::Succeeded)),
    ("FAILED", Ending::Finished(Terminal::Failed)),
    ("CANCELED", Ending::Finished(Terminal::Canceled)),
    ("NEVER_FOUND", Ending::NeverFound),
    ("GONE", Ending::Gone),
    ("KEY_REFUSED", Ending::KeyRefused),
    ("UNKNOWABLE", Ending::Unknowable),
    ("REJECTED", Ending::Rejected),
];

fn ending_word(ending: Ending) -> &'static str {
    ENDINGS.iter().find(|(_, known)| *known == ending).map_or("UNKNOWABLE", |(word, _)| word)
}

fn ending_from(word: &str) -> Option<Ending> {
    ENDINGS.iter().find(|(known, _)| *known == word).map(|(_, ending)| *ending)
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

pub(super) fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

/// SQLite counts to 2^63 - 1; so far goes no run.
fn count(count: Option<u64>) -> Option<i64> {
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str) -> StoredRun {
        let mut state = RunState::new(Timestamp::from_second(1_800_000_000).unwrap());
        state.status = Some(RunStatus::parse(Some("PAUSED")));
        state.progress = Progress { completed: Some(3), failed: Some(u64::MAX), total: None };
        state.created_at = Some(Timestamp::from_microsecond(1_700_000_000_123_456).unwrap());
        StoredRun { subject: Subject { id: id.parse().unwrap(), name: Some("nightly".into()) }, state }
    }

    #[tokio::test]
    async fn gives_back_what_was_written() {
        let store = SqliteStore::in_memory().unwrap();
        for (_, ending) in ENDINGS {
            let mut run = stored("r1");
            run.state.ended = Some(ending);
            store.commit(Commit { run: run.clone(), events: Vec::new() }).await.unwrap();
            // Beyond what SQLite counts is cut, not lost.
            run.state.progress.failed = Some(i64::MAX.unsigned_abs());
            assert_eq!(store.load().await.unwrap(), [run]);
        }
    }

    #[tokio::test]
    async fn one_run_event_and_channel_is_one_row() {
        let store = SqliteStore::in_memory().unwrap();
        let run = stored("r1");
        let event = Event::of_ending("s", &run.subject, Ending::Gone, &run.state, None, run.state.watched_at);
        for _ in 0..3 {
            let events = vec![(event.clone(), vec!["a".into(), "b".into(), "a".into()])];
            store.commit(Commit { run: run.clone(), events }).await.unwrap();
        }
        let rows: Vec<(String, String)> = store
            .queue
            .call(|db| {
                db.prepare("SELECT event_id, channel FROM deliveries ORDER BY id")?
                    .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .await
            .unwrap();
        let id = event.id.to_string();
        assert_eq!(rows, [(id.clone(), "a".to_owned()), (id, "b".to_owned())]);
    }
}
