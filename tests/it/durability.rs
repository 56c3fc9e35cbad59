//! Problems with the daemon's state: it is in use, damaged, on a full disk or a failing one. Polling continues, the
//! problem is reported, and no delivery counts as made before it is recorded.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::bin::{Running, Runwatch, runwatch};
use crate::support::daemon::connect_to_port;
use crate::support::need;
use crate::support::until::found;
use crate::support::world::{Course, Point, Receipt, Temper, World};

const PATIENCE: Duration = Duration::from_secs(40);

/// A run that goes on for ever: as long as it is asked about, polling goes on.
const PULSE: &str = "pulse";

/// A daemon's surroundings.
pub struct Place {
    pub world: World,
    points: Receiver<Point>,
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn with(courses: &[(&str, &[&'static str])]) -> Self {
        let (sender, points) = channel();
        let sender = Mutex::new(sender);
        // Whoever listened may have failed.
        let world = World::start(move |point| {
            let _ = sender.lock().unwrap().send(point);
        });
        let courses = courses.iter().map(|(run, words)| ((*run).to_owned(), Course::through(words)));
        let pulse = (PULSE.to_owned(), Course::through(&["PROCESSING"]));
        world.begin(courses.chain([pulse]).collect(), Temper::default());
        Self { world, points, dir: tempfile::tempdir().unwrap() }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn daemon(&self, runs: &[&str]) -> Runwatch {
        let url = self.world.url();
        let runs = runs
            .iter()
            .chain([&PULSE])
            .map(|id| format!("[[run]]\nid = \"{id}\"\n"))
            .collect::<Vec<_>>()
            .concat();
        runwatch(&["daemon"])
            .base_url(&url)
            .env("STATE_DIRECTORY", self.state())
            .env("RUNWATCH_SOCKET", self.socket())
            .log(&self.dir.path().join("log"))
            .quick(&format!(
                "[daemon]\nlisten = \"127.0.0.1:0\"\n[[notify.webhook]]\nurl = \"{url}\"\nunsigned = true\n{runs}",
            ))
    }

    pub fn wait_for(&self, point: Point) {
        let found =
            || self.points.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        while found() != point {}
    }

    /// Looks every now and then, where nothing is asked, until it is so.
    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        found(what, || if is_so() { Ok(()) } else { Err(self.log()) });
    }

    /// Goes on each time the API is asked, until it is so.
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(tokio::time::Instant::now() < end, "never {what}: {}", self.log());
            self.wait_for(Point::Asked);
        }
    }

    pub fn get(&self, path: &str) -> (String, String) {
        let (mut stream, _) = connect_to_port(|| self.log());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    }

    pub fn told(&self) -> Vec<(String, String)> {
        let told = |receipt: Receipt| (receipt.run, receipt.kind);
        self.world.receipts().into_iter().map(told).collect()
    }

    pub fn aside(&self) -> Vec<String> {
        self.set_aside("corrupt")
    }

    /// The databases that were set aside for this reason.
    pub fn set_aside(&self, why: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.state()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let ends = ["-wal", "-shm"];
        let is_part = |name: &String| ends.iter().any(|end| name.ends_with(end));
        names.filter(|name| name.starts_with(&format!("runwatch.db.{why}-")) && !is_part(name)).collect()
    }
}

pub fn stop(daemon: Running) {
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code, Some(0));
}

pub fn event(run: &str, kind: &str) -> (String, String) {
    (run.to_owned(), kind.to_owned())
}

/// The trouble is said wherever anybody may look.
pub fn assert_loud(place: &Place) {
    place.wait_until("said", || place.log().contains("cannot record what was seen"));
    place.wait_until("unready", || {
        let (code, body) = place.get("/readyz");
        code == "503" && body.contains("cannot record what was seen")
    });
    place.wait_until("counted", || place.get("/metrics").1.contains("runwatch_store_up 0"));
    assert!(!place.log().contains("delivered"), "{}", place.log());
    // Polling goes on all the while.
    place.wait_for(Point::Answered);
}

