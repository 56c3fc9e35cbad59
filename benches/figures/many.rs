//! A daemon with many runs that go on and do nothing: its memory, its CPU, and how soon it is ready.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use runwatch::run::{Progress, RunStatus};
use tokio::time::Instant;

use super::process::{BINARY, Spawned, daemon, daemon_command, ids, median, prefill, runtime, simulate};

const WINDOW: Duration = Duration::from_secs(10);
const ROUNDS: usize = 5;

pub fn memory() {
    let runtime = runtime();
    for (count, megabytes) in [(10_000, 64), (100_000, 160)] {
        let ids = ids(count);
        let runs = ids
            .iter()
            .map(|id| format!("id={id},samples=20,duration=20000h,age=1h").parse().unwrap())
            .collect();
        let simulator = simulate(&runtime, runs);
        let dir = tempfile::tempdir().unwrap();
        prefill(&dir, &ids, Some(&processing()));
        // Each is asked about once, as fast as may be, and then again in an hour.
        let config = "[poll]\ninitial_interval = \"1h\"\nmax_interval = \"1h\"\nrequests_per_minute = 600000\n\
                      batch = \"never\"\n                      [log]\nlevel = \"warn\"\n";
        let watcher = daemon(&dir, config, &simulator.url());
        while simulator.requests().len() < count {
            std::thread::sleep(Duration::from_millis(500));
        }
        std::thread::sleep(Duration::from_secs(3));
        let before = watcher.usage().cpu;
        std::thread::sleep(WINDOW);
        let cpu = watcher.usage().cpu.saturating_sub(before);
        println!(
            "{count} runs: {:.0} MB resident ({:.0} MB at most so far), {:.2} % of a core over {WINDOW:?}",
            watcher.resident_mb(),
            watcher.peak_mb(),
            cpu.as_secs_f64() / WINDOW.as_secs_f64() * 100.0
        );
        println!("to reach: under {megabytes} MB, under 1 %");
    }
}

/// A daemon that looks for runs in a list of 50,000, finds none, and watches one of them.
pub fn list() {
    const LISTS: usize = 10;
    let runtime = runtime();
    let ids = ids(50_000);
    let runs = ids.iter().map(|id| format!("id={id},samples=20,duration=1h,age=1h").parse().unwrap());
    let simulator = simulate(&runtime, runs.collect());
    let dir = tempfile::tempdir().unwrap();
    let config = "[discover]\ninterval = \"1s\"\nspec_name = \"no such spec\"\n[log]\nlevel = \"warn\"\n";
    let watcher = daemon(&dir, config, &simulator.url());
    let began = Instant::now();
    while simulator.requests().len() <= LISTS {
        assert!(began.elapsed() < Duration::from_mins(5), "{} lists", simulator.requests().len());
        std::thread::sleep(Duration::from_millis(100));
    }
    let cpu = watcher.usage().cpu.as_secs_f64() / LISTS as f64;
    println!(
        "{LISTS} lists of 50,000 runs: {:.1} MB resident at most, {cpu:.2} s of CPU each",
        watcher.peak_mb()
    );
    println!("to reach: under 32 MB");
}

pub fn startup() {
    let runtime = runtime();
    let ids = ids(100_000);
    let runs = vec!["id=r,duration=5h".parse().unwrap()];
    let simulator = simulate(&runtime, runs);
    let dir = tempfile::tempdir().unwrap();
    prefill(&dir, &ids, Some(&processing()));
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let round = |_| {
        let mut command = std::process::Command::new(BINARY);
        let command = daemon_command(&mut command, &dir, "[log]\nlevel = \"warn\"\n", &simulator.url());
        let began = Instant::now();
        let watcher = Spawned::start(command.env("NOTIFY_SOCKET", &path));
        let mut buffer = [0; 1024];
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                break;
            }
        }
        let took = began.elapsed();
        drop(watcher);
        took.as_secs_f64()
    };
    let took = median((0..ROUNDS).map(round).collect());
    println!("{} runs in the state: ready after {took:.2} s (median of {ROUNDS})", ids.len());
    println!("to reach: under 2 s");
}

/// What is known of a run that goes on: what the API says of it, too.
fn processing() -> (RunStatus, Progress) {
    (RunStatus::Processing, Progress { completed: Some(0), failed: Some(0), total: Some(20) })
}
