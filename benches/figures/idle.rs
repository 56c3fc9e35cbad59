//! Wake-ups while nothing is due: none, whether everything has ended or the next poll is far off.

use std::time::Duration;

use super::process::{daemon, runtime, simulate};

const WINDOW: Duration = Duration::from_secs(14);

pub fn run() {
    let runtime = runtime();
    let runs = ["id=ended,duration=0s", "id=going,duration=1h"].map(|run| run.parse().unwrap()).to_vec();
    let simulator = simulate(&runtime, runs);
    for (id, config) in [
        ("ended", "[[run]]\nid = \"ended\"\n"),
        ("going", "[poll]\ninitial_interval = \"5m\"\nmax_interval = \"5m\"\n[[run]]\nid = \"going\"\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let watcher = daemon(&dir, config, &simulator.url());
        // Long enough for the first poll, for what it brought to be recorded, and for the thread that did it to end:
        // idle threads of the pool leave after ten seconds. (After thirty the simulator closes the connection, and
        // closing it in turn is a wake-up: the window ends before that.)
        std::thread::sleep(Duration::from_secs(13));
        let before = watcher.usage();
        std::thread::sleep(WINDOW);
        let after = watcher.usage();
        let wakeups = after.wakeups - before.wakeups;
        println!(
            "a run that is {id}: {wakeups} wake-ups and {:?} of CPU in {WINDOW:?}",
            after.cpu.saturating_sub(before.cpu)
        );
    }
    println!("to reach: 0 wake-ups");
}