/// The trouble is over, everywhere.
pub fn assert_well(place: &Place) {
    place.wait_until("well", || place.get("/readyz").0 == "200");
    assert!(place.get("/metrics").1.contains("runwatch_store_up 1"));
    assert!(place.log().contains("recording works again"), "{}", place.log());
}

#[test]
fn a_second_daemon_is_told_who_has_the_state() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let first = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    let second = runwatch(&["daemon"]).config("").env("STATE_DIRECTORY", place.state()).run();
    assert_eq!(second.code, Some(70), "{second:?}");
    let pid = first.pid().as_raw_nonzero();
    assert!(second.stderr.contains(&format!("in use by the runwatch of process {pid}")), "{second:?}");
    stop(first);
}

#[test]
fn a_state_of_a_newer_version_is_refused_and_left_alone() {
    let place = Place::with(&[]);
    std::fs::create_dir(place.state()).unwrap();
    let db = place.state().join("runwatch.db");
    rusqlite::Connection::open(&db).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(&db).unwrap();
    let refused = runwatch(&["daemon"]).config("").env("STATE_DIRECTORY", place.state()).run();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("newer runwatch") && refused.stderr.contains("upgrade"), "{refused:?}");
    // The version of a file is not its journal's: the header may say WAL by now.
    assert_eq!(std::fs::read(&db).unwrap()[100..], before[100..]);
}

#[test]
fn damage_found_at_the_start_is_set_aside_and_configured_runs_are_told() {
    let place = Place::with(&[("a", &["FAILED"])]);
    std::fs::create_dir(place.state()).unwrap();
    let damage =
        b"this is no database, and longer than the header of one would be: far more than 100 bytes\n"
            .repeat(9);
    std::fs::write(place.state().join("runwatch.db"), &damage).unwrap();
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_until("told", || place.told().len() == 1);
    assert_eq!(place.told(), [event("a", "run.failed")]);
    let aside = place.aside();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(place.state().join(&aside[0])).unwrap(), damage);
    assert!(place.log().contains(&aside[0]), "{}", place.log());
    assert!(place.get("/readyz").1.contains(&aside[0]));
    stop(daemon);
}

