//! Tests of `salvage`.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use super::*;
use crate::store::testing::at;
use crate::store::{RunStore as _, SqliteStore, Watched};

const RUNS: usize = 2000;

fn run(n: usize) -> Watched {
    let id = format!("{:08x}-0d44-4b50-8888-8dd25736052a", n * 2_000_003);
    Watched::new(crate::run::Subject { id: id.parse().unwrap(), name: Some("x".repeat(100).into()) }, at(0))
}

/// A database with runs on many pages, in one file.
async fn database(dir: &Path) -> PathBuf {
    let path = dir.join("runwatch.db");
    let store = SqliteStore::open(&path).unwrap();
    store.add((0..RUNS).map(run).collect()).await.unwrap();
    store.remove("gone".parse().unwrap(), at(0)).await.unwrap();
    store.close().await.unwrap();
    path
}

/// The numbers of the pages with rows of runs.
fn leaves(database: &Path) -> Vec<u64> {
    let marker = "xxxxxxxx".as_bytes();
    let bytes = std::fs::read(database).unwrap();
    let pages = bytes.chunks(4096).enumerate();
    let is_leaf = |page: &[u8]| page[0] == 10 && page.windows(8).any(|window| window == marker);
    pages.filter(|(_, page)| is_leaf(page)).map(|(at, _)| at as u64).collect()
}

fn write(database: &Path, page: u64, bytes: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(database).unwrap();
    file.seek(SeekFrom::Start(page * 4096)).unwrap();
    file.write_all(bytes).unwrap();
}

async fn read(path: &Path) -> Vec<Watched> {
    SqliteStore::open(path).unwrap().load().await.unwrap()
}

#[tokio::test]
async fn all_rows_but_those_on_damaged_pages_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path()).await;
    let leaves = leaves(&path);
    assert!(leaves.len() > 60, "{leaves:?}");
    for nth in [3, 20, 21, 40] {
        write(&path, leaves[nth], &[0; 4096]);
    }
    let before = std::fs::read(&path).unwrap();
    assert_eq!(SqliteStore::open(&path).err().unwrap().kind, crate::store::StoreErrorKind::Corrupt);
    let to = dir.path().join("new");
    let salvaged = salvage(&path, &to).unwrap();
    assert!(std::fs::read(&path).unwrap() == before, "it is left as it is");
    assert_eq!(salvaged.lost().as_deref(), Some("some runs"));
    let saved = read(&to).await.len();
    // A page holds fewer than thirty rows, and upper pages hold keys too.
    assert!(saved > RUNS - 5 * 30 && saved < RUNS, "{saved}");
    assert!(salvaged.to_string().starts_with(&format!("{saved} runs, 1 removed runs")), "{salvaged}");
}

#[tokio::test]
async fn what_a_file_has_that_was_cut_off_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path()).await;
    let length = path.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let to = dir.path().join("new");
    let salvaged = salvage(&path, &to).unwrap();
    assert!(salvaged.lost().unwrap().contains("some runs"), "{salvaged:?}");
    let saved = read(&to).await.len();
    assert!(saved > RUNS / 3, "{saved}");
}

#[tokio::test]
async fn a_table_that_is_gone_takes_no_other_along() {
    for sql in [
        "DROP TABLE moments",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'nonsense' WHERE name = 'moments'",
        "ALTER TABLE runs DROP COLUMN overdue_told_at",
        "DROP INDEX deliveries_run; PRAGMA user_version = 77",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = database(dir.path()).await;
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let to = dir.path().join("new");
        let salvaged = salvage(&path, &to).unwrap();
        assert_eq!(salvaged.lost().is_some(), sql.contains("moments"), "{sql}: {salvaged:?}");
        assert_eq!(read(&to).await.len(), RUNS, "{sql}");
    }
}

#[tokio::test]
async fn rows_that_runwatch_never_wrote_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path()).await;
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO events VALUES ('e1', 'r', 1, '{}'), ('e2', 'r', 1, '{'), ('e3', CAST(x'ff' AS TEXT), 1, '{}'); \
         INSERT INTO deliveries (event_id, channel, state, attempts, due_at) VALUES \
         ('e1', 'a', 'pending', 0, 1), ('e1', 'b', 'pending', -1, 1), ('e2', 'a', 'pending', 0, 1)",
    )
    .unwrap();
    drop(db);
    let to = dir.path().join("new");
    let salvaged = salvage(&path, &to).unwrap();
    assert_eq!(salvaged.lost().as_deref(), Some("2 of the events, 2 of the deliveries"));
    let db = Connection::open(&to).unwrap();
    let left: i64 = db.query_row("SELECT count(*) FROM deliveries", (), |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn what_is_no_database_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("db"), dir.path().join("new"));
    std::fs::write(&path, b"no database".repeat(1000)).unwrap();
    assert_eq!(salvage(&path, &to).unwrap_err().kind, crate::store::StoreErrorKind::Corrupt);
    assert!(!to.exists());
}
