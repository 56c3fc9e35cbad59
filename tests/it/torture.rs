//! The daemon is killed at random points and restarted, again and again. Every end reaches the receiver with the same
//! id and bytes each time, none is invented, and ended runs stay ended.
//!
//! Fifty rounds here; a thousand with `cargo test --test it torture -- --ignored --nocapture`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::bin::{Running, Runwatch, runwatch, wait_until_gone};
use crate::support::need;
use crate::support::world::{Course, Point, Temper, World};

const PATIENCE: Duration = Duration::from_secs(20);

/// Kills in one round.
const KILLS: usize = 4;

/// Where the daemon is killed.
const POINTS: [Point; 5] = [Point::Ready, Point::Asked, Point::Answered, Point::Told, Point::Taken];

/// When a life ends.
#[derive(Debug, Clone, Copy)]
struct Plan {
    point: Point,
    /// The so manieth time.
    nth: usize,
    /// So long after it.
    after: Duration,
}

/// What the test waits for.
#[derive(Debug, PartialEq)]
enum News {
    Ready,
    Taken,
    Killed,
}

/// The daemon that lives, and what is to become of it.
struct Fate {
    life: usize,
    plan: Option<Plan>,
    daemon: Option<Running>,
    news: Sender<News>,
}

impl Fate {
    fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::KILL);
            drop(daemon.wait());
            self.news.send(News::Killed).unwrap();
        }
    }
}

/// Everything around the daemon, for all rounds.
struct Stage {
    world: World,
    fate: Arc<Mutex<Fate>>,
    news: Receiver<News>,
    dir: tempfile::TempDir,
}

/// What a round came to.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    kills: usize,
    runs: usize,
    receipts: usize,
    duplicates: usize,
}

impl Tally {
    fn add(&mut self, more: Self) {
        self.kills += more.kills;
        self.runs += more.runs;
        self.receipts += more.receipts;
        self.duplicates += more.duplicates;
    }
}

impl Stage {
    fn new() -> Self {
        let (sender, news) = channel();
        let fate = Fate { life: 0, plan: None, daemon: None, news: sender.clone() };
        let fate = Arc::new(Mutex::new(fate));
        let of_fate = Arc::clone(&fate);
        let reached = move |point| at(&of_fate, point);
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let (sender, at_ready) = (Mutex::new(sender), reached.clone());
        let world = World::start(move |point| {
            if point == Point::Taken {
                sender.lock().unwrap().send(News::Taken).unwrap();
            }
            reached(point);
        });
        let of_ready = fate.lock().unwrap().news.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                    // Whoever waited may have failed.
                    let _ = of_ready.send(News::Ready);
                    at_ready(Point::Ready);
                }
            }
        });
        Self { world, fate, news, dir }
    }

    /// Starts a daemon that is to die so.
    fn start(&self, command: Runwatch, plan: Option<Plan>) {
        let mut fate = self.fate.lock().unwrap();
        fate.life += 1;
        fate.plan = plan;
        self.news.try_iter().for_each(drop);
        let daemon = command.spawn();
        let (life, pid) = (fate.life, daemon.pid());
        fate.daemon = Some(daemon);
        drop(fate);
        // It may end without our doing.
        let fate = Arc::clone(&self.fate);
        std::thread::spawn(move || {
            wait_until_gone(pid.as_raw_nonzero().get());
            let mut this = fate.lock().unwrap();
            if this.life == life {
                this.kill();
            }
        });
    }

    fn kill(&self) {
        self.fate.lock().unwrap().kill();
        self.world.wait_until_quiet();
    }

    /// Ends the daemon in good order.
    fn stop(&self) {
        let daemon = self.fate.lock().unwrap().daemon.take().unwrap();
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait().code, Some(0));
        self.world.wait_until_quiet();
    }
}

/// Something was reached: the end of a life, maybe.
fn at(fate: &Arc<Mutex<Fate>>, point: Point) {
    let mut this = fate.lock().unwrap();
    let Some(plan) = this.plan.as_mut().filter(|plan| plan.point == point) else { return };
    plan.nth -= 1;
    if plan.nth > 0 {
        return;
    }
    let (after, life) = (plan.after, this.life);
    this.plan = None;
    if after.is_zero() {
        return this.kill();
    }
    drop(this);
    let fate = Arc::clone(fate);
    std::thread::spawn(move || {
        std::thread::sleep(after);
        let mut this = fate.lock().unwrap();
        if this.life == life {
            this.kill();
        }
    });
}

/// One round: a state of its own, and its runs.
struct Round<'a> {
    stage: &'a Stage,
    state: PathBuf,
    configured: Vec<String>,
    added: Vec<String>,
    /// Whether the daemon has said that it watches what was added.
    is_added: bool,
}