#[test]
fn damage_found_at_work_is_set_aside_and_every_run_is_watched_on() {
    let place = Place::with(&[("a", &["PROCESSING"]), ("b", &["PROCESSING"])]);
    let daemon = place.daemon(&["a"]).spawn();
    place.wait_for(Point::Answered);
    let add = runwatch(&["add", "b"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(add.code, Some(0), "{add:?}");
    let is_seen = || {
        let list = runwatch(&["list", "--output", "json"]).env("RUNWATCH_SOCKET", place.socket()).run();
        list.json()["runs"].as_array().unwrap().iter().all(|run| run["status"] == "PROCESSING")
    };
    place.wait_until("seen", is_seen);
    for file in ["runwatch.db", "runwatch.db-wal"] {
        let mut file = File::options().write(true).open(place.state().join(file)).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all(&vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    }
    for (run, end) in [("a", "FAILED"), ("b", "SUCCEEDED")] {
        place.world.set_course(run, Course::through(&[end]));
    }
    place.wait_until("recorded", || place.log().matches("delivered").count() == 2);
    let mut told = place.told();
    told.sort();
    assert_eq!(told, [event("a", "run.failed"), event("b", "run.succeeded")]);
    assert_eq!(place.aside().len(), 1, "{}", place.log());
    assert!(place.get("/readyz").1.contains("a damaged state is kept as"));
    // The new state is whole: after a kill it is known what was told.
    daemon.signal(Signal::KILL);
    drop(daemon.wait());
    place.world.wait_until_quiet();
    place.world.set_course("last", Course::through(&["CANCELED"]));
    let next = place.daemon(&["a", "last"]).spawn();
    place.wait_until("told", || place.told().len() == 3);
    assert_eq!(place.told()[2], event("last", "run.canceled"));
    let list = runwatch(&["list", "--all", "--output", "json"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(list.json()["runs"].as_array().unwrap().len(), 4, "{list:?}");
    stop(next);
}

/// The arguments of strace that has calls on the files of the state fail so. -D: the daemon is our child, and strace its
/// grandchild. -I 1: it can be ended.
fn failing(place: &Place, inject: &str) -> Vec<String> {
    let mut args = ["-D", "-I", "1", "-f", "-qq", "-o", "/dev/null", "-e"].map(String::from).to_vec();
    args.push(format!("inject={inject}"));
    for file in ["runwatch.db", "runwatch.db-wal", "runwatch.lock"] {
        args.extend(["-P".to_owned(), place.state().join(file).display().to_string()]);
    }
    args
}

/// The daemon meets the fault, says so, and tells what it has seen once the fault is over.
fn survives(inject: &str) {
    let Some(strace) = need::program("strace") else { return };
    // It goes to and fro, so that there is always something to record.
    let words = ["PROCESSING", "PENDING"].repeat(500);
    let place = Place::with(&[("a", &words)]);
    // Once without, so that there is a state: its opening is not what is to fail.
    let first = place.daemon(&[]).spawn();
    place.wait_until("seen", || place.log().contains("PROCESSING"));
    stop(first);
    let args = failing(&place, inject);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let daemon = place.daemon(&["a"]).under(&strace, &args).spawn();
    assert_loud(&place);
    place.world.set_course("a", Course::through(&["FAILED"]));
    place.wait_for(Point::Answered);
    // Without its tracer nothing fails any more.
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let tracer =
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok()).unwrap();
    rustix::process::kill_process(Pid::from_raw(tracer).unwrap(), Signal::TERM).unwrap();
    place.wait_until("delivered", || place.log().contains("delivered"));
    assert_eq!(place.told(), [event("a", "run.failed")], "told once");
    assert_well(&place);
    stop(daemon);
}

#[test]
fn a_full_disk_is_loud_and_what_was_seen_is_told_when_there_is_room() {
    survives("pwrite64:error=ENOSPC:when=20+");
}

#[test]
fn an_fsync_that_fails_is_loud_and_what_was_seen_is_told_when_it_works_again() {
    survives("fdatasync,fsync:error=EIO:when=4+");
}

#[test]
fn a_file_system_that_becomes_read_only_is_loud_and_survived() {
    survives("pwrite64:error=EROFS:when=20+");
}

#[test]
fn a_directory_that_cannot_be_written_is_said_at_the_start() {
    let Some(strace) = need::program("strace") else { return };
    let place = Place::with(&[]);
    let args = failing(&place, "openat:error=EROFS");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let refused = place.daemon(&["a"]).under(&strace, &args).spawn().wait();
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let log = place.log();
    assert!(log.contains("cannot keep the state in") && log.contains("Read-only"), "{log}");
}

#[test]
fn files_that_may_not_grow_are_loud_and_what_was_seen_is_told_when_they_may() {
    let place = Place::with(&[("a", &["PROCESSING"])]);
    // The signal that comes with the limit is ignored: what remains is an error.
    let sh = ["-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    // Once before, so that the database has its size: emptying the log into it is what must fail, too.
    let first = place.daemon(&[]).spawn();
    place.wait_for(Point::Answered);
    stop(first);
    let daemon = place.daemon(&["a"]).under(Path::new("/bin/sh"), &sh).spawn();
    place.wait_until("seen", || place.log().contains(" a PROCESSING"));
    let limit = |size| {
        let limit = Rlimit { current: size, maximum: None };
        prlimit(Some(daemon.pid()), Resource::Fsize, limit).unwrap();
    };
    limit(Some(std::fs::metadata(place.state().join("runwatch.db-wal")).unwrap().len()));
    place.world.set_course("a", Course::through(&["FAILED"]));
    assert_loud(&place);
    assert_eq!(place.told(), []);
    limit(None);
    place.wait_until("delivered", || place.log().contains("delivered"));
    assert_eq!(place.told(), [event("a", "run.failed")], "told once");
    assert_well(&place);
    stop(daemon);
}
