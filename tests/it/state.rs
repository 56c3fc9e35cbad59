//! Changes by others to the daemon's state while it runs, and foreign files in its place before. Nothing is recorded into a
//! removed file, foreign files are neither overwritten nor trusted, and a stop leaves one file.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::durability::{Place, assert_loud, assert_well, event, stop};
use crate::support::bin::{Output, runwatch};
use crate::support::need;
use crate::support::until::found;
use crate::support::world::{Course, Point};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A daemon's state suffers something while run `a` was told and `b` goes on; then `b` ends. Everything that was recorded is
/// still there, and `b` is told once and recorded in the file that is at the path.
fn suffers(what: impl Fn(&Path)) -> Place {
    let place = Place::with(&[("a", &["FAILED"]), ("b", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().matches("delivered").count() == 1);
    let add = runwatch(&["add", "b", "--name", "beta"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(add.code, Some(0), "{add:?}");
    what(&place.state());
    place.world.set_course("b", Course::through(&["SUCCEEDED"]));
    place.wait_until("told", || place.log().matches("delivered").count() == 2);
    place.wait_until("well", || place.get("/readyz").0 == "200");
    assert!(place.log().contains("the state has turned out to be damaged"), "{}", place.log());
    // What is at the path knows all of it, also after a kill.
    daemon.signal(Signal::KILL);
    drop(daemon.wait());
    place.world.wait_until_quiet();
    let next = place.daemon(&["a"]).spawn();
    let list =
        || runwatch(&["list", "--all", "--output", "json"]).env("RUNWATCH_SOCKET", place.socket()).run();
    place.wait("listening", || list().code == Some(0));
    let list = list().json();
    let runs = list["runs"].as_array().unwrap();
    let of = |id: &str| runs.iter().find(|run| run["id"] == id).unwrap_or_else(|| panic!("{list}"));
    assert_eq!((&of("a")["status"], &of("b")["status"]), (&"FAILED".into(), &"SUCCEEDED".into()));
    assert_eq!(of("b")["name"], "beta");
    assert_eq!(place.told(), [event("a", "run.failed"), event("b", "run.succeeded")], "each once");
    let deliveries =
        runwatch(&["deliveries", "list", "--output", "json"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(deliveries.json()["deliveries"].as_array().unwrap().len(), 2, "{deliveries:?}");
    stop(next);
    place
}

#[test]
fn a_state_directory_that_is_removed_is_made_again_with_all_that_was_recorded() {
    suffers(|state| std::fs::remove_dir_all(state).unwrap());
}

#[test]
fn a_state_directory_that_is_renamed_is_made_again_with_all_that_was_recorded() {
    suffers(|state| std::fs::rename(state, state.with_extension("moved")).unwrap());
}

#[test]
fn a_database_that_is_removed_is_written_again() {
    suffers(|state| std::fs::remove_file(state.join("runwatch.db")).unwrap());
}

#[test]
fn a_log_that_is_removed_is_written_again() {
    suffers(|state| std::fs::remove_file(state.join("runwatch.db-wal")).unwrap());
}

#[test]
fn a_file_that_takes_the_place_of_the_database_is_set_aside() {
    let place = suffers(|state| {
        std::fs::write(state.join("other"), "somebody's").unwrap();
        std::fs::rename(state.join("other"), state.join("runwatch.db")).unwrap();
    });
    let aside = place.set_aside("replaced");
    assert_eq!(aside.len(), 1, "{:?}", names(&place.state()));
    assert_eq!(std::fs::read_to_string(place.state().join(&aside[0])).unwrap(), "somebody's");
}

/// Works on a database that the daemon has locked, as a program that does not care.
fn meddle(state: &Path, sql: &str) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
    let url = format!("file:{}?vfs=unix-none", state.join("runwatch.db").display());
    let db = Connection::open_with_flags(url, flags).unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    db.execute_batch(&format!("PRAGMA locking_mode = EXCLUSIVE; {sql}; PRAGMA wal_checkpoint(TRUNCATE)"))
        .unwrap();
}

/// The state is damaged so that nothing in it can be saved. What the daemon knows goes on in a new one.
fn is_damaged(damage: impl Fn(&Path)) {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("seen", || place.log().matches("PROCESSING").count() >= 2);
    // It would notice what is only half done.
    daemon.signal(Signal::STOP);
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    place.wait("stopped", || stat().contains(") T "));
    damage(&place.state());
    daemon.signal(Signal::CONT);
    place.world.set_course("a", Course::through(&["FAILED"]));
    place.wait_until("told", || place.log().matches("delivered").count() == 1);
    assert_eq!(place.told(), [event("a", "run.failed")]);
    assert_eq!(place.aside().len(), 1, "{}", place.log());
    assert!(place.get("/readyz").1.contains("a damaged state is kept as"));
    stop(daemon);
}

#[test]
fn a_table_that_is_dropped_is_damage() {
    is_damaged(|state| meddle(state, "DROP TABLE runs"));
}

#[test]
fn a_column_that_is_gone_is_damage() {
    is_damaged(|state| meddle(state, "ALTER TABLE runs DROP COLUMN overdue_told_at"));
}

#[test]
fn a_schema_that_makes_no_sense_is_damage() {
    let nonsense = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'nonsense' WHERE name = 'runs'; \
                    PRAGMA schema_version = 9999";
    is_damaged(|state| meddle(state, nonsense));
}

#[test]
fn another_databases_content_is_damage() {
    is_damaged(|state| {
        let other = state.join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (x)").unwrap();
        // Into the same file, as cp does it.
        std::fs::copy(&other, state.join("runwatch.db")).unwrap();
        File::create(state.join("runwatch.db-wal")).unwrap();
    });
}

#[test]
fn damage_that_is_there_at_the_start_is_found_whatever_its_kind() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    stop(daemon);
    meddle(&place.state(), "DROP TABLE moments");
    place.world.set_course("a", Course::through(&["FAILED"]));
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    assert_eq!(place.aside().len(), 1, "{}", place.log());
    stop(daemon);
}

#[test]
fn a_stop_leaves_one_file_and_a_kill_leaves_nothing_that_is_missed() {
    let place = Place::with(&[("a", &["FAILED"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    assert_eq!(names(&place.state()), ["runwatch.db", "runwatch.db-wal", "runwatch.lock"]);
    stop(daemon);
    assert_eq!(names(&place.state()), ["runwatch.db", "runwatch.lock"]);
    let db = Connection::open(place.state().join("runwatch.db")).unwrap();
    let ended: String = db.query_row("SELECT ended FROM runs WHERE id = 'a'", (), |row| row.get(0)).unwrap();
    assert_eq!(ended, "FAILED");
}

#[test]
fn a_lock_file_that_is_deleted_lets_no_second_daemon_in() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let first = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    std::fs::remove_file(place.state().join("runwatch.lock")).unwrap();
    let second = start(&place.state());
    assert_ne!(second.code, Some(0), "{second:?}");
    assert!(second.stderr.contains("another process has") && second.stderr.contains("open"), "{second:?}");
    place.wait_for(Point::Answered);
    assert!(!place.log().contains("damaged"), "{}", place.log());
    stop(first);
}

/// A daemon that is to be refused.
fn start(state: &Path) -> Output {
    runwatch(&["daemon"]).config("").env("STATE_DIRECTORY", state).run()
}

#[test]
fn what_is_no_file_of_ours_is_refused_at_once_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "theirs").unwrap();
    for name in ["runwatch.db", "runwatch.db-wal", "runwatch.lock"] {
        for (kind, why) in
            [("pipe", "a named pipe"), ("directory", "a directory"), ("link", "a symbolic link")]
        {
            let state = dir.path().join(format!("{name}-{kind}"));
            std::fs::create_dir(&state).unwrap();
            // What is beside a database that is not there would be set aside.
            if name == "runwatch.db-wal" {
                std::fs::write(state.join("runwatch.db"), "").unwrap();
            }
            let path = state.join(name);
            match kind {
                "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
                "directory" => std::fs::create_dir(&path).unwrap(),
                _ => symlink(&victim, &path).unwrap(),
            }
            let refused = start(&state);
            assert_eq!(refused.code, Some(78), "{name} {kind}: {refused:?}");
            assert!(refused.stderr.contains(why), "{name} {kind}: {refused:?}");
            assert!(refused.stderr.contains(name), "{name} {kind}: {refused:?}");
        }
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
}

#[test]
fn a_state_directory_that_others_could_tamper_with_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    let refused = start(&state);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("everybody may write to it (mode 0777)"), "{refused:?}");
    std::fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    // Whoever may write to a directory above can put another in its place.
    let below = state.join("deep/below");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    for path in [&below, &state.join("new")] {
        let refused = start(path);
        assert_eq!(refused.code, Some(78), "{refused:?}");
        let why = format!("everybody may write to {} (mode 0777)", state.display());
        assert!(refused.stderr.contains(&why), "{refused:?}");
    }
    assert!(!state.join("new").exists());
    std::fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(state.join("deep")).unwrap();
    let Some(()) = need::root() else { return };
    chown(&state, Some(12345), None).unwrap();
    let refused = start(&state);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("it belongs to another user (uid 12345"), "{refused:?}");
    std::os::unix::fs::lchown(&state, Some(0), None).unwrap();
    let link = dir.path().join("link");
    symlink(&state, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
    let refused = start(&link);
    assert!(refused.stderr.contains("a symbolic link of another user's"), "{refused:?}");
    assert_eq!(names(&state), [""; 0]);
}

#[test]
fn a_state_directory_behind_a_link_is_used() {
    let place = Place::with(&[("a", &["FAILED"])]);
    // As systemd makes it for DynamicUser=.
    std::fs::create_dir(place.dir.path().join("private")).unwrap();
    symlink("private", place.state()).unwrap();
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    stop(daemon);
    assert_eq!(names(&place.dir.path().join("private")), ["runwatch.db", "runwatch.lock"]);
}

/// Every file and directory below, with its permissions.
fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.path().symlink_metadata().unwrap();
        modes.push((entry.file_name().into_string().unwrap(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes.extend(self::modes(&entry.path()));
        }
    }
    modes
}

#[test]
fn what_the_daemon_makes_is_its_users_only_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let daemon = runwatch(&["daemon", "--watch-dir", path("made/spool").to_str().unwrap()])
        .config("")
        .env("STATE_DIRECTORY", path("made/state"))
        .env("RUNWATCH_SOCKET", path("made/run/sock"))
        .under(Path::new("/bin/sh"), &["-c", "umask 000; exec \"$@\"", "sh"])
        .log(&path("log"))
        .spawn();
    let log = || std::fs::read_to_string(path("log")).unwrap();
    found("what the daemon makes", || {
        if path("made/spool").exists() && path("made/run/sock").exists() { Ok(()) } else { Err(log()) }
    });
    let mut made = modes(&path("made"));
    made.sort();
    let expected = [
        ("run", 0o700),
        ("runwatch.db", 0o600),
        ("runwatch.db-wal", 0o600),
        ("runwatch.lock", 0o600),
        ("sock", 0o600),
        ("spool", 0o700),
        ("state", 0o700),
    ];
    assert_eq!(made, expected.map(|(name, mode)| (name.to_owned(), mode)));
    assert_eq!(path("made").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    stop(daemon);
}

#[test]
fn a_path_that_is_not_utf_8_is_used_as_it_is() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::with(&[("a", &["FAILED"])]);
    let state = place.dir.path().join(OsStr::from_bytes(b"st\xff\xfete"));
    let daemon = place.daemon(&["a"]).env("STATE_DIRECTORY", &state).without("RUNWATCH_SOCKET").spawn();
    place.wait_until("told", || place.log().contains("delivered"));
    let list = runwatch(&["list", "--all"]).env("STATE_DIRECTORY", &state).run();
    assert!(list.stdout.contains("FAILED"), "{list:?}");
    stop(daemon);
    assert_eq!(names(&state), ["runwatch.db", "runwatch.lock"]);
    let made: Vec<_> = std::fs::read_dir(place.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(made.len(), 2, "the state and the log: {made:?}");
}

#[test]
fn a_socket_path_that_names_something_else_is_refused_and_that_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "theirs").unwrap();
    let refused = runwatch(&["daemon"])
        .config("")
        .env("STATE_DIRECTORY", dir.path().join("state"))
        .env("RUNWATCH_SOCKET", &precious)
        .run();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("which is not replaced"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "theirs");
}

#[test]
fn a_disk_that_is_full_takes_nothing_away_and_what_was_seen_is_told_when_there_is_room() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    std::fs::create_dir(place.state()).unwrap();
    let Some(_disk) = need::small_disk(&place.state(), 512) else { return };
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("seen", || place.log().matches("PROCESSING").count() >= 2);
    let filler = place.state().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    place.world.set_course("a", Course::through(&["FAILED"]));
    assert_loud(&place);
    assert_eq!(place.told(), []);
    drop(file);
    std::fs::remove_file(filler).unwrap();
    place.wait_until("delivered", || place.log().contains("delivered"));
    assert_eq!(place.told(), [event("a", "run.failed")], "told once");
    assert_well(&place);
    stop(daemon);
}

#[test]
fn no_file_of_the_state_is_mapped_into_memory() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("seen", || place.log().contains("PROCESSING"));
    // What a full disk takes away under a mapping ends the process.
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    assert!(maps.contains("/runwatch") && !maps.contains("runwatch.db"), "{maps}");
    stop(daemon);
}