impl<'a> Round<'a> {
    fn new(stage: &'a Stage, name: &str, runs: usize, rng: &mut fastrand::Rng) -> Self {
        let path = stage.dir.path().join(name);
        let mut names: Vec<String> = (0..runs).map(|n| format!("{name}-{n}")).collect();
        let course = |_: &String| {
            let end = *rng.choice(&["SUCCEEDED", "FAILED", "CANCELED"]).unwrap();
            Course::through(
                rng.choice([&["PENDING", "PROCESSING", end][..], &["PROCESSING", end], &[end]]).unwrap(),
            )
        };
        let courses = names.iter().map(course).collect::<Vec<_>>();
        stage.world.begin(
            names.iter().cloned().zip(courses).collect(),
            Temper { api_fails: 11, receiver_fails: 4, receiver_hangs_up: 7, ..Temper::default() },
        );
        let added = names.split_off(runs / 2);
        Self { stage, state: path, configured: names, added, is_added: false }
    }

    fn socket(&self) -> PathBuf {
        self.state.with_extension("sock")
    }

    /// A daemon on this state that is configured with this run, too.
    fn daemon(&self, more: Option<&str>) -> Runwatch {
        let url = self.stage.world.url();
        let mut config = format!(
            "[delivery]\nretry_delays = [{}]\n[[notify.webhook]]\nurl = \"{url}\"\nunsigned = true\n",
            vec!["\"20ms\""; 50].join(", ")
        );
        for id in self.configured.iter().map(String::as_str).chain(more) {
            writeln!(config, "[[run]]\nid = \"{id}\"").unwrap();
        }
        runwatch(&["daemon"])
            .base_url(&url)
            .env("STATE_DIRECTORY", &self.state)
            .env("RUNWATCH_SOCKET", self.socket())
            .env("NOTIFY_SOCKET", self.stage.dir.path().join("notify"))
            .log(&self.state.with_extension("log"))
            .quick(&config)
    }

    /// Lives until it is killed; true if everything was told before.
    fn live(&mut self, command: Runwatch, plan: Option<Plan>) -> bool {
        self.stage.start(command, plan);
        loop {
            match self.stage.news.recv_timeout(PATIENCE).expect("the daemon gets on") {
                News::Killed => return false,
                News::Ready if !self.is_added => {
                    let ids = self.added.iter().map(String::as_str);
                    let args: Vec<&str> = ["add"].into_iter().chain(ids).collect();
                    let socket = self.socket();
                    let add = runwatch(&args).env("RUNWATCH_SOCKET", socket).run();
                    // Without an answer nothing is promised.
                    self.is_added = add.code == Some(0);
                }
                News::Ready | News::Taken => {}
            }
            if self.is_told() {
                return true;
            }
        }
    }

    /// Whether the receiver has the end of every run.
    fn is_told(&self) -> bool {
        let receipts = self.stage.world.receipts();
        let told: BTreeSet<&str> =
            receipts.iter().filter(|receipt| receipt.taken).map(|receipt| &*receipt.run).collect();
        self.is_added && told.len() == self.configured.len() + self.added.len()
    }

    /// What must hold after everything was told and the daemon is gone.
    fn check(&self) {
        let world = &self.stage.world;
        let left = pending(&self.state);
        let before = (world.courses(), world.receipts().len());
        // From now on the API says otherwise of every run, and a last one shows that the daemon is at work.
        for run in before.0.keys() {
            world.set_course(run, Course::through(&["PROCESSING"]));
        }
        world.set_course("last", Course::through(&["SUCCEEDED"]));
        world.set_temper(Temper::default());
        self.stage.start(self.daemon(Some("last")), None);
        while world.receipts().len() < before.1 + left + 1 {
            self.stage.news.recv_timeout(PATIENCE).expect("what was left is told");
        }
        let list =
            runwatch(&["list", "--all", "--output", "json"]).env("RUNWATCH_SOCKET", self.socket()).run();
        self.stage.stop();
        let receipts = world.receipts();
        assert_eq!(receipts.len(), before.1 + left + 1, "what was recorded as told is not told again");
        let early = receipts[..before.1].iter().find(|receipt| !receipt.had_ended);
        assert!(early.is_none(), "told before its end: {early:?}");
        for (run, course) in world.courses() {
            assert!(run == "last" || course.answers == 0, "{run} has ended and is asked about");
        }
        let known: BTreeMap<String, String> =
            list.json()["runs"].as_array().unwrap().iter().map(status).collect();
        assert_eq!(known.len(), before.0.len() + 1, "{known:?}");
        for (run, course) in &before.0 {
            assert_eq!(known[run], course.end(), "{run}");
        }
        assert_eq!(pending(&self.state), 0);
        let mut first = BTreeMap::new();
        for receipt in receipts.iter().filter(|receipt| receipt.run != "last") {
            let course = before.0.get(&receipt.run).expect("a run that there is");
            assert_eq!(receipt.kind, format!("run.{}", course.end().to_lowercase()));
            let told = first.entry(&receipt.run).or_insert(receipt);
            assert_eq!((&told.id, &told.body), (&receipt.id, &receipt.body), "once more is the same");
        }
        assert_eq!(first.len(), before.0.len(), "every end was told");
    }

