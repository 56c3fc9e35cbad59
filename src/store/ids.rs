//! Converts run ids in files of older versions. These stored a UUID as typed (in upper case, in braces, or without
//! dashes), as a separate run with its own notifications.
//!
//! Gives them the one form that [`RunId`] has. Runs whenever a file is opened, which costs one scan of the ids.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::run::RunId;

/// Ids that may be a UUID, but not in lower case with dashes.
const ODD: &str =
    "(id GLOB '*[A-Z{]*' OR id LIKE 'urn:uuid:%' OR (length(id) = 32 AND id NOT GLOB '*[^0-9a-f]*'))";

/// Converts every run's id, in one transaction.
pub(super) fn normalise(db: &Connection) -> rusqlite::Result<()> {
    let odd = odd_ids(db)?;
    if odd.is_empty() {
        return Ok(());
    }
    let transaction = db.unchecked_transaction()?;
    for (old, id) in &odd {
        merge(db, old, id)?;
        db.execute("UPDATE events SET run_id = ?2 WHERE run_id = ?1", params![old, id])?;
        db.execute("UPDATE OR REPLACE removed_runs SET id = ?2 WHERE id = ?1", params![old, id])?;
    }
    transaction.commit()
}

/// Every id in another form, with the converted one.
fn odd_ids(db: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut select = db.prepare(&format!(
        "SELECT id FROM (SELECT id FROM runs UNION SELECT run_id FROM events WHERE run_id NOT NULL \
         UNION SELECT id FROM removed_runs) WHERE {ODD}"
    ))?;
    let ids: rusqlite::Result<Vec<String>> = select.query_map((), |row| row.get(0))?.collect();
    let other = |old: String| {
        let id = old.parse::<RunId>().ok().filter(RunId::is_uuid)?;
        (id.as_str() != old).then(|| (old, id.to_string()))
    };
    Ok(ids?.into_iter().filter_map(other).collect())
}

/// Of two rows about one run, keeps the one with the end, so that the end is not notified again.
fn merge(db: &Connection, old: &str, id: &str) -> rusqlite::Result<()> {
    let rank = |id: &str| {
        let rank = "SELECT iif(ended IN ('SUCCEEDED', 'FAILED', 'CANCELED'), 2, ended NOT NULL) FROM runs WHERE id = ?1";
        db.query_row(rank, [id], |row| row.get::<_, i64>(0)).optional()
    };
    match (rank(old)?, rank(id)?) {
        (None, _) => return Ok(()),
        (Some(old_rank), Some(rank)) if old_rank <= rank => {
            db.execute("DELETE FROM runs WHERE id = ?1", [old])?;
            return Ok(());
        }
        (Some(_), Some(_)) => {
            db.execute("DELETE FROM runs WHERE id = ?1", [id])?;
        }
        (Some(_), None) => {}
    }
    db.execute("UPDATE runs SET id = ?2 WHERE id = ?1", params![old, id]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";

    fn database(runs: &[(&str, Option<&str>)]) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(include_str!("schema/new.sql")).unwrap();
        for (id, ended) in runs {
            db.execute("INSERT INTO runs (id, watched_at, ended) VALUES (?1, 1, ?2)", params![id, ended])
                .unwrap();
            db.execute(
                "INSERT INTO events (id, run_id, at, payload) VALUES ('evt ' || ?1, ?1, 1, '{}')",
                params![id],
            )
            .unwrap();
            db.execute("INSERT INTO removed_runs (id, at) VALUES (?1, 1)", params![id]).unwrap();
        }
        normalise(&db).unwrap();
        normalise(&db).unwrap();
        db
    }

    fn all(db: &Connection, sql: &str) -> Vec<(String, Option<String>)> {
        let mut select = db.prepare(sql).unwrap();
        let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_form_of_a_uuid_becomes_one_and_other_ids_stay() {
        let (upper, simple) = (ID.to_uppercase(), ID.replace('-', ""));
        for old in [&upper, &simple, &format!("{{{ID}}}"), &format!("urn:uuid:{upper}")] {
            let db = database(&[(old, None), ("Nightly", None), ("{x", None)]);
            let expected = [(ID, ()), ("Nightly", ()), ("{x", ())].map(|(id, ())| (id.to_owned(), None));
            assert_eq!(all(&db, "SELECT id, NULL FROM runs ORDER BY id"), expected);
            assert_eq!(all(&db, "SELECT run_id, NULL FROM events ORDER BY run_id"), expected);
            assert_eq!(all(&db, "SELECT id, NULL FROM removed_runs ORDER BY id"), expected);
        }
    }

    #[test]
    fn of_two_rows_the_one_that_knows_the_end_stays() {
        let upper = ID.to_uppercase();
        for (old, new, stays) in [
            (None, None, None),
            (Some("FAILED"), None, Some("FAILED")),
            (None, Some("FAILED"), Some("FAILED")),
            (Some("GONE"), Some("SUCCEEDED"), Some("SUCCEEDED")),
            (Some("SUCCEEDED"), Some("GONE"), Some("SUCCEEDED")),
            (Some("GONE"), None, Some("GONE")),
        ] {
            let db = database(&[(&upper, old), (ID, new)]);
            let rows = all(&db, "SELECT id, ended FROM runs");
            assert_eq!(rows, [(ID.to_owned(), stays.map(str::to_owned))], "{old:?} {new:?}");
            assert_eq!(all(&db, "SELECT id, NULL FROM events").len(), 2, "what was told stays told");
        }
    }

    /// An old file with two forms of an id: the end is recorded, and not notified again.
    #[tokio::test]
    async fn an_old_file_makes_no_second_notification() {
        use crate::run::{Ending, Event, Subject, Terminal};
        use crate::store::{Commit, Outbox as _, RunStore as _, SqliteStore, Watched};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runwatch.db");
        drop(SqliteStore::open(&path).unwrap());
        let old = Connection::open(&path).unwrap();
        old.execute(
            "INSERT INTO runs (id, watched_at, ended, ended_at) VALUES (?1, 1, 'FAILED', 2)",
            [ID.to_uppercase()],
        )
        .unwrap();
        drop(old);
        let store = SqliteStore::open(&path).unwrap();
        let subject = Subject { id: ID.parse().unwrap(), name: None };
        let mut run = Watched::new(subject, jiff::Timestamp::UNIX_EPOCH);
        let known = store.add(vec![run.clone()]).await.unwrap();
        assert_eq!(known[0].state.ended, Some(Ending::Finished(Terminal::Failed)));
        run.state.ended = known[0].state.ended;
        let ending = Ending::Finished(Terminal::Failed);
        let event = Event::of_ending("s", &run.subject, ending, &run.state, None, run.state.watched_at);
        let commit = Commit { run: Some(run), events: vec![(event, vec!["ops".into()])], moment: None };
        store.commit(commit).await.unwrap();
        assert!(store.undelivered().await.unwrap().is_empty());
        assert_eq!(store.load().await.unwrap().len(), 1);
    }
}
