//! `runwatch wait` on a run that has ended, from process start to exit, against the same by `curl | jq`.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::process::{BINARY, median, runtime, simulate};

const ROUNDS: usize = 100;

pub fn run() {
    let runtime = runtime();
    let simulator = simulate(&runtime, vec!["id=r,duration=0s,samples=20".parse().unwrap()]);
    let url = simulator.url();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 10 {
        let wait = Command::new(BINARY)
            .args(["wait", "r"])
            .env("DATAFRAMER_BASE_URL", &url)
            .env("DATAFRAMER_API_KEY", "k")
            .time();
        let script =
            format!("curl -s -H 'Authorization: Bearer k' {url}/api/dataframer/runs/r/ | jq -r .status");
        let curl = Command::new("sh").args(["-c", &script]).time();
        // The first rounds warm the caches.
        if round >= 10 {
            ours.push(wait.as_secs_f64() * 1e3);
            theirs.push(curl.as_secs_f64() * 1e3);
        }
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "runwatch wait {ours:.1} ms, curl | jq {theirs:.1} ms, ratio {ratio:.2} (medians of {ROUNDS} rounds in turn)"
    );
    println!("to reach: under 5 ms, and at most 0.25");
}

trait Timed {
    fn time(&mut self) -> Duration;
}

impl Timed for Command {
    fn time(&mut self) -> Duration {
        self.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        assert!(self.status().unwrap().success(), "{self:?} (curl and jq are needed for this figure)");
        began.elapsed()
    }
}
