//! `runwatch state backup` with and without a daemon, and a daemon that starts from a backup.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::Signal;

use crate::durability::{Place, event, stop};
use crate::support::bin::{Output, runwatch};
use crate::support::world::{Course, Point};

fn backup(place: &Place, file: &Path, more: &[&str]) -> Output {
    let args = [&["state", "backup", file.to_str().unwrap()], more].concat();
    runwatch(&args).env("RUNWATCH_SOCKET", place.socket()).env("STATE_DIRECTORY", place.state()).run()
}

/// A daemon that begins with a copy knows what was told, and watches what was added.
fn goes_on_from(place: &Place, file: &Path) {
    std::fs::remove_dir_all(place.state()).unwrap();
    std::fs::create_dir(place.state()).unwrap();
    std::fs::copy(file, place.state().join("runwatch.db")).unwrap();
    place.world.set_course("b", Course::through(&["SUCCEEDED"]));
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.told().len() == 2);
    assert_eq!(place.told(), [event("a", "run.failed"), event("b", "run.succeeded")]);
    stop(daemon);
}

#[test]
fn a_copy_is_made_while_the_daemon_runs_and_has_everything() {
    let place = Place::with(&[("a", &["FAILED"]), ("b", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    let add = runwatch(&["add", "b"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(add.code, Some(0), "{add:?}");
    let file = place.dir.path().join("copy.db");
    let made = backup(&place, &file, &[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("copy.db has the state") || made.stdout.contains("copy.db has the state"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Never in the place of another file, unless that is asked for.
    std::fs::write(&file, "precious").unwrap();
    let refused = backup(&place, &file, &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("already exists"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let forced = backup(&place, &file, &["--force"]);
    assert_eq!(forced.code, Some(70), "{forced:?}");
    assert!(
        forced.stderr.contains("it is not a backup of a state, which --force does not replace"),
        "{forced:?}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    // A database of another program is somebody's, too.
    std::fs::remove_file(&file).unwrap();
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE runs (x)").unwrap();
    assert_eq!(backup(&place, &file, &["--force"]).code, Some(70));
    // An empty file, and an older backup.
    std::fs::write(&file, "").unwrap();
    for _ in 0..2 {
        let forced = backup(&place, &file, &["--force"]);
        assert_eq!(forced.code, Some(0), "{forced:?}");
    }
    let nowhere = backup(&place, Path::new("/nonexistent/copy.db"), &[]);
    assert_eq!(nowhere.code, Some(70), "{nowhere:?}");
    // Nothing is left over, here or there.
    let left = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    assert_eq!((left(place.dir.path()), left(&place.state())), (4, 3));
    stop(daemon);
    goes_on_from(&place, &file);
}

#[test]
fn a_copy_is_made_without_a_daemon_and_its_files_are_left_alone() {
    let place = Place::with(&[("a", &["FAILED"]), ("b", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    let add = runwatch(&["add", "b"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(add.code, Some(0), "{add:?}");
    let file = place.dir.path().join("copy.db");
    // One that this command does not find has the state all the same.
    let elsewhere = |more: &[&str]| {
        let args = [&["state", "backup", file.to_str().unwrap()], more].concat();
        let nowhere = place.dir.path().join("nowhere");
        runwatch(&args).env("RUNWATCH_SOCKET", nowhere).env("STATE_DIRECTORY", place.state()).run()
    };
    let refused = elsewhere(&[]);
    assert_eq!(refused.code, Some(70), "{refused:?}");
    assert!(refused.stderr.contains("is in use by another process"), "{refused:?}");
    assert!(!file.exists());
    daemon.signal(Signal::KILL);
    drop(daemon.wait());
    place.world.wait_until_quiet();
    let read = || {
        let mut files: Vec<_> =
            std::fs::read_dir(place.state()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = read();
    assert!(before.iter().any(|(_, path)| path.ends_with("runwatch.db-wal")));
    let made = backup(&place, &file, &[]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(read() == before, "nothing is changed");
    let state = place.state();
    let named = elsewhere(&["--force", "--state-dir", state.to_str().unwrap()]);
    assert_eq!(named.code, Some(0), "{named:?}");
    goes_on_from(&place, &file);
}

#[test]
fn without_a_daemon_and_a_state_it_is_said_that_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy.db");
    let none = runwatch(&["state", "backup", file.to_str().unwrap()])
        .env("RUNWATCH_SOCKET", dir.path().join("sock"))
        .env("STATE_DIRECTORY", dir.path().join("state"))
        .run();
    assert_ne!(none.code, Some(0), "{none:?}");
    assert!(none.stderr.contains("no daemon listens on"), "{none:?}");
    assert!(!file.exists());
}

#[test]
fn force_replaces_no_link_no_socket_and_no_state() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    let database = place.state().join("runwatch.db");
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    for taken in [&database, &place.state().join("runwatch.lock"), &place.socket(), &link] {
        let before = taken.symlink_metadata().unwrap().ino();
        let refused = backup(&place, taken, &["--force"]);
        assert_eq!(refused.code, Some(70), "{}: {refused:?}", taken.display());
        assert!(refused.stderr.contains("which --force does not replace"), "{refused:?}");
        assert_eq!(taken.symlink_metadata().unwrap().ino(), before, "{}", taken.display());
    }
    stop(daemon);
}

#[test]
fn what_is_in_the_way_of_a_copy_is_named() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    let (file, in_the_way) = (place.dir.path().join("copy.db"), place.state().join("runwatch.db.backup"));
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = backup(&place, &file, &[]);
    assert_eq!(refused.code, Some(70), "{refused:?}");
    assert!(refused.stderr.contains(in_the_way.to_str().unwrap()), "{refused:?}");
    stop(daemon);
}
