//! Processes to measure: a simulated API in this one, and what the kernel says of others.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runwatch::sim::{Settings, SimRun, Simulator};

/// The release binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_runwatch");

/// A runtime with one thread of its own, so that the simulator answers while this one measures.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A simulated API with these runs.
pub fn simulate(runtime: &tokio::runtime::Runtime, runs: Vec<SimRun>) -> Simulator {
    runtime.block_on(Simulator::start(Settings { runs, ..Settings::default() })).unwrap()
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
    #[expect(dead_code, reason = "for the figures to come")]
    pub fn peak_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
    }
}

/// `runwatch daemon` on its own state, with this configuration.
pub fn daemon(dir: &tempfile::TempDir, config: &str, url: &str) -> Spawned {
    let path = dir.path().join("config.toml");
    std::fs::write(&path, format!("state_dir = \"{}/state\"\n{config}", dir.path().display())).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["daemon", "--config"]).arg(path).env_clear();
    command.env("DATAFRAMER_API_KEY", "k").env("DATAFRAMER_BASE_URL", url);
    Spawned::start(&mut command)
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
