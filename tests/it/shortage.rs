//! A daemon whose user has no more threads for a while: it still records and delivers, and only a request that needs a
//! thread fails.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Pid;

use crate::durability::{Place, event, stop};
use crate::support::bin::{Running, Runwatch, runwatch};
use crate::support::need;
use crate::support::world::Course;

/// Whoever the limits are set for. Root is not subject to them: then it is another user, who has no other process.
struct Limited {
    uid: Option<u32>,
    setpriv: PathBuf,
    prlimit: PathBuf,
}

impl Limited {
    fn new(nth: u32) -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let uid = is_root.then(|| 20_000 + std::process::id() % 10_000 * 4 + nth);
        Some(Self { uid, setpriv: need::program("setpriv")?, prlimit: need::program("prlimit")? })
    }

    /// The daemon as that user's, who may have so many processes (and threads) from the start.
    fn daemon(&self, place: &Place, daemon: Runwatch, processes: &str) -> Running {
        let daemon = match self.uid {
            Some(uid) => {
                chown(place.dir.path(), Some(uid), Some(uid)).unwrap();
                daemon.of_user(uid, &self.setpriv)
            }
            None => daemon,
        };
        daemon.under(&self.prlimit, &[&format!("--nproc={processes}")]).spawn()
    }

    /// Sets how many it may have from now on.
    fn limit(&self, daemon: &Running, processes: u32) {
        let mut command = match self.uid {
            Some(uid) => {
                let mut command = Command::new(&self.setpriv);
                command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
                command.arg(&self.prlimit);
                command
            }
            None => Command::new(&self.prlimit),
        };
        command.arg(format!("--pid={}", daemon.pid())).arg(format!("--nproc={processes}:"));
        assert!(command.status().unwrap().success());
    }
}

/// More than enough.
const MANY: u32 = 1000;

/// The names of a process's threads.
fn threads(pid: Pid) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| name(task.unwrap())).map(|name| name.trim().to_owned()).collect()
}

#[test]
fn what_is_seen_while_there_are_no_threads_is_recorded_and_delivered() {
    let place = Place::with(&[("a", &["PROCESSING"]), ("b", &["PROCESSING"])]);
    let Some(limited) = Limited::new(0) else { return };
    let daemon = limited.daemon(&place, place.daemon(&["a", "b"]), "1000:1000");
    place.wait_until("seen", || place.log().matches("PROCESSING").count() >= 2);
    // What is there for good; a pool's threads end when they were idle for a while.
    let standing = ["runwatch", "output", "store"];
    place.wait_until("quiet", || threads(daemon.pid()).iter().all(|name| standing.contains(&&**name)));
    limited.limit(&daemon, 1);
    place.world.set_course("a", Course::through(&["FAILED"]));
    place.wait_until("delivered", || place.log().contains("delivered"));
    assert_eq!(place.told(), [event("a", "run.failed")]);
    assert_eq!(place.get("/healthz").0, "200");
    assert_eq!(place.get("/readyz").0, "200");
    let add = runwatch(&["add", "c"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(add.code, Some(0), "{add:?}");
    // What cannot be read for want of threads has no mistake.
    for command in ["reload", "doctor"] {
        let output =
            runwatch(&[command]).env("RUNWATCH_SOCKET", place.socket()).base_url(&place.world.url()).run();
        assert_eq!(output.code, Some(70), "{output:?}");
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert!(shown.contains("cannot start a thread") && shown.contains("TasksMax"), "{output:?}");
        assert!(!shown.contains("mistake") && !shown.contains("refused"), "{output:?}");
    }
    assert!(!place.log().contains("refused"), "{}", place.log());
    limited.limit(&daemon, MANY);
    let reload = runwatch(&["reload"]).env("RUNWATCH_SOCKET", place.socket()).run();
    assert_eq!(reload.code, Some(0), "{reload:?}");
    place.world.set_course("b", Course::through(&["SUCCEEDED"]));
    place.wait_until("delivered", || place.told().len() == 2);
    assert!(!place.log().contains("panicked"), "{}", place.log());
    stop(daemon);
}

#[test]
fn a_host_name_that_cannot_be_looked_up_for_want_of_threads_is_an_error_of_that_request() {
    let Some(()) = need::root() else { return };
    let Some(limited) = Limited::new(1) else { return };
    let place = Place::with(&[("a", &["PROCESSING"])]);
    let url = place.world.url().replace("127.0.0.1", "localhost");
    let daemon = place.daemon(&["a"]).base_url(&url);
    // The three that it has from the start.
    let daemon = limited.daemon(&place, daemon, "3:1000");
    place.wait("said", || place.log().contains("cannot start a thread"));
    assert_eq!(place.get("/healthz").0, "200");
    limited.limit(&daemon, MANY);
    place.world.set_course("a", Course::through(&["FAILED"]));
    place.wait_until("delivered", || place.log().contains("delivered"));
    assert_eq!(place.told(), [event("a", "run.failed")]);
    assert!(!place.log().contains("panicked"), "{}", place.log());
    stop(daemon);
}

#[test]
fn a_store_that_gets_no_thread_at_the_start_is_said() {
    let Some(()) = need::root() else { return };
    let Some(limited) = Limited::new(2) else { return };
    let place = Place::with(&[]);
    let ended = limited.daemon(&place, place.daemon(&[]), "2").wait();
    assert_eq!(ended.code, Some(70), "{ended:?}");
    assert!(place.log().contains("cannot start the store's thread"), "{}", place.log());
}

#[test]
fn a_daemon_that_gets_no_thread_at_all_says_what_to_allow() {
    let Some(()) = need::root() else { return };
    let Some(limited) = Limited::new(3) else { return };
    let place = Place::with(&[]);
    let ended = limited.daemon(&place, place.daemon(&[]), "1").wait();
    assert_eq!(ended.code, Some(70), "{ended:?}");
    let log = place.log();
    assert!(log.contains("cannot start: ") && log.contains("TasksMax") && log.contains("ulimit -u"), "{log}");
}