#[test]
fn that_a_run_was_removed_is_forgotten_in_time_also_where_no_runs_are_looked_for() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    stop(daemon);
    let removed = || {
        let db = Connection::open(place.state().join("runwatch.db")).unwrap();
        let mut select = db.prepare("SELECT id FROM removed_runs").unwrap();
        let ids: Result<Vec<String>, _> = select.query_map((), |row| row.get(0)).unwrap().collect();
        ids.unwrap()
    };
    let db = Connection::open(place.state().join("runwatch.db")).unwrap();
    let now = jiff::Timestamp::now().as_microsecond();
    let day = 24 * 3600 * 1_000_000;
    for (id, at) in [("long-ago", 1_000_000), ("now", now), ("yesterday", now - day)] {
        db.execute("INSERT INTO removed_runs (id, at) VALUES (?1, ?2)", (id, at)).unwrap();
    }
    drop(db);
    assert_eq!(removed(), ["long-ago", "now", "yesterday"]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    let copy = place.dir.path().join("copy.db");
    place.wait("purged", || {
        let args = ["state", "backup", "--force", copy.to_str().unwrap()];
        runwatch(&args).env("RUNWATCH_SOCKET", place.socket()).run();
        let count = |db: &Connection| db.query_row("SELECT count(*) FROM removed_runs", (), |row| row.get(0));
        Connection::open(&copy).is_ok_and(|db| count(&db).is_ok_and(|count: i64| count == 2))
    });
    stop(daemon);
    assert_eq!(removed(), ["now", "yesterday"], "they are kept for 30 days");
}
