//! Watched runs in SQLite: reading them all, and writing one observation.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::adopt::Allowed;
use super::order::{By, supersede};
use super::row::{COLUMNS, count, ending_word, micros, origin_code, read_run, timestamp};
use super::{
    ChannelName, Commit, MomentName, RunDuration, RunStore, SqliteStore, StoreError, Watched, history,
};
use crate::BoxFuture;
use crate::run::{Event, EventId, EventKind, RunId, SpecId};

impl RunStore for SqliteStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        Box::pin(self.queue.call(|db| {
            let mut runs = Vec::new();
            read_runs(db, |run| runs.push(run))?;
            Ok(runs)
        }))
    }

    fn moment(&self, name: MomentName) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.queue.call(move |db| {
            let at = db
                .prepare_cached("SELECT at FROM moments WHERE name = ?1")?
                .query_row([name], |row| row.get(0))
                .optional()?;
            Ok(at.and_then(timestamp))
        }))
    }

    fn durations(&self, spec: SpecId) -> BoxFuture<'_, Result<Vec<RunDuration>, StoreError>> {
        Box::pin(self.queue.call(move |db| history::read(db, spec)))
    }

    fn save(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.queue.call(move |db| runs.iter().try_for_each(|run| update_run(db, run).map(|_| ()))))
    }

    fn add(&self, runs: Vec<Watched>) -> BoxFuture<'_, Result<Vec<Watched>, StoreError>> {
        Box::pin(self.queue.call(move |db| {
            let mut added = Vec::with_capacity(runs.len());
            for run in &runs {
                add_run(db, run)?;
                added.push(find_run(db, &run.subject.id)?.unwrap_or_else(|| run.clone()));
            }
            Ok(added)
        }))
    }

    fn forget(&self, runs: Vec<RunId>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.queue.call(move |db| {
            let mut delete = db.prepare_cached("DELETE FROM runs WHERE id = ?1")?;
            runs.iter().try_for_each(|id| delete.execute([id.as_str()]).map(|_| ()))
        }))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        let fills_outbox = commit.events.iter().any(|(_, channels)| !channels.is_empty());
        let allowed = self.allowed.clone();
        Box::pin(async move {
            self.queue.call(move |db| write(db, &commit, &allowed)).await?;
            if fills_outbox {
                self.filled.send_modify(|count| *count += 1);
            }
            Ok(())
        })
    }
}

/// Passes every run to `take`. A row whose id no longer parses cannot be watched: it stays in the file and is skipped.
pub(super) fn read_runs(db: &Connection, mut take: impl FnMut(Watched)) -> rusqlite::Result<()> {
    let mut select = db.prepare_cached(&format!("SELECT {COLUMNS} FROM runs"))?;
    select.query_map((), read_run)?.filter_map(Result::transpose).try_for_each(|run| run.map(&mut take))
}

fn write(db: &Connection, commit: &Commit, allowed: &Allowed) -> rusqlite::Result<()> {
    let lost_anew = lost_anew(db, commit)?;
    if let Some(run) = &commit.run
        && update_run(db, run)? == 0
    {
        if is_known(db, run)? {
            // The observation is based on a state before the run's end, so its events were recorded already.
            return Ok(());
        }
        insert_run(db, run)?;
    }
    for (event, channels) in &commit.events {
        let channels = allowed.of(channels);
        match &lost_anew {
            Some(id) if event.payload.kind == EventKind::RunLost => {
                write_event(db, &Event { id: id.clone(), payload: event.payload.clone() }, &channels)?;
            }
            _ => write_event(db, event, &channels)?,
        }
    }
    match &commit.moment {
        None => {}
        Some((name, Some(at))) => {
            db.prepare_cached("INSERT OR REPLACE INTO moments (name, at) VALUES (?1, ?2)")?
                .execute(params![name, micros(*at)])?;
        }
        Some((name, None)) => {
            db.prepare_cached("DELETE FROM moments WHERE name = ?1")?.execute([name])?;
        }
    }
    Ok(())
}

