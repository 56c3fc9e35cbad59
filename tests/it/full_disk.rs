//! A state on a disk without room for its log, and on one that others fill: recording continues as soon as there is
//! room.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use runwatch::run::Subject;
use runwatch::store::{Commit, RunStore as _, SqliteStore, StoreErrorKind, Watched};

use crate::support::need;

/// The size of the disk, in kB: a quarter of what the log may have elsewhere.
const SIZE: u32 = 1024;

fn run(n: u32) -> Watched {
    let subject = Subject { id: format!("run-{n}").parse().unwrap(), name: Some("x".repeat(200).into()) };
    Watched::new(subject, Timestamp::UNIX_EPOCH)
}

/// Remembers a moment: what is written grows the log, and hardly the database.
async fn note(store: &SqliteStore, n: u32) -> Result<(), StoreErrorKind> {
    let moment = Some(("m".into(), Some(Timestamp::from_second(n.into()).unwrap())));
    store.commit(Commit { moment, ..Commit::default() }).await.map_err(|error| error.kind)
}

fn fill(dir: &Path) -> File {
    let mut filler = File::options().create(true).append(true).open(dir.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    filler
}

fn database(dir: &Path) -> std::path::PathBuf {
    dir.join("runwatch.db")
}

#[tokio::test]
async fn a_disk_that_is_smaller_than_the_log_may_grow_is_never_filled_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = need::small_disk(dir.path(), SIZE) else { return };
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    for n in 0..1000 {
        assert_eq!(note(&store, n).await, Ok(()), "commit {n}");
    }
    assert_eq!(*store.health().borrow(), None);
}

#[tokio::test]
async fn recording_goes_on_after_the_log_had_all_the_room_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = need::small_disk(dir.path(), SIZE) else { return };
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    store.add(vec![run(0)]).await.unwrap();
    // More at once than there is room for: the log has grown all the same.
    let error = store.add((0..10_000).map(run).collect()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Full);
    assert_eq!(store.health().borrow().as_ref().unwrap().kind, StoreErrorKind::Full);
    store.add((0..100).map(run).collect()).await.unwrap();
    assert_eq!(*store.health().borrow(), None);
    assert_eq!(store.load().await.unwrap().len(), 100);
}

#[tokio::test]
async fn recording_goes_on_after_others_had_all_the_room_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = need::small_disk(dir.path(), SIZE) else { return };
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    let mut filled = 0;
    for round in 0..5 {
        let rest = fill(dir.path());
        // Whatever room emptying the log has made is taken, too.
        let failed = async {
            for n in 0..200 {
                if note(&store, n).await.is_err() {
                    return true;
                }
                while (&rest).write_all(&[0; 512]).is_ok() {}
            }
            false
        };
        filled += u32::from(failed.await);
        drop(rest);
        std::fs::remove_file(dir.path().join("filler")).unwrap();
        store.add((round * 50..round * 50 + 50).map(run).collect()).await.unwrap();
        assert_eq!(*store.health().borrow(), None);
    }
    assert!(filled > 0);
    assert_eq!(store.load().await.unwrap().len(), 250);
}

#[tokio::test]
async fn a_log_that_has_all_the_room_at_the_start_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = need::small_disk(dir.path(), SIZE) else { return };
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    let runs: Vec<_> = (0..100).map(run).collect();
    store.add(runs.clone()).await.unwrap();
    store.close().await.unwrap();
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    for _ in 0..20 {
        store.save(runs.clone()).await.unwrap();
    }
    // As a kill leaves it; an id of an older version has to be written anew.
    store.replace(|_| Ok::<_, ()>(())).await.unwrap().unwrap();
    drop(store);
    let db = rusqlite::Connection::open(database(dir.path())).unwrap();
    db.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA locking_mode = EXCLUSIVE").unwrap();
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let id = "3C90C3CC-0D44-4B50-8888-8DD25736052A";
    db.execute("UPDATE runs SET id = ?1 WHERE id = 'run-0'", [id]).unwrap();
    drop(db);
    drop(fill(dir.path()));
    let store = SqliteStore::open(&database(dir.path())).unwrap();
    let ids: Vec<_> =
        store.load().await.unwrap().iter().map(|run| run.subject.id.as_str().to_owned()).collect();
    assert!(ids.contains(&id.to_lowercase()), "{ids:?}");
}
