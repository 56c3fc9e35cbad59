//! Processes to measure: a simulated API in this one, and what the kernel says of others.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runwatch::run::{Progress, RunStatus, Subject};
use runwatch::sim::{SimRun, Simulator, SimulatorSettings};
use runwatch::store::{Origin, RunStore as _, SqliteStore, Watched};

/// The release binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_runwatch");

/// A runtime with one thread of its own, so that the simulator answers while this one measures.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A simulated API with these runs.
pub fn simulate(runtime: &tokio::runtime::Runtime, runs: Vec<SimRun>) -> Simulator {
    runtime.block_on(Simulator::start(SimulatorSettings { runs, ..SimulatorSettings::default() })).unwrap()
}

/// A process that ends with its scope.
pub struct Spawned(Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the kernel knows of a process.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Time on a CPU, all threads together.
    pub cpu: Duration,
    /// How often a thread went to sleep of its own accord: how often it had been woken.
    pub wakeups: u64,
}

impl Spawned {
    /// Starts a command in silence.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage { cpu: Duration::ZERO, wakeups: 0 };
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap() {
            let task: PathBuf = task.unwrap().path();
            // A thread may end while it is looked at.
            let Ok(schedstat) = std::fs::read_to_string(task.join("schedstat")) else { continue };
            let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
            usage.cpu += Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap());
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            usage.wakeups += line.split_whitespace().last().unwrap().parse::<u64>().unwrap();
        }
        usage
    }

    /// The most memory it has had resident, in MB (10^6 bytes).
    pub fn peak_mb(&self) -> f64 {
        self.memory("VmHWM")
    }

    /// The memory it has resident now, in MB (10^6 bytes).
    pub fn resident_mb(&self) -> f64 {
        self.memory("VmRSS")
    }

    fn memory(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
    }
}

/// `runwatch daemon` on its own state, with this configuration.
pub fn daemon(dir: &tempfile::TempDir, config: &str, url: &str) -> Spawned {
    Spawned::start(daemon_command(&mut Command::new(BINARY), dir, config, url))
}

/// The same as a command, begun with what is there already.
pub fn daemon_command<'c>(
    command: &'c mut Command,
    dir: &tempfile::TempDir,
    config: &str,
    url: &str,
) -> &'c mut Command {
    let path = dir.path().join("config.toml");
    std::fs::write(&path, format!("state_dir = \"{}/state\"\n{config}", dir.path().display())).unwrap();
    command.args(["daemon", "--config"]).arg(path).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("DATAFRAMER_API_KEY", "k").env("DATAFRAMER_BASE_URL", url)
}

/// So many ids.
pub fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("5eed0000-0000-4000-8000-{n:012}")).collect()
}

/// Writes a state in which these runs are watched, and this is known of each.
pub fn prefill(dir: &tempfile::TempDir, ids: &[String], known: Option<&(RunStatus, Progress)>) {
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let now = runwatch::clock::wall();
    let run = |id: &String| {
        let subject = Subject { id: id.parse().unwrap(), name: None };
        let mut run = Watched { origin: Origin::Added, ..Watched::new(subject, now) };
        if let Some((status, progress)) = known {
            (run.state.status, run.state.progress) = (Some(status.clone()), *progress);
            (run.state.created_at, run.state.changed_at) = (Some(now), Some(now));
            run.state.progress_at = Some(now);
        }
        run
    };
    let runs: Vec<Watched> = ids.iter().map(run).collect();
    let store = SqliteStore::open(&state.join("runwatch.db")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        store.add(runs.clone()).await.unwrap();
        store.save(runs).await.unwrap();
    });
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