    fn tally(&self, kills: usize) -> Tally {
        let (runs, receipts) = (self.stage.world.courses().len() - 1, self.stage.world.receipts().len() - 1);
        Tally { kills, runs, receipts, duplicates: receipts - runs }
    }
}

fn status(run: &serde_json::Value) -> (String, String) {
    let word = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(run["ended"], "finished", "{run}");
    (word("id"), word("status"))
}

/// How many deliveries are still to be made, by the files of a daemon that is gone. They are left as they are.
fn pending(state: &Path) -> usize {
    let copy = tempfile::tempdir().unwrap();
    for file in ["runwatch.db", "runwatch.db-wal"] {
        if state.join(file).exists() {
            std::fs::copy(state.join(file), copy.path().join(file)).unwrap();
        }
    }
    let db = rusqlite::Connection::open(copy.path().join("runwatch.db")).unwrap();
    let sql = "SELECT count(*) FROM deliveries WHERE state != 'delivered'";
    db.query_row(sql, (), |row| row.get::<_, u32>(0)).unwrap() as usize
}

fn rounds(count: u64, first_seed: u64) -> Tally {
    let stage = Stage::new();
    let mut sum = Tally::default();
    for seed in first_seed..first_seed + count {
        let mut rng = fastrand::Rng::with_seed(seed);
        let runs = rng.usize(2..=6);
        let mut round = Round::new(&stage, &format!("r{seed}"), runs, &mut rng);
        let shown = Shown { seed, log: round.state.with_extension("log") };
        let mut kills = 0;
        while kills < KILLS {
            let after = if rng.bool() { Duration::ZERO } else { Duration::from_micros(rng.u64(0..8000)) };
            let plan = Plan { point: *rng.choice(&POINTS).unwrap(), nth: rng.usize(1..=runs), after };
            if plan.point == Point::Ready {
                // It is ready once.
                let plan = Plan { nth: 1, ..plan };
                round.live(round.daemon(None), Some(plan));
            } else if round.live(round.daemon(None), Some(plan)) {
                break;
            }
            kills += 1;
            stage.world.wait_until_quiet();
        }
        if !round.is_told() {
            round.live(round.daemon(None), None);
        }
        // Just after the last thanks: it may be recorded, or not.
        stage.kill();
        round.check();
        sum.add(round.tally(kills + 1));
        drop(shown);
    }
    sum
}

/// What is done to the files of a new state, and to those of one that is there, by the names of the system calls. A
/// thread's calls are counted by themselves: on a state that is there, the one that opens it writes nothing.
const OPENING: &str = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,mmap,munmap,close";
const WRITING: &str = "write,pwrite64,ftruncate,fsync,fdatasync";

/// A life a call: killed at the first, then at the second, until it has told everything before that many.
fn killed_at_every(calls: &str, is_new: bool, strace: &Path) -> Tally {
    let stage = Stage::new();
    let mut sum = Tally::default();
    let mut rng = fastrand::Rng::with_seed(1);
    for nth in 1.. {
        let mut round = Round::new(&stage, &format!("c{nth}"), 2, &mut rng);
        let shown = Shown { seed: nth, log: round.state.with_extension("log") };
        if !is_new {
            round.live(round.daemon(None), Some(Plan { point: Point::Ready, nth: 1, after: Duration::ZERO }));
        }
        let inject = format!("inject={calls}:signal=KILL:when={nth}");
        let path = |name: &str| round.state.join(name).display().to_string();
        let (db, wal, shm) = (path("runwatch.db"), path("runwatch.db-wal"), path("runwatch.db-shm"));
        let paths = ["-P", &db, "-P", &wal, "-P", &shm];
        // -D: the daemon is our child, and strace its grandchild.
        let args = [&["-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject][..], &paths].concat();
        if round.live(round.daemon(None).under(strace, &args), None) {
            stage.kill();
            drop(shown);
            break;
        }
        round.live(round.daemon(None), None);
        stage.kill();
        round.check();
        sum.add(round.tally(2));
        drop(shown);
    }
    sum
}

/// Says what to look at if the test fails while this is there.
struct Shown {
    seed: u64,
    log: PathBuf,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("seed {}, and the daemon's log:\n{log}", self.seed);
        }
    }
}

#[test]
fn killed_wherever_it_is_it_tells_every_end() {
    let tally = rounds(50, fastrand::u64(..1 << 40));
    assert!(tally.kills >= 50, "{tally:?}");
    eprintln!("{tally:?}");
}

#[test]
#[ignore = "takes minutes: run it by hand, see benches/README.md"]
fn a_thousand_rounds() {
    let tally = rounds(1000, fastrand::u64(..1 << 40));
    eprintln!("{tally:?}");
}

#[test]
fn killed_at_every_call_on_its_files_it_tells_every_end() {
    let Some(strace) = need::program("strace") else { return };
    for (calls, is_new) in [(OPENING, true), (WRITING, false)] {
        let tally = killed_at_every(calls, is_new, &strace);
        assert!(tally.kills >= 30, "{tally:?}");
        eprintln!("{tally:?}");
    }
}
