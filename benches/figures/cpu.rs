//! CPU time per poll of the daemon at 200 polls a second, against a bare reqwest loop that asks as often.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use runwatch::sim::Simulator;

use super::process::{Spawned, daemon, ids, median, runtime, simulate};

const RUNS: usize = 200;
const WINDOW: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;

pub fn run() {
    let runtime = runtime();
    let ids = ids(RUNS);
    // Runs that are in their middle for as long as this takes.
    let runs =
        ids.iter().map(|id| format!("id={id},samples=20000,duration=5h,age=2h").parse().unwrap()).collect();
    let simulator = simulate(&runtime, runs);
    // Every second, by the clock alone: the end is guessed all the same. Aimed polls would come together, which is cheaper.
    let mut config = "[poll]\neagerness = \"off\"\ninitial_interval = \"1s\"\nmax_interval = \"1s\"\nrequests_per_minute = 30000\nmax_in_flight = 64\nbatch = \"never\"\n".to_owned();
    for id in &ids {
        writeln!(config, "[[run]]\nid = \"{id}\"").unwrap();
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let watcher = daemon(&dir, &config, &simulator.url());
        ours.push(per_poll(&watcher, &simulator, "runwatch/"));
        drop(watcher);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let bare = Spawned::start(command.args(["bare-loop", &simulator.url()]));
        theirs.push(per_poll(&bare, &simulator, "bare"));
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
    println!(
        "CPU per poll: daemon {:.0} µs, bare reqwest loop {:.0} µs, ratio {ratio:.2} (medians of {ROUNDS} rounds in turn)",
        median(ours),
        median(theirs)
    );
    println!("to reach: at most 1.25");
}

/// Microseconds of CPU per request over the window, once the process has warmed up.
fn per_poll(process: &Spawned, simulator: &Simulator, agent: &str) -> f64 {
    let count =
        || simulator.requests().iter().filter(|request| request.user_agent.starts_with(agent)).count();
    let before = count();
    while count() < before + RUNS {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (asked, used) = (count(), process.usage().cpu);
    std::thread::sleep(WINDOW);
    let (asked, used) = (count() - asked, process.usage().cpu.saturating_sub(used));
    let rate = asked as f64 / WINDOW.as_secs_f64();
    assert!((rate / RUNS as f64 - 1.0).abs() < 0.2, "{rate} polls a second");
    used.as_secs_f64() * 1e6 / asked as f64
}

/// What anybody would write: a loop a run, which asks, reads the status, and sleeps.
pub fn bare_loop(url: &str) {
    #[derive(serde::Deserialize)]
    struct Run {
        status: String,
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client =
            reqwest::Client::builder().user_agent("bare").timeout(Duration::from_secs(30)).build().unwrap();
        let mut loops = tokio::task::JoinSet::new();
        for n in 0..RUNS {
            let (client, url) =
                (client.clone(), format!("{url}/api/dataframer/runs/5eed0000-0000-4000-8000-{n:012}/"));
            loops.spawn(async move {
                loop {
                    let body = client.get(&url).bearer_auth("k").send().await.unwrap().bytes().await.unwrap();
                    let run: Run = serde_json::from_slice(&body).unwrap();
                    assert_eq!(run.status, "PROCESSING");
                    // The same jitter as ours, so that both ask as evenly.
                    tokio::time::sleep(Duration::from_secs_f64(0.9 + 0.2 * fastrand::f64())).await;
                }
            });
        }
        drop(loops.join_all().await);
    });
}