/// The event id for the next loss of a run that was lost before and then watched again. The first loss has the id that
/// every watcher of the run derives. Later ones are derived from that and their number.
fn lost_anew(db: &Connection, commit: &Commit) -> rusqlite::Result<Option<EventId>> {
    let lost = commit.events.iter().find(|(event, _)| event.payload.kind == EventKind::RunLost);
    let run = commit.run.as_ref().filter(|run| run.state.ended.is_some());
    let (Some((event, _)), Some(run)) = (lost, run) else { return Ok(None) };
    let ended: Option<Option<String>> = db
        .prepare_cached("SELECT ended FROM runs WHERE id = ?1")?
        .query_row([run.subject.id.as_str()], |row| row.get(0))
        .optional()?;
    if ended.flatten().is_some() {
        // A repeated commit of the same loss, because the first result was not known.
        return Ok(None);
    }
    let mut id = event.id.clone();
    let mut is_told = db.prepare_cached("SELECT 1 FROM events WHERE id = ?1")?;
    for number in 2.. {
        if !is_told.exists([id.as_str()])? {
            break;
        }
        id = EventId::derive(
            event.id.as_str(),
            Some(&run.subject.id),
            EventKind::RunLost,
            &number.to_string(),
        );
    }
    Ok((id != event.id).then_some(id))
}

/// The columns of a run's state. The others say what to do about the run.
const KNOWN: &str = "status = ?2, samples_completed = ?3, samples_failed = ?4, number_of_samples = ?5, created_at = ?6, \
                     completed_at = ?7, changed_at = ?8, progress_at = ?9, ended = ?10, ended_at = ?11, \
                     overdue_told_at = ?12, stalled_told_at = ?13, spec_id = ?14";

/// Not finished. An end from the API is never overwritten.
const UNFINISHED: &str = "(ended IS NULL OR ended NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED'))";

/// Writes the state of an existing, unfinished run; leaves the other columns. Returns the number of rows: 0 if the run
/// was forgotten or is finished.
fn update_run(db: &Connection, run: &Watched) -> rusqlite::Result<usize> {
    let Watched { subject, state, .. } = run;
    let status: Option<String> = state.status.clone().map(|status| status.as_str().to_owned());
    db.prepare_cached(&format!("UPDATE runs SET {KNOWN} WHERE id = ?1 AND {UNFINISHED}"))?.execute(params![
        subject.id.as_str(),
        status,
        count(state.progress.completed),
        count(state.progress.failed),
        count(state.progress.total),
        state.created_at.map(micros),
        state.completed_at.map(micros),
        state.changed_at.map(micros),
        state.progress_at.map(micros),
        state.ended.map(ending_word),
        state.ended_at.map(micros),
        state.overdue_told_at.map(micros),
        state.stalled_told_at.map(micros),
        state.spec_id.map(|spec| spec.to_string()),
    ])
}

/// One run.
pub(super) fn find_run(db: &Connection, id: &RunId) -> rusqlite::Result<Option<Watched>> {
    let mut select = db.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?1"))?;
    select.query_row([id.as_str()], read_run).optional().map(Option::flatten)
}

fn is_known(db: &Connection, run: &Watched) -> rusqlite::Result<bool> {
    let mut select = db.prepare_cached("SELECT 1 FROM runs WHERE id = ?1")?;
    select.exists([run.subject.id.as_str()])
}

/// Inserts a run.
fn insert_run(db: &Connection, run: &Watched) -> rusqlite::Result<()> {
    add_run(db, run)?;
    update_run(db, run).map(|_| ())
}

/// Writes what to do about a run, whether it exists or not. Settings from an earlier `add` stay unless new ones are
/// given; a discovered run gives none. The state stays, but an end that did not come from the API is taken back.
pub(super) fn add_run(db: &Connection, run: &Watched) -> rusqlite::Result<()> {
    let Watched { subject, state, notify, deadline, origin } = run;
    let notify = notify.as_ref().map(|names| names.iter().map(|name| &**name).collect::<serde_json::Value>());
    db.prepare_cached("DELETE FROM removed_runs WHERE id = ?1")?.execute([subject.id.as_str()])?;
    let deadline = deadline.map(|deadline| i64::try_from(deadline.as_micros()).unwrap_or(i64::MAX));
    db.prepare_cached(
        "INSERT INTO runs (id, name, notify, deadline, added, watched_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET name = coalesce(excluded.name, name), \
         notify = iif((added OR excluded.added) AND NOT (added = 2 AND excluded.added != 2), \
                      coalesce(excluded.notify, notify), excluded.notify), \
         deadline = iif(added OR excluded.added, coalesce(excluded.deadline, deadline), excluded.deadline), \
         added = iif(1 IN (added, excluded.added), 1, max(added, excluded.added)), \
         ended_at = iif(ended IN ('SUCCEEDED', 'FAILED', 'CANCELED'), ended_at, NULL), \
         ended = iif(ended IN ('SUCCEEDED', 'FAILED', 'CANCELED'), ended, NULL)",
    )?
    .execute(params![
        subject.id.as_str(),
        subject.name.as_deref(),
        notify.map(|names| names.to_string()),
        deadline,
        origin_code(*origin),
        micros(state.watched_at),
    ])?;
    Ok(())
}

