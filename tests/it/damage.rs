//! A damaged state, found at the start or later: readable rows move to a new state, and losses are reported.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;

use crate::durability::{Place, event, stop};
use crate::support::bin::{Output, runwatch};
use crate::support::world::{Course, Temper};

fn ask(place: &Place, args: &[&str]) -> Output {
    runwatch(args).env("RUNWATCH_SOCKET", place.socket()).run()
}

fn database(place: &Place) -> PathBuf {
    place.state().join("runwatch.db")
}

/// Works on a database that a daemon may have locked.
fn meddle(database: &Path, sql: &str) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    let url = format!("file:{}?vfs=unix-none", database.display());
    let db = Connection::open_with_flags(url, flags).unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    db.execute_batch(&format!("PRAGMA locking_mode = EXCLUSIVE; {sql}; PRAGMA wal_checkpoint(TRUNCATE)"))
        .unwrap();
}

/// What a state knows besides the configuration: `told` was told, the end of `late` is still to be sent, `added` goes on, and
/// `removed` was removed. Gives the daemon.
fn prepared() -> (Place, crate::support::bin::Running) {
    let place = Place::with(&[
        ("told", &["FAILED"]),
        ("late", &["PROCESSING"]),
        ("added", &["PROCESSING"]),
        ("removed", &["PROCESSING"]),
    ]);
    let daemon = place.daemon(&[]).spawn();
    place.wait("listening", || place.socket().exists());
    for run in ["told", "late", "added", "removed"] {
        let added = ask(&place, &["add", run]);
        assert_eq!(added.code, Some(0), "{added:?}");
    }
    place.wait_until("told", || place.log().matches("delivered").count() == 1);
    let removed = ask(&place, &["remove", "removed"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    place.world.set_temper(Temper { receiver_fails: 1, ..Temper::default() });
    place.world.set_course("late", Course::through(&["CANCELED"]));
    place.wait_until("refused", || place.told().len() == 2);
    place.wait_until("recorded", || {
        let left = ask(&place, &["deliveries", "list", "--output", "json"]);
        left.stdout.contains("500")
    });
    (place, daemon)
}

/// All of it goes on.
fn goes_on(place: &Place) {
    place.world.set_temper(Temper::default());
    let retried = ask(place, &["deliveries", "retry", "--all"]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    place.world.set_course("added", Course::through(&["SUCCEEDED"]));
    let taken = || {
        let receipts = place.world.receipts().into_iter().filter(|receipt| receipt.taken);
        let mut taken: Vec<_> = receipts.map(|receipt| event(&receipt.run, &receipt.kind)).collect();
        taken.sort();
        taken
    };
    place.wait_until("told", || taken().len() >= 3);
    let expected =
        [event("added", "run.succeeded"), event("late", "run.canceled"), event("told", "run.failed")];
    assert_eq!(taken(), expected, "each once");
    assert_eq!(place.aside().len(), 1, "{}", place.log());
    let copy = place.dir.path().join("copy.db");
    let copied = ask(place, &["state", "backup", copy.to_str().unwrap()]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let removed = "SELECT count(*) FROM removed_runs WHERE id = 'removed'";
    let removed: i64 = Connection::open(&copy).unwrap().query_row(removed, (), |row| row.get(0)).unwrap();
    assert_eq!(removed, 1, "that it was removed is still known");
}

#[test]
fn what_can_be_read_at_the_start_goes_on() {
    let (place, daemon) = prepared();
    daemon.signal(Signal::KILL);
    drop(daemon.wait());
    place.world.wait_until_quiet();
    meddle(&database(&place), "DROP TABLE moments");
    let daemon = place.daemon(&[]).spawn();
    place.wait("listening", || ask(&place, &["list"]).code == Some(0));
    assert!(place.log().contains("saved from the damaged state: 4 runs, 1 removed runs"), "{}", place.log());
    assert!(place.log().contains("could not be read in the damaged state: the remembered times"));
    goes_on(&place);
    stop(daemon);
}

#[test]
fn what_can_be_read_at_work_goes_on() {
    let (place, daemon) = prepared();
    meddle(&database(&place), "DROP TABLE moments");
    place.wait_until("saved", || place.log().contains("saved from the damaged state: 4 runs, 1 removed"));
    place.wait_until("well", || place.get("/readyz").1.contains("a damaged state is kept as"));
    goes_on(&place);
    stop(daemon);
}

#[test]
fn a_new_state_that_a_kill_left_beside_its_place_gets_it() {
    let (place, daemon) = prepared();
    stop(daemon);
    std::fs::rename(database(&place), place.state().join("runwatch.db.new")).unwrap();
    // The log of the damaged one, which has both names.
    for name in ["runwatch.db-wal", "runwatch.db.corrupt-20260101T000000Z-wal"] {
        std::fs::write(place.state().join(name), "of the damaged one").unwrap();
    }
    std::fs::write(place.state().join("runwatch.db.corrupt-20260101T000000Z"), "damaged").unwrap();
    let daemon = place.daemon(&[]).spawn();
    place.wait("listening", || ask(&place, &["list"]).code == Some(0));
    goes_on(&place);
    stop(daemon);
}

#[test]
fn a_new_state_that_a_kill_left_beside_a_good_one_is_removed_if_it_is_ours() {
    let (place, daemon) = prepared();
    stop(daemon);
    let new = place.state().join("runwatch.db.new");
    std::fs::write(&new, "left over").unwrap();
    std::fs::write(place.state().join("theirs"), "theirs").unwrap();
    let part = place.state().join("runwatch.db.part");
    std::os::unix::fs::symlink("theirs", &part).unwrap();
    let daemon = place.daemon(&[]).spawn();
    place.wait("listening", || ask(&place, &["list"]).code == Some(0));
    assert!(!new.exists() && part.is_symlink(), "what is not ours is left alone");
    assert!(place.log().contains("interrupted replacement"), "{}", place.log());
    stop(daemon);
}
