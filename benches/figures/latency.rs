//! From the end of a run, as the API answers it, to the webhook that tells it, with the durable commit in between; and how
//! many fsyncs a thousand ends cost.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::paced::Paced;
use super::process::{BINARY, Spawned, daemon, daemon_command, ids, prefill, runtime};

/// As many as end in ten seconds.
const RUNS: usize = 2000;
const A_SECOND: u32 = 200;

/// As many as end in one.
const AT_ONCE: u32 = 1000;

fn config(url: &str) -> String {
    format!(
        "[poll]\nrequests_per_minute = 600000\nmax_in_flight = 64\nbatch = \"never\"\n[log]\nlevel = \"warn\"\n\
         [[notify.webhook]]\nurl = \"{url}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    )
}

pub fn latency() {
    let runtime = runtime();
    let paced = runtime.block_on(Paced::start(Duration::from_secs(1) / A_SECOND));
    let dir = tempfile::tempdir().unwrap();
    prefill(&dir, &ids(RUNS), None);
    let watcher = daemon(&dir, &config(&paced.url()), &paced.url());
    let took = wait_until_told(&paced, RUNS);
    drop(watcher);
    let at = |percent: usize| took[took.len() * percent / 100];
    println!(
        "{RUNS} ends at {A_SECOND} a second, from the answer to the webhook: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        at(50),
        at(99),
        took.last().unwrap()
    );
    println!("to reach: p50 under 10 ms, p99 under 50 ms");
}

pub fn fsync() {
    let runtime = runtime();
    let paced = runtime.block_on(Paced::start(Duration::from_secs(1) / AT_ONCE));
    let dir = tempfile::tempdir().unwrap();
    prefill(&dir, &ids(AT_ONCE as usize), None);
    let trace = dir.path().join("trace");
    let mut command = Command::new("strace");
    // -D: the daemon is our child, and strace its grandchild.
    command
        .args(["-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&trace)
        .arg(BINARY);
    let watcher = Spawned::start(daemon_command(&mut command, &dir, &config(&paced.url()), &paced.url()));
    while paced.times().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = count(&trace);
    let took = wait_until_told(&paced, AT_ONCE as usize);
    let times = paced.times();
    let first = times.iter().map(|times| times.ended).min().unwrap();
    let last = times.iter().filter_map(|times| times.told).max().unwrap();
    // What is recorded last is that they were told.
    std::thread::sleep(Duration::from_millis(300));
    let fsyncs = count(&trace) - before;
    drop(watcher);
    println!(
        "{} ends told in {:.2} s: {fsyncs} fsyncs (each end is a commit, a claim and a record of the delivery)",
        took.len(),
        (last - first).as_secs_f64()
    );
    println!("to reach: far fewer than 1000");
}

fn count(trace: &Path) -> usize {
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains("sync(")).count()
}

/// Waits until all is told; gives how long each took, in order, in milliseconds.
fn wait_until_told(paced: &Paced, runs: usize) -> Vec<f64> {
    loop {
        let mut took: Vec<f64> = paced
            .times()
            .iter()
            .filter_map(|times| Some(times.told?.duration_since(times.ended).as_secs_f64() * 1e3))
            .collect();
        if took.len() == runs {
            took.sort_by(f64::total_cmp);
            return took;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