/// Writes an event and its outbox rows; leaves existing ones as they are.
pub(super) fn write_event(db: &Connection, event: &Event, channels: &[ChannelName]) -> rusqlite::Result<()> {
    let payload = serde_json::to_string(&event.payload)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let at = micros(event.payload.timestamp);
    let run_id = event.payload.data.run_id.as_ref().map(RunId::as_str);
    db.prepare_cached("INSERT OR IGNORE INTO events (id, run_id, at, payload) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event.id.as_str(), run_id, at, payload])?;
    // An event about a channel is not about the run, and must not delay the run's events.
    let run_id = run_id.filter(|_| event.payload.kind != EventKind::DeliveryFailed);
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO deliveries (event_id, channel, state, attempts, due_at, run_id) \
         VALUES (?1, ?2, 'pending', 0, ?3, ?4)",
    )?;
    for channel in channels {
        insert.execute(params![event.id.as_str(), channel, at, run_id])?;
    }
    if let Some(run_id) = run_id.filter(|_| event.payload.kind.is_end()) {
        let run = "channel IN (SELECT value FROM json_each(?)) AND run_id = ?";
        let channels = channels.iter().map(|name| &**name).collect::<serde_json::Value>().to_string();
        let values = vec![channels.into(), run_id.to_owned().into()];
        supersede(db, run, values, By::Row, event.payload.timestamp)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::{Ending, Progress, RunState, RunStatus, Subject, Terminal};
    use crate::store::Origin;
    use crate::store::row::ENDINGS;

    fn stored(id: &str) -> Watched {
        let mut state = RunState::new(Timestamp::from_second(1_800_000_000).unwrap());
        state.status = Some(RunStatus::parse(Some("PAUSED")));
        state.progress = Progress { completed: Some(3), failed: Some(u64::MAX), total: None };
        state.created_at = Some(Timestamp::from_microsecond(1_700_000_000_123_456).unwrap());
        state.stalled_told_at = state.created_at;
        state.spec_id = SpecId::parse("3c90c3cc-0d44-4b50-8888-8dd25736052a");
        Watched {
            subject: Subject { id: id.parse().unwrap(), name: Some("nightly".into()) },
            notify: Some(["ops".into(), "the \"other\"".into()].into()),
            deadline: Some(Duration::from_mins(90)),
            origin: Origin::Added,
            state,
        }
    }

    #[tokio::test]
    async fn gives_back_what_was_written() {
        let store = SqliteStore::in_memory().unwrap();
        for (_, ending) in ENDINGS {
            let mut run = stored("r1");
            run.state.ended = Some(ending);
            store.commit(Commit { run: Some(run.clone()), ..Commit::default() }).await.unwrap();
            // Numbers beyond SQLite's range are limited, not lost.
            run.state.progress.failed = Some(i64::MAX.unsigned_abs());
            assert_eq!(store.load().await.unwrap(), [run.clone()]);
            store.forget(vec![run.subject.id]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_end_that_the_api_gave_is_never_written_over() {
        let store = SqliteStore::in_memory().unwrap();
        let mut run = stored("r1");
        run.state.ended = Some(Ending::Finished(Terminal::Succeeded));
        store.commit(Commit { run: Some(run.clone()), ..Commit::default() }).await.unwrap();
        let known = store.load().await.unwrap();
        run.state.ended = Some(Ending::Gone);
        let event = Event::of_ending("s", &run.subject, Ending::Gone, &run.state, None, run.state.watched_at);
        store
            .commit(Commit { run: Some(run), events: vec![(event, vec!["a".into()])], moment: None })
            .await
            .unwrap();
        assert_eq!(store.load().await.unwrap(), known);
        assert!(
            crate::store::Outbox::undelivered(&store).await.unwrap().is_empty(),
            "nor is anything told of it"
        );
    }

    #[tokio::test]
    async fn one_run_event_and_channel_is_one_row() {
        let store = SqliteStore::in_memory().unwrap();
        let run = stored("r1");
        let event = Event::of_ending("s", &run.subject, Ending::Gone, &run.state, None, run.state.watched_at);
        for _ in 0..3 {
            let events = vec![(event.clone(), vec!["a".into(), "b".into(), "a".into()])];
            store.commit(Commit { run: Some(run.clone()), events, moment: None }).await.unwrap();
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

    #[tokio::test]
    async fn adding_changes_what_is_to_be_done_and_not_what_is_known() {
        let store = SqliteStore::in_memory().unwrap();
        let mut known = stored("r1");
        known.state.progress.failed = Some(7);
        known.state.ended = Some(Ending::Finished(Terminal::Failed));
        store.commit(Commit { run: Some(known.clone()), ..Commit::default() }).await.unwrap();
        let anew = Watched::new(known.subject.clone(), Timestamp::UNIX_EPOCH);
        let added = store.add(vec![anew.clone()]).await.unwrap();
        assert_eq!(added[0].state, known.state);
        assert_eq!(
            (&added[0].notify, added[0].deadline, added[0].origin),
            (&known.notify, known.deadline, Origin::Added)
        );
        let other = Watched { deadline: Some(Duration::from_secs(9)), ..anew.clone() };
        let added = store.add(vec![other]).await.unwrap();
        assert_eq!((&added[0].notify, added[0].deadline), (&known.notify, Some(Duration::from_secs(9))));
        // A commit in progress does not bring it back.
        store.commit(Commit { run: Some(known.clone()), ..Commit::default() }).await.unwrap();
        assert_eq!(store.load().await.unwrap(), added);
        // A run that was given up is watched again.
        let mut lost = stored("r2");
        lost.state.ended = Some(Ending::NeverFound);
        store.commit(Commit { run: Some(lost.clone()), ..Commit::default() }).await.unwrap();
        assert_eq!(store.add(vec![lost]).await.unwrap()[0].state.ended, None);
    }

    #[tokio::test]
    async fn nobody_asked_for_the_channels_of_a_run_that_was_found() {
        let store = SqliteStore::in_memory().unwrap();
        let found = Watched { origin: Origin::Found, ..stored("r1") };
        store.add(vec![found.clone()]).await.unwrap();
        assert_eq!(store.add(vec![found.clone()]).await.unwrap()[0].notify, found.notify);
        for (origin, then) in [(Origin::Configured, Origin::Found), (Origin::Added, Origin::Added)] {
            let named = Watched { origin, ..Watched::new(found.subject.clone(), Timestamp::UNIX_EPOCH) };
            let added = &store.add(vec![named]).await.unwrap()[0];
            assert_eq!((&added.notify, added.origin), (&None, then), "all, as whoever names it says");
            store.forget(vec![found.subject.id.clone()]).await.unwrap();
            store.add(vec![found.clone()]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn saving_does_not_bring_back_what_was_forgotten() {
        let store = SqliteStore::in_memory().unwrap();
        store.save(vec![stored("r1")]).await.unwrap();
        assert!(store.load().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_moment_is_remembered_until_it_is_forgotten() {
        let store = SqliteStore::in_memory().unwrap();
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        for moment in [Some(at), None] {
            store.commit(Commit { moment: Some(("x".into(), moment)), ..Commit::default() }).await.unwrap();
            assert_eq!(store.moment("x".into()).await.unwrap(), moment);
        }
    }

    #[tokio::test]
    async fn a_run_is_forgotten_and_what_is_to_be_told_of_it_is_not() {
        let store = SqliteStore::in_memory().unwrap();
        let run = stored("r1");
        let event = Event::of_ending("s", &run.subject, Ending::Gone, &run.state, None, run.state.watched_at);
        let commit = Commit { run: Some(run.clone()), events: vec![(event, vec!["a".into()])], moment: None };
        store.commit(commit).await.unwrap();
        store.forget(vec![run.subject.id]).await.unwrap();
        assert!(store.load().await.unwrap().is_empty());
        assert_eq!(crate::store::Outbox::undelivered(&store).await.unwrap().len(), 1);
    }
}
